"""SAEs against a known truth: recipes, seeds and L0 on one synthetic model, with baselines and intervals.

    python benchmarks/ground_truth.py --preset synthsae-2k --l0 0.5 1 2
    python benchmarks/ground_truth.py --preset tiny --quick
    python benchmarks/ground_truth.py --l0-sweep                  # how each architecture changes with L0, with a plot

trains with NeuronMap on rows drawn from ``neuronmap.evaluation.synthetic``, measures directions, firings, magnitudes and absorption,
and writes ``benchmarks/results/ground-truth-<preset>-<date>.json`` and ``.md``; for a sweep ``l0-sweep-<preset>-<date>`` and a ``.svg``.
L0 is given in multiples of the true L0; relu and gated, which are told a penalty and no L0, are brought to it by a search with the first
seed, whose penalty the other seeds then have. Every run is kept in a work folder, so the command can be stopped at any time and repeated.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuronmap
from ground_truth_plot import save_sweep
from ground_truth_report import markdown
from neuronmap.evaluation.synthetic import (
    PRESETS,
    GroundTruthCell,
    OracleSAE,
    SyntheticConfig,
    SyntheticModel,
    SyntheticRows,
    explained_variance_ceiling,
    ground_truth_run,
    measure_against_truth,
    probe_ceiling,
    random_decoder,
    synthetic_preset,
    training_config,
    untrained_sae,
)
from neuronmap.evaluation.synthetic.model import overlaps
from neuronmap.evaluation.synthetic.sweep import keep_model
from neuronmap.hashing import digest_json, digest_parts, short
from neuronmap.paths import cache_folder, read_json, write_json
from neuronmap.progress import LineProgress
from neuronmap.saes.registry import get_options, list_architectures
from quality_measure import next_knob

FALLING_K = {"k_anneal_fraction": 1.0, "k_anneal_factor": 2.4}
"""k falls over the whole run to its value from 2.4 times that, as in Chanin (2026): there from 60 to 25."""
FINE_LEVELS = (1 / 64, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Nested levels that double from a 64th of the latents on. A parent and its children then seldom begin in the same level, where one latent
for each child, with the parent in all of them, would do as well."""


def _recipe(architecture: str, *, falling_k: bool = False, **options: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"architecture": architecture, "architecture_options": options}
    return {**fields, **FALLING_K} if falling_k else fields


RECIPES: dict[str, dict[str, Any]] = {
    **{name: _recipe(name) for name in ("relu", "gated", "topk", "batchtopk", "jumprelu", "matryoshka", "lista")},
    "jumprelu, falling target": {
        **_recipe("jumprelu", target_anneal_factor=8.0),
        "sparsity_warmup_fraction": 0.5,
    },
    "topk, falling k": _recipe("topk", falling_k=True),
    "batchtopk, falling k": _recipe("batchtopk", falling_k=True),
    "matryoshka, falling k": _recipe("matryoshka", falling_k=True),
    "matryoshka, detached": _recipe("matryoshka", detach_levels=True),
    "matryoshka, sorted": _recipe("matryoshka", sort_features=True),
    "matryoshka, detached, falling k": _recipe("matryoshka", falling_k=True, detach_levels=True),
    "lista, falling k": _recipe("lista", falling_k=True),
    "lista, fine levels, falling k": {
        **_recipe("lista", falling_k=True),
        "group_fractions": FINE_LEVELS,
        "k_anneal_fraction": 0.85,  # AuxK has the rest of the run for latents that fall silent with k
        "dead_after_tokens": 20_000,
    },
    "lista, not sorted, falling k": _recipe("lista", falling_k=True, sort_features=False),
    "lista, not detached, falling k": _recipe("lista", falling_k=True, detach_levels=False),
}
"""What can be trained: an architecture, perhaps with settings other than its defaults."""

HERE = Path(__file__).resolve().parent
COUNTED_ROWS = 16_384
FIRST_PENALTY, MOST_PENALTIES, CLOSE = 0.5, 8, 0.05
"""Where the search for the penalty that gives an L0 begins, how many it may try for one L0, and how near the L0 must come."""
SWEEP: dict[str, Any] = {
    "recipes": ["topk", "batchtopk", "jumprelu", "matryoshka", "lista", "relu", "gated"],
    "l0": [0.35, 0.7, 1.0, 1.4, 2.0],
    "seeds": 2,
    "rows": 500_000,
    "measure_rows": 16_384,
    "bootstrap": 200,
    "probes": 64,
}
"""What ``--l0-sweep`` has in place of the usual defaults; a quarter as many latents as truths."""


