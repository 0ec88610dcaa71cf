"""A training as it is watched: curves, density histogram, examples of a few features as they form."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from neuronmap.paths import public_name
from neuronmap.training.watching import WatchedRun, watch_run
from neuronmap.web.tokens import ShownPiece
from neuronmap.web.views.plots import Plot, density_plot, training_curves

__all__ = ["FormingExample", "FormingFeature", "Monitor", "monitor"]


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
    curves: list[Plot]
    density: Plot | None = Field(
        description="Features by density at one look; features that fired on none of its rows apart."
    )
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
    looks = list(seen.snapshots)
    look: dict[str, Any] = next((one for one in looks if one["step"] == at), looks[-1] if looks else {})
    return Monitor(
        run=seen.name,
        status=seen.status,
        model=public_name(seen.config.get("model_name")),
        corpus=public_name(seen.config.get("corpus") or seen.source),
        step=seen.step,
        steps=seen.steps,
        tokens=int(seen.history[-1]["tokens"]) if seen.history else 0,
        curves=training_curves(seen.history),
        density=density_plot(look) if look else None,
        rows=int(look.get("rows", 0)),
        at_step=look.get("step"),
        moments=[int(one["step"]) for one in looks],
        features=_forming(seen),
    )


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
