"""From an SAE to what its features mean: analyse, look, steer, compare, plot; on SmolLM2-135M and State of the Union speeches.

    python examples/demo_sae_features.py                    # the demo's SAE (neuronmap demo), trained first if it is not there
    python examples/demo_sae_features.py --quick            # two small SAEs on 20,000 tokens; what CI runs

Plots go to ./feature-plots (``--plots``). Everything is kept: a second run reads what the first one made.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neuronmap import SAEConfig, SAEFeatureExtractor, SAEModelHub
from neuronmap.cli.demo import DEMO
from neuronmap.features import FeatureEffects, FeatureSteering, FeatureStore, Intervention, MaxActivatingExamplesFinder
from neuronmap.features.comparing.comparison import SAEComparison
from neuronmap.hub import LibraryEntry
from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library
from neuronmap.hub.comparing import compare_entries
from neuronmap.hub.pipeline import train_into_library

QUICK = {
    "layer": 8,
    "max_tokens": 20_000,
    "architecture": "topk",
    "hidden_dim": 512,
    "k": 16,
    "num_epochs": 4,
    "tags": (),
}
TEXT = "In the winter of 1862 the President asked Congress for peace, for money, and for an army of 500,000 men."
PROMPT = "My fellow citizens, I think that we should"


def trained(hub: SAEModelHub, settings: dict[str, Any]) -> LibraryEntry:
    """The SAE of these settings: from the library, or trained now."""
    known = next((entry for entry in hub.list() if entry.id == settings["name"]), None)
    return known or train_into_library(SAEConfig(**settings), hub=hub, evaluate=False).entry


def look(store: FeatureStore, extractor: SAEFeatureExtractor) -> int:
    """Print what a text activates and where the best-labelled feature fires; returns that feature."""
    print("\n# What a text activates\n")
    print(extractor.analyze_features(TEXT, top=3))

    print("\n# The features whose label predicts them best\n")
    columns = ["feature", "label", "class", "precision", "recall", "f1", "density"]
    best = store.queries.select(["status=alive", "firings>=100"], sort="-f1_low", limit=8, columns=columns)
    print(best.to_pandas().to_string(index=False))

    chosen = int(best[0]["feature"])
    finder = MaxActivatingExamplesFinder(store, extractor=extractor)
    print(f"\n# Where feature {chosen} fires, and where it does not\n")
    print(finder.find(chosen, max_examples=5, contrast=True))
    print("\n# Found by label\n")
    print(finder.find_by_label("war", top=2, max_examples=2))
    return chosen


def steer(store: FeatureStore, extractor: SAEFeatureExtractor, feature: int) -> None:
    """Print what a feature does: to text that is written, to text that is read, and what an estimate of that is worth."""
    live = extractor.attached
    print("\n# Steering: the feature's direction added, beside a random one of the same length\n")
    steering = FeatureSteering(live, store=store)
    push = Intervention.add(feature, 3.0, unit="max")
    print(steering.generate(PROMPT, push, max_tokens=24, controls=1))
    effects = FeatureEffects(live, store=store)
    print("\n# Removing it on its own examples: what the model loses\n")
    print(effects.ablate([feature]))
    print("\n# What an estimate by gradient is worth, on the same examples and for the strongest features of a text\n")
    print(effects.compare(features=[feature]))
    print()
    print(effects.compare(TEXT))


def plot(store: FeatureStore, comparison: SAEComparison, folder: Path) -> None:
    """Densities of all features, the best feature's activations, the map, and the match of the two SAEs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    table = store.queries.select(limit=None).to_pandas()
    fired = table[table["firings"] > 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.hist(fired["density"].clip(lower=1e-6), bins=[10 ** (-6 + step / 8) for step in range(49)], color="#c26a00")
    left.set(xscale="log", xlabel="density: share of tokens on which a feature fires", ylabel="features")
    left.set_title(f"{len(fired):,} of {len(table):,} features fired on {store.manifest['rows']:,} tokens")
    right.scatter(fired["density"], fired["max"], s=6, alpha=0.4, color="#1e6edc", linewidths=0)
    right.set(xscale="log", yscale="log", xlabel="density", ylabel="largest activation", title="Density and strength")
    figure.tight_layout()
    figure.savefig(folder / "densities.png", dpi=130)

    mapped = table[table["map_x"].notna()]
    if len(mapped):
        figure, axes = plt.subplots(figsize=(8, 7))
        axes.scatter(mapped["map_x"], mapped["map_y"], c=mapped["cluster"], s=5, cmap="tab20", linewidths=0)
        axes.set(xticks=[], yticks=[], title="Map of decoder directions, by cluster")
        figure.tight_layout()
        figure.savefig(folder / "map.png", dpi=130)
    comparison.plot().savefig(folder / "match.png", dpi=130)
    print(f"\nPlots: {', '.join(str(file) for file in sorted(folder.glob('*.png')))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small SAEs on little text")
    parser.add_argument("--plots", type=Path, default=Path("feature-plots"), help="folder of the plots")
    given = parser.parse_args()
    settings = {**DEMO, **QUICK, "name": "quick"} if given.quick else dict(DEMO)

    hub = SAEModelHub()
    entry = trained(hub, settings)
    other = trained(hub, {**settings, "name": f"{settings['name']}-seed-1", "seed": 1, "tags": ()})

    store = FeatureStore.open(analyze_into_library([entry.id], AnalysisRequest(), hub=hub)[0])
    extractor = SAEFeatureExtractor(entry.path, store=store)
    feature = look(store, extractor)
    steer(store, extractor, feature)

    print("\n# Another seed: how much of it is the same?\n")
    comparison = compare_entries(hub, (entry, other))
    print(comparison.summary())
    plot(store, comparison, given.plots)


if __name__ == "__main__":
    main()
