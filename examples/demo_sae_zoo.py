"""An SAE and its analysis become artefacts that others find, check, pull and build on; in a zoo that is a folder.

    python examples/demo_sae_zoo.py                     # an SAE on SmolLM2-135M and State of the Union speeches (two to three minutes)
    python examples/demo_sae_zoo.py --quick             # a small model with random weights, and CPython's own documentation

Everything is kept under ./zoo-demo (``--folder``): the library, the zoo, what was pulled. ``--zoo`` names another zoo, such as a
server's address; NEURONMAP_ZOO_TOKEN then holds your token, and ``--namespace`` is yours.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from neuronmap import SAEConfig, SAEModelHub
from neuronmap.errors import AlreadyExistsError, InvalidManifestError, NotInZooError
from neuronmap.hub import LibraryEntry, list_analyses
from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library
from neuronmap.hub.pipeline import train_into_library
from neuronmap.zoo import Zoo
from neuronmap.zoo.client.drawing import lineage_text
from neuronmap.zoo.packing import pack_analysis, pack_sae

SAMPLE: dict[str, Any] = {
    "model_name": "smollm2-135m",
    "corpus": "sotu",
    "layer": 8,
    "max_tokens": 16_000,
    "heldout_tokens": 2_048,
    "hidden_dim": 512,
    "k": 16,
    "num_epochs": 4,
}
QUICK: dict[str, Any] = {
    "layer": 1,
    "max_tokens": 12_000,
    "context_length": 32,
    "hidden_dim": 128,
    "k": 8,
    "num_epochs": 3,
}


def small_model(folder: Path) -> dict[str, str]:
    """A GPT-2 of two blocks with random weights, and texts of ``pydoc``, as a user has a model's folder and texts."""
    from pydoc_data.topics import topics

    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    texts, model = folder / "texts", folder / "tiny-gpt2"
    if not model.exists():
        texts.mkdir(parents=True, exist_ok=True)
        for name, text in sorted(topics.items())[:40]:
            (texts / f"{name}.txt").write_text(text)
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(list(topics.values())[:40], trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", model_max_length=64)
        torch.manual_seed(0)
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=48,
                n_layer=2,
                n_head=4,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=0,
            )
        ).save_pretrained(model)
        tokenizer.save_pretrained(model)
    return {"model_name": str(model), "corpus": str(texts)}


def trained(hub: SAEModelHub, name: str, settings: dict[str, Any]) -> LibraryEntry:
    """An SAE of these settings, from the library or trained and evaluated now, and analysed."""
    known = next((entry for entry in hub.list() if entry.id == name), None)
    entry = known or train_into_library(SAEConfig(**settings, name=name), hub=hub).entry
    analyze_into_library([entry.id], AnalysisRequest(feature_map=False), hub=hub)
    return hub.get(name)


def publish(zoo: Zoo, entry: LibraryEntry, namespace: str) -> tuple[str, str]:
    """Validate and publish the SAE and its analysis; the analysis finds the SAE by its weights."""
    print("\n# What is wrong is said before anything is sent\n")
    package = pack_sae(entry.path)
    try:
        zoo.prepare(package, f"{namespace}/demo@1.0", licence="free for all", tags=["UPPER CASE"])
    except InvalidManifestError as error:
        print(f"  {error}")

    print("\n# Publish the SAE, then its analysis\n")
    values = {"licence": "Apache-2.0", "authors": ["Ada Lovelace <0000-0002-1825-0097>"], "tags": ["demo"]}
    sae = zoo.publish(package, f"{namespace}/demo@1.0", **values)
    analysis = list_analyses(entry)[0].path
    features = zoo.publish(pack_analysis(analysis), f"{namespace}/demo-features@1.0", **values)
    for view in (sae, features):
        print(
            f"  {view.reference:<28} {view.kind:<16} {len(view.files):>2} files, {view.size:>10,} bytes, {view.digest[:19]}..."
        )
    print(f"  {features.reference} depends on {features.depends_on[0].reference}.")
    again = zoo.publish(package, f"{namespace}/demo@1.0", **values)
    print(f"  Published again: the same version ({again.digest == sae.digest}).")
    try:
        zoo.publish(package, f"{namespace}/demo@1.0", **{**values, "title": "Something else"})
    except AlreadyExistsError as error:
        print(f"  With another title: {error.message}")
    return sae.reference, features.reference


