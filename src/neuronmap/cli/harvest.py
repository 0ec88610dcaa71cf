"""``neuronmap sae harvest``: the activations that a training will ask for, stored beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from neuronmap.cli.engine_options import (
    EngineOption,
    PushOption,
    RayAddressOption,
    WorkersOption,
    engine_settings,
)
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.paths import human_bytes

__all__ = ["harvest"]


@command_output
def harvest(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML recipe of the training, as for sae train.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="One setting as name=value; repeat for more.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Corpus name, file, folder (corpus).")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Language model (model_name).")] = None,
    layer: Annotated[int | None, typer.Option("--layer", "-l", help="Block, counted from 0.")] = None,
    component: Annotated[str | None, typer.Option(help="residual, mlp, attention, ... or path:out.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens of text (max_tokens).")] = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    bucket: PushOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --store: send all bytes, in the place of what is there.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the language model over the text of a training and store the activations; the training then reuses them.

    Takes the settings of `sae train`. With **--engine ray** the model runs on all hosts of a cluster, and this one writes what it
    would write alone. With **--store** a bucket serves many hosts: what it has is brought from there instead, and what is made here is
    put there. Ctrl-C saves; the same command continues.

    Examples:

        neuronmap sae harvest --config run.toml

        neuronmap sae harvest --config run.toml --engine ray --ray-address auto --store s3://team/nm
    """
    from neuronmap.activations.remote import push_store
    from neuronmap.hub.harvesting import harvest_for_training
    from neuronmap.objects import RemoteFolders
    from neuronmap.training import load_recipe

    output = Output(as_json, quiet)
    where = engine_settings(engine, ray_address, workers)
    place = RemoteFolders(bucket) if bucket is not None else None
    fields = {
        "corpus": text,
        "model_name": model,
        "layer": layer,
        "component": component,
        "max_tokens": tokens,
    }
    recipe = load_recipe(config, settings or [], **fields)
    if place is not None:
        next(place.names(), None)  # a bucket that is not there, or not ours, is known before the model runs
    found = []
    for store in harvest_for_training(recipe, where, output.progress(), place=place):
        if place is not None:
            push_store(store, place, output.progress(), again=again)
        size = store.bytes_on_disk
        output.show(f"{store.num_rows:,} rows of {store.hook['name']}: {escape(str(store.path))} ({human_bytes(size)})")
        found.append({"path": str(store.path), "key": store.digest, "rows": store.num_rows, "bytes": size})
    output.document({"schema": "neuronmap/sae.harvest/1", "stores": found, "bucket": str(place) if place else None})
