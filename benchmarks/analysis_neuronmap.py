"""Analysis worker of NeuronMap itself; started by ``benchmarks/analysis.py`` in NeuronMap's environment.

A step is a whole token pass: ``run_pass`` into an empty folder over stored rows, as ``neuronmap sae analyze`` runs it, its saved
states included. ``describe`` is the rest of an analysis: facts of the weights, and the feature store.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from torch import Tensor

import neuronmap
from analysis_cells import MILLION
from analysis_inputs import LAYER, MODEL, from_rows, open_rows, open_store
from analysis_worker import AnalysisWorker
from neuronmap.features.collect import analyze
from neuronmap.features.collect.state import FeatureState
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.directions.weights import weight_facts
from neuronmap.features.storage.text import Vocabulary
from neuronmap.features.summary.finish import finish
from neuronmap.hashing import digest_json
from neuronmap.models import LanguageModel, load_model, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes import load_sae
from speed_worker import serve

NAME = "sae"
SHARED = ("tokens.npy", "kept.npy", "vocabulary.parquet", "documents.parquet")
"""Files of a feature store that grow with the text, not with the features."""


class OurAnalysis:
    """One cell."""

    def __init__(self, cell: dict[str, Any], rows_ND: Tensor) -> None:
        del rows_ND
        inputs = Path(cell["inputs"])
        self.cell = cell
        self.rows = open_rows(inputs, cell["contexts"])
        if cell["features"] >= MILLION:  # too large to keep
            self.sae = from_rows(open_store(inputs), cell["architecture"], cell["features"])
        else:
            self.sae = load_sae(inputs / "saes" / cell["sae"])
        self.config = AnalysisConfig(
            block_tokens=min(AnalysisConfig().block_tokens, cell["contexts"] * cell["context"])
        )
        self.folder = Path(os.environ["ANALYSIS_SCRATCH"]) / f"ours-{os.getpid()}"
        self.states: dict[str, Any] = {}

    def prepare(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.states = {}
        self.rows.seconds, self.rows.count = 0.0, 0

    def step(self) -> None:
        (hook,) = self.rows.hooks
        self.states = analyze.run_pass(
            {NAME: self.sae},
            self.rows,
            hook_of={NAME: hook},
            config=self.config,
            folder=self.folder / "work",
            identities={NAME: digest_json(self.cell)},
            progress=SilentProgress(),
        )

    def describe(self) -> dict[str, Any]:
        """The rest of the analysis: seconds of each part, and what the store takes."""
        state = self.states[NAME]
        seconds: dict[str, float] = {}
        model = language_model()
        weights = None
        if self.cell["features"] < MILLION:  # a million features' neighbours are 10**12 cosines
            hook = resolve_hook(model, LAYER, "residual")
            with _timed(seconds, "weights"):
                weights = weight_facts(
                    self.sae, neighbours=self.config.neighbours, model=model, hook=hook, progress=SilentProgress()
                )
        vocabulary = Vocabulary.from_tokenizer(model.tokenizer, self.rows.vocabulary)
        with _timed(seconds, "finish"):
            folder = finish(
                state,
                self.rows.tokens,
                vocabulary,
                self.folder / "store",
                weights=weights,
                facts={"sae": {"name": self.cell["sae"]}, "model": {"name": MODEL}, "corpus": {}},
                progress=SilentProgress(),
            )
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        firings_F = state.features["firings"]
        arrays = sum(array.nbytes for array in state.features.values())
        shutil.rmtree(self.folder)
        return {
            "rows": int(state.rows),
            "l0": float(firings_F.sum()) / max(1, int(state.rows)),
            "fired": int((firings_F > 0).sum()),
            "seconds": seconds,
            "read_s": self.rows.seconds,
            "files": sizes,
            "bytes_a_feature": sum(size for name, size in sizes.items() if name not in SHARED) / self.cell["features"],
            "bytes_in_all": sum(sizes.values()),
            "state_bytes_a_feature": arrays / self.cell["features"],
        }

    def maxima(self, features: list[int]) -> dict[str, Any]:
        state = self.states[NAME]
        return {"features": features, "maxima": state.features["max"][features].tolist()}

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


_MODELS: list[LanguageModel] = []


def language_model() -> LanguageModel:
    """Loaded once a process: its loading is in no figure."""
    if not _MODELS:
        _MODELS.append(load_model(MODEL, dtype="float32", device="cpu", progress=SilentProgress()))
    return _MODELS[0]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


PARTS = (
    ("encode", analyze, "encode_block"),
    ("sample's codes", analyze, "coded_part"),
    ("count", FeatureState, "update"),
    ("save", FeatureState, "save"),
)


def parts_of_pass(trainer: OurAnalysis, product: Callable[[], float], steps: int) -> dict[str, dict[str, float]]:
    """Seconds of each part of a pass, mean over ``steps``, by stopwatches around its functions."""
    spent = dict.fromkeys(("G", "step", "read", *(part for part, _, _ in PARTS)), 0.0)

    def watched(part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def run(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*given, **named)
            finally:
                spent[part] += time.perf_counter() - started

        return run

    originals = [getattr(holder, name) for _, holder, name in PARTS]
    for (part, holder, name), original in zip(PARTS, originals, strict=True):
        setattr(holder, name, watched(part, original))
    try:
        for _ in range(steps):
            trainer.prepare()
            spent["G"] += product()
            started = time.perf_counter()
            trainer.step()
            spent["step"] += time.perf_counter() - started
            spent["read"] += trainer.rows.seconds
    finally:
        for (_, holder, name), original in zip(PARTS, originals, strict=True):
            setattr(holder, name, original)
    spent["rest"] = spent["step"] - spent["read"] - sum(spent[part] for part, _, _ in PARTS)
    return {"stopwatch": {name: seconds / steps for name, seconds in spent.items()}}


def main() -> None:
    serve(AnalysisWorker(OurAnalysis, {"neuronmap": neuronmap.__version__}, parts_of_pass))


if __name__ == "__main__":
    main()