def say(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def code_digest() -> str:
    """Of the code that draws, trains and measures: a finished run is not reused after a change."""
    source = Path(neuronmap.__file__).parent
    rooms = (source / "saes", source / "training", source / "activations", source / "evaluation" / "synthetic")
    files = sorted(file for room in rooms for pattern in ("*.py", "*.h", "*.c") for file in room.rglob(pattern))
    return digest_parts(file.read_bytes() for file in files)


def model_facts(model: SyntheticModel) -> dict[str, Any]:
    """What decides how hard the model is."""
    truth = model.sample(0, COUNTED_ROWS, "count")[1]
    l0 = truth.feature_E.numel() / truth.num_rows
    return {
        "l0": l0,
        "interference": (l0 / model.config.d_in) ** 0.5,
        "mean_max_overlap": float(overlaps(model.dictionary_GD).mean()),
        "digest": model.digest,
    }


def next_penalty(tried: dict[float, float], wanted: float) -> float | None:
    """The next penalty to try for an L0, by the L0 of those tried; None when one is near, or there is nothing between the nearest two."""
    if tried and min(_off(l0, wanted) for l0 in tried.values()) <= math.log1p(CLOSE):
        return None
    penalty = next_knob(list(tried.items()), wanted, rising=False, start=FIRST_PENALTY)
    if penalty is None:  # two lie around it: between them
        l0s, penalties = np.log(sorted((max(l0, 1e-2), penalty) for penalty, l0 in tried.items())).T
        penalty = float(np.exp(np.interp(math.log(wanted), l0s, penalties)))
    penalty = float(f"{penalty:.3g}")
    return None if penalty in tried else penalty


def _off(l0: float, wanted: float) -> float:
    return abs(math.log(max(l0, 1e-2) / wanted))


def _penalised(fields: dict[str, Any], penalty: float) -> tuple[str, dict[str, Any]]:
    return f"penalty {penalty:g}", {**fields, "sparsity_penalty": penalty}


class Benchmark:
    """Cells and baselines of one synthetic model."""

    def __init__(self, given: argparse.Namespace, model: SyntheticModel, true_l0: float) -> None:
        self.given, self.model, self.true_l0 = given, model, true_l0
        self.progress = LineProgress(interval_s=30)
        self.marks = {"code": code_digest()}
        self._found: dict[str, list[float]] = {}
        self.width = given.features or model.config.features // (4 if given.l0_sweep else 1)

    def runs(self) -> list[dict[str, Any]]:
        return [
            self._run(recipe, setting, fields, seed)
            for recipe in self.given.recipes
            for setting, fields in self._settings(recipe)
            for seed in range(self.given.seeds)
        ]

    def _run(self, recipe: str, setting: str, fields: dict[str, Any], seed: int) -> dict[str, Any]:
        training = training_config(
            synthetic=self.model.config,
            hidden_dim=self.width,
            seed=seed,
            batch_rows=self.given.batch,
            device=self.model.device.type,
            **fields,
        )
        cell = GroundTruthCell(
            synthetic=self.model.config,
            training=training,
            train_rows=self.given.rows,
            measure_rows=self.given.measure_rows,
            bootstrap=self.given.bootstrap,
        )
        say(f"{recipe}: {setting}, seed {seed}")
        run = ground_truth_run(cell, self.given.work, model=self.model, marks=self.marks, progress=self.progress)
        summary = run.truth.summary()
        say(f"  cosine {summary['cosine']:.3f}, F1 {summary['f1']:.3f} at L0 {summary['l0']:.1f}, {run.seconds:.0f} s")
        return {
            "recipe": recipe,
            "setting": setting,
            "seed": seed,
            "seconds": run.seconds,
            "training": training.to_dict(),
            "truth": run.truth.to_dict(),
        }

    def _settings(self, recipe: str) -> list[tuple[str, dict[str, Any]]]:
        """Each sparsity asked for, in words, with the recipe's fields and the one that sets it."""
        fields = RECIPES[recipe]
        options = get_options(fields["architecture"]).model_fields
        wanted = [share * self.true_l0 for share in self.given.l0]
        if "k" in options:
            ks = dict.fromkeys(max(1, round(l0)) for l0 in wanted)
            return [(f"k = {k}", {**fields, "k": k}) for k in ks]
        if "target_l0" in options:
            return [(f"target {l0:.1f}", {**fields, "target_l0": l0}) for l0 in wanted]
        penalties = self.given.penalties or self._found.get(recipe) or self._penalties(recipe, wanted)
        return [_penalised(fields, penalty) for penalty in penalties]

    def _penalties(self, recipe: str, wanted: list[float]) -> list[float]:
        """The penalty that comes nearest to each L0 with the first seed."""
        tried: dict[float, float] = {}
        found = []
        for l0 in wanted:
            for _ in range(MOST_PENALTIES):
                penalty = next_penalty(tried, l0)
                if penalty is None:
                    break
                run = self._run(recipe, *_penalised(RECIPES[recipe], penalty), seed=0)
                tried[penalty] = run["truth"]["l0"]["value"]
            found.append(min(tried, key=lambda penalty: _off(tried[penalty], l0)))
        self._found[recipe] = list(dict.fromkeys(found))
        return self._found[recipe]

    def baselines(self) -> dict[str, Any]:
        """Kept like runs: the oracle, random directions, untrained SAEs, the probes and the noise."""
        given, model = self.given, self.model
        k = max(1, round(self.true_l0))
        told = {
            "model": model.digest,
            "width": self.width,
            "k": k,
            "l0": given.l0,
            "rows": given.measure_rows,
            "bootstrap": given.bootstrap,
            "probes": given.probes,
            "probe_rows": given.probe_rows,
            "batch": given.batch,
            "recipes": given.recipes,
            **self.marks,
        }
        kept = given.work / "cells" / f"baselines-{model.config.name}-{short(digest_json(told))}.json"
        if kept.is_file():
            found: dict[str, Any] = read_json(kept)
            return found
        say("baselines")
        saes: dict[str, Any] = {
            "oracle": OracleSAE.fit(model),
            f"random decoder, k = {k}": random_decoder(model, self.width, k),
        }
        rows = SyntheticRows(model, given.rows, "train 0")
        for recipe in given.recipes:
            if recipe in list_architectures():  # settings of the training alone change nothing before it
                setting, fields = self._settings(recipe)[-1]
                config = training_config(synthetic=model.config, hidden_dim=self.width, **fields)
                saes[f"untrained {recipe}, {setting}"] = untrained_sae(config, rows)
        measured = {
            name: measure_against_truth(
                sae, model, rows=given.measure_rows, bootstrap=given.bootstrap, progress=self.progress
            ).to_dict()
            for name, sae in saes.items()
        }
        say("probes")
        probes = {
            name: probe_ceiling(
                model, truths=given.probes, among=among, rows=given.probe_rows, bootstrap=given.bootstrap
            ).to_dict()
            for name, among in (("probes_f1", None), ("probes_frequent_f1", self.width))
        }
        found = {
            "measured": measured,
            **probes,
            "explained_variance_ceiling": explained_variance_ceiling(model),
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, found)
        return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="synthsae-2k", help="synthetic model [synthsae-2k]")
    parser.add_argument("--quick", action="store_true", help="a minute: few rows, 1 seed; proves nothing")
    parser.add_argument(
        "--l0-sweep",
        action="store_true",
        help="every architecture with an L0 to choose, over five of them, fewer rows, and a plot: defaults are "
        + "; ".join(f"{name} {value}" for name, value in SWEEP.items())
        + "; latents a quarter of the truths",
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        choices=list(RECIPES),
        metavar="RECIPE",
        default=["topk", "batchtopk", "matryoshka", "jumprelu"],
        help=f"what is trained: {'; '.join(RECIPES)} [topk batchtopk matryoshka jumprelu]",
    )
    parser.add_argument("--l0", nargs="+", type=float, default=[0.5, 1.0, 2.0], help="L0 over the true one [0.5 1 2]")
    parser.add_argument(
        "--penalties",
        nargs="+",
        type=float,
        default=None,
        help="sparsity penalties for relu and gated [those that give the L0, by a search]",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds [3]")
    parser.add_argument("--features", type=int, default=None, help="latents [as many as truths]")
    parser.add_argument("--rows", type=int, default=4_000_000, help="different rows to train on [4000000]")
    parser.add_argument("--measure-rows", type=int, default=65_536, help="rows to measure on [65536]")
    parser.add_argument("--batch", type=int, default=1024, help="rows a step, a multiple of 128 [1024]")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the intervals [1000]")
    parser.add_argument("--probes", type=int, default=100, help="truths with a supervised probe [100]")
    parser.add_argument("--probe-rows", type=int, default=32_768, help="rows to fit each probe on [32768]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads [all]")
    parser.add_argument("--device", default="cpu", help="where rows are drawn and SAEs trained [cpu]")
    parser.add_argument("--work", type=Path, default=None, help="folder for finished runs [<home>/cache/benchmarks]")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder for the tables [benchmarks/results]"
    )
    if parser.parse_known_args()[0].l0_sweep:
        parser.set_defaults(**SWEEP)
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.rows, given.measure_rows, given.batch = 1, 100_000, 8192, 256
        given.l0 = given.l0 if given.l0_sweep else [1.0]
        given.probes, given.probe_rows, given.bootstrap = 32, 4096, 200
    for name in ("seeds", "rows", "measure_rows", "probes", "probe_rows", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}")
    given.work = given.work or cache_folder("benchmarks") / "ground-truth"
    return given


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    config: SyntheticConfig = synthetic_preset(given.preset)
    say(f"making {config.name}; work in {given.work}")
    model = keep_model(config, given.work, given.device)
    facts = model_facts(model)
    benchmark = Benchmark(given, model, facts["l0"])
    record = {
        "benchmark": "l0-sweep" if given.l0_sweep else "ground-truth",
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "synthetic": config.to_dict(),
        "facts": facts,
        "latents": benchmark.width,
        "rows": given.rows,
        "measure_rows": given.measure_rows,
        "batch": given.batch,
        "threads": given.threads,
        "device": given.device,
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("neuronmap", "torch")},
        "baselines": benchmark.baselines(),
        "runs": benchmark.runs(),
    }
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{record['benchmark']}-{config.name}{'-quick' if given.quick else ''}-{record['date']}"
    write_json(path.with_suffix(".json"), record)
    text = markdown(record)
    if given.l0_sweep:
        save_sweep(record, path.with_suffix(".svg"))
        text += (
            f"\n![Figures against L0]({path.name}.svg)\n\nLines are means over seeds, bands their lowest and highest.\n"
        )
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    say(f"written: {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
