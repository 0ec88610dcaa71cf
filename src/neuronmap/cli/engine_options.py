"""The options of commands whose work can run on many hosts."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from neuronmap.engines import EngineName, EngineSettings

__all__ = ["EngineOption", "PushOption", "RayAddressOption", "StoreOption", "WorkersOption", "engine_settings"]

EngineOption = Annotated[
    str, typer.Option("--engine", help="Where it runs: local, or ray (workers on the hosts of a Ray cluster).")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="With ray: host:port of the cluster, or auto for the one of this host; one of its own is started if left out.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="With ray: how many; one on each host, or each GPU, if left out.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Bucket for stored activations (s3://bucket/prefix, gs://, az://): kept there too, and read from there if missing here.",
    ),
]
PushOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Bucket (s3://bucket/prefix, gs://, az://): activations that it has are brought from there, others are put there.",
    ),
]


def engine_settings(engine: str, address: str | None, workers: int | None) -> EngineSettings:
    """What the options say.

    Raises:
        ConfigError: they do not go together.
    """
    return EngineSettings(cast("EngineName", engine), address, workers).checked()
