"""A training as it is watched: curves, density histogram, examples of a few features as they form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite, public_name
from neuronmap.training.watching import WatchedRun, watch_run
from neuronmap.web.charts import Series
from neuronmap.web.tokens import ShownPiece

__all__ = ["CURVES", "Curve", "FormingExample", "FormingFeature", "Monitor", "monitor", "overlaid", "thinned"]

CURVES: dict[str, tuple[str, str]] = {
    "loss": (
        "Loss",
        "What training minimises, on the batch: error over the energy of the input, plus the architecture's other terms.",
    ),
    "explained_variance": (
        "Explained variance",
        "1 - squared error over variance. Solid: on the batch; dashed: on held-out rows, by the rule that inference uses.",
    ),
    "l0": ("L0", "Active features of a row, on average."),
    "dead": ("Dead features", "Features that have not fired within the dead window of the plan."),
    "learning_rate": ("Learning rate", "Of Adam at that step: warm-up, plateau, decay."),
    "tokens_per_second": ("Tokens per second", "Tokens since the start over seconds of training since the start."),
}
"""Columns of the history that are drawn, with their title and what they are."""
_HELDOUT = "heldout_explained_variance"
_POINTS = 300


class Curve(BaseModel):
    """One figure over the run."""

    name: str
    title: str
    about: str
    last: float | None
    steps: list[float]
    values: list[float | None]
    heldout_steps: list[float] = Field(default_factory=list)
    heldout_values: list[float | None] = Field(default_factory=list)

    def series(self) -> list[Series]:
        """As it is drawn."""
        found = [Series("batch" if self.heldout_steps else self.title, self.steps, self.values)]
        if self.heldout_steps:
            found.append(Series("held out", self.heldout_steps, self.heldout_values))
        return found


class FormingExample(BaseModel):
    """Where a forming feature fires most."""

    activation: float
    document: str
    pieces: list[ShownPiece]
    peak: int


class FormingFeature(BaseModel):
    """A feature that is followed while it forms."""

    feature: int
    density: float
    max: float
    examples: list[FormingExample]


class Monitor(BaseModel):
    """A run at the moment of looking."""

    run: str
    status: str = Field(description="preparing, training, interrupted, diverged or finished.")
    model: str
    corpus: str
    step: int
    steps: int | None
    tokens: int
    curves: list[Curve]
    density_edges: list[float] = Field(description="log10 of density; one more than counts.")
    density_counts: list[int]
    never: int = Field(description="Features that fired on none of the measured rows.")
    rows: int = Field(description="Held-out rows that the histogram is of.")
    at_step: int | None = Field(description="Step of that look.")
    moments: list[int] = Field(description="Steps of all looks.")
    features: list[FormingFeature]


def monitor(run: str, at: int | None = None) -> Monitor:
    """What can be seen of a run.

    Args:
        run: its name.
        at: step whose density histogram is shown; the last look when left out.
    """
    seen = watch_run(run)
    history = [dict(row) for row in seen.history]
    looks = list(seen.snapshots)
    look: dict[str, Any] = next((one for one in looks if one["step"] == at), looks[-1] if looks else {})
    return Monitor(
        run=seen.name,
        status=seen.status,
        model=public_name(seen.config.get("model_name")),
        corpus=public_name(seen.config.get("corpus") or seen.source),
        step=seen.step,
        steps=seen.steps,
        tokens=int(history[-1]["tokens"]) if history else 0,
        curves=[_curve(name, history) for name in CURVES],
        density_edges=[float(edge) for edge in look.get("edges", [])],
        density_counts=[int(count) for count in look.get("counts", [])],
        never=int(look.get("never", 0)),
        rows=int(look.get("rows", 0)),
        at_step=look.get("step"),
        moments=[int(one["step"]) for one in looks],
        features=_forming(seen),
    )


def _curve(name: str, history: Sequence[dict[str, Any]]) -> Curve:
    title, about = CURVES[name]
    rows = [row for row in history if name in row]
    held = [row for row in history if name == "explained_variance" and _HELDOUT in row]
    steps, values = thinned([row["step"] for row in rows], [row[name] for row in rows])
    return Curve(
        name=name,
        title=title,
        about=about,
        last=values[-1] if values else None,
        steps=steps,
        values=values,
        heldout_steps=[float(row["step"]) for row in held],
        heldout_values=[finite(float(row[_HELDOUT])) for row in held],
    )


def thinned(x: Sequence[float], y: Sequence[float], most: int = _POINTS) -> tuple[list[float], list[float | None]]:
    """At most about that many points, evenly spread; the last one is always there."""
    step = max(1, math.ceil(len(x) / most))
    places = [*range(0, len(x), step)]
    if len(x) and places[-1] != len(x) - 1:
        places.append(len(x) - 1)
    return [float(x[at]) for at in places], [finite(float(y[at])) for at in places]


def overlaid(runs: Sequence[Monitor], name: str) -> list[Series]:
    """The same figure of several runs."""
    found = []
    for one in runs:
        curve = next(curve for curve in one.curves if curve.name == name)
        found.append(Series(one.run, curve.steps, curve.values))
    return found


def _forming(seen: WatchedRun) -> list[FormingFeature]:
    found = []
    for feature in (seen.snapshot or {}).get("features", []):
        examples = [_example(example) for example in feature["examples"] if example["pieces"]]
        found.append(
            FormingFeature(
                feature=feature["feature"], density=feature["density"], max=feature["max"] or 0.0, examples=examples
            )
        )
    return found


def _example(example: dict[str, Any]) -> FormingExample:
    from neuronmap.features.storage.text import Piece

    pieces, peak = [], 0
    for at, one in enumerate(example["pieces"]):
        values = [value or 0.0 for value in example["activations"][one["start"] : one["stop"]]]
        shown = Piece(one["text"], one["start"], one["stop"], one["special"]).shown
        pieces.append(ShownPiece(text=one["text"], shown=shown, value=max(values, default=0.0), special=one["special"]))
        if one["start"] <= example["peak"] < one["stop"]:
            peak = at
    return FormingExample(
        activation=example["activation"] or 0.0, document=public_name(example["document"]), pieces=pieces, peak=peak
    )