def find(zoo: Zoo, entry: LibraryEntry, namespace: str) -> None:
    """Search by tag, model and figure; ask which SAEs fit a model."""
    print("\n# Found by others\n")
    model = Path(entry.model or "").name
    for hit in zoo.search(tag=("demo",), model=model, namespace=namespace):
        print(f"  {hit.reference:<28} {hit.title}")
    good = [
        hit.reference for hit in zoo.search(kind="SAE_MODEL", metric=("explained_variance>=0.1",), namespace=namespace)
    ]
    print(f"  explained_variance>=0.1: {', '.join(good) or 'none'}")
    for fit in zoo.compatible(model=model, layer=entry.layer).hits[:3]:
        print(f"  fits {model}, layer {entry.layer}: {fit.reference} ({fit.fit}). {' '.join(fit.reasons)}")


def use(zoo: Zoo, references: tuple[str, str], folder: Path) -> None:
    """Pull by lock file, verify, load, and see the same features."""
    print("\n# Pulled by a lock file, verified, loaded\n")
    lock = folder / "neuronmap-zoo.lock"
    zoo.lock(references, lock)
    print(f"  {lock} pins {len(references)} artefacts by digest.")
    sae, features = zoo.pull_locked(lock, folder / "pulled", overwrite=True)
    for pulled in (sae, features):
        print(
            f"  {pulled.folder}: {len(pulled.manifest.files)} files, as {zoo.verify_folder(pulled.folder).name} was published"
        )
    from neuronmap import SparseAutoencoder
    from neuronmap.features import FeatureStore

    loaded = SparseAutoencoder.load(sae.folder)
    columns = ["feature", "density", "top_token_text", "top_token_share"]
    best = FeatureStore.open(features.folder, verify=True).queries.select(
        ["status=alive"], sort="-top_token_share", limit=5, columns=columns
    )
    print(f"  {type(loaded).__name__} with {loaded.d_sae:,} features; those that one token explains best:\n")
    print("    " + best.to_pandas().to_string(index=False).replace("\n", "\n    "))


def change(zoo: Zoo, entry: LibraryEntry, namespace: str, folder: Path) -> None:
    """A newer version, a deprecation, a yank."""
    print("\n# A newer version; the old one is deprecated, then yanked\n")
    old, new = f"{namespace}/demo@1.0", f"{namespace}/demo@1.1"
    zoo.publish(pack_sae(entry.path), new, licence="Apache-2.0", tags=["demo"], title="Trained with another seed")
    zoo.deprecate(old, "another seed is better", new)
    print(f"  latest is {zoo.show(f'{namespace}/demo').reference}.")
    print(f"  {zoo.pull(old, folder / 'deprecated', overwrite=True).warnings[0]}")
    zoo.yank(old, "its threshold is wrong")
    found = [hit.reference for hit in zoo.search(kind="SAE_MODEL", namespace=namespace, all_versions=True)]
    print(f"  Found now: {', '.join(found)}.")
    print(f"  {zoo.pull(old, folder / 'yanked', overwrite=True).warnings[0]}")
    zoo.restore(old)
    try:
        zoo.show(f"{namespace}/demo@production")
    except NotInZooError as error:
        print(f"  {error.message}")
    zoo.set_alias(new, "production", reason="the demo ends here")
    print("\n# What was made from what\n")
    print("  " + lineage_text(zoo.lineage(old)).replace("\n", "\n  "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model with random weights")
    parser.add_argument("--folder", type=Path, default=Path("zoo-demo"), help="where everything is kept")
    parser.add_argument("--zoo", help="folder or address of a zoo; <folder>/zoo if left out")
    parser.add_argument("--namespace", default="ada", help="whose artefacts they are")
    given = parser.parse_args()
    started, folder = time.monotonic(), given.folder.absolute()
    os.environ["NEURONMAP_HOME"] = str(folder / "home")
    settings = {**QUICK, **small_model(folder)} if given.quick else SAMPLE

    hub = SAEModelHub()
    entry = trained(hub, "demo", settings)
    other = trained(hub, "demo-seed-1", {**settings, "seed": 1})
    with Zoo(given.zoo or folder / "zoo") as zoo:
        print(f"\nThe zoo is {zoo.location}.")
        references = publish(zoo, entry, given.namespace)
        find(zoo, entry, given.namespace)
        use(zoo, references, folder)
        change(zoo, other, given.namespace, folder)
    print(
        f"\n{time.monotonic() - started:.0f} seconds. Look around: neuronmap zoo search --zoo {given.zoo or folder / 'zoo'}"
    )


if __name__ == "__main__":
    main()
