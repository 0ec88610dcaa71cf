"""Which engine, and opening it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from neuronmap.engines.work import Pool
from neuronmap.errors import ConfigError
from neuronmap.progress import Progress

__all__ = ["EngineName", "EngineSettings", "running"]

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineSettings:
    """Where work runs.

    Attributes:
        engine: ``local``: in this process. ``ray``: by workers of a Ray cluster.
        address: of the cluster's head, as ``host:port``, or ``auto`` for the one that this host belongs to; None starts a Ray of its
            own on this host, with a token of its own, and ends it afterwards.
        workers: how many; None for one on each host, or on each GPU where the work is for CUDA.
        device: where the work's models are, as the user named it; None or ``auto`` for what each worker finds.
    """

    engine: EngineName = "local"
    address: str | None = None
    workers: int | None = None
    device: str | None = None

    def checked(self) -> EngineSettings:
        """The settings, if they go together.

        Raises:
            ConfigError: they do not.
        """
        if self.engine not in get_args(EngineName):
            raise ConfigError(f"engine = {self.engine!r}: allowed are {', '.join(get_args(EngineName))}.")
        if self.engine == "local" and (self.address is not None or self.workers is not None):
            raise ConfigError("A Ray address and a number of workers go with engine = ray.", hint="--engine ray")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers = {self.workers}: at least 1 is needed.")
        if self.address is not None and self.address.startswith("ray://"):
            raise ConfigError(
                f"{self.address} is an address of Ray Client; work is driven from a host of the cluster itself.",
                hint="Run the command on such a host, with --ray-address auto.",
            )
        return self


@contextmanager
def running(settings: EngineSettings, progress: Progress) -> Iterator[Pool | None]:
    """Open an engine: a pool of workers, or None for this process.

    Args:
        settings: which one.
        progress: where notes go.

    Raises:
        ConfigError: settings that do not go together, or a cluster that takes work from anybody.
        MissingDependencyError: Ray is not installed.
        ResourceError: the cluster cannot be reached, or has no place for so many workers.
    """
    settings = settings.checked()
    if settings.engine == "local":
        yield None
        return
    from neuronmap.engines.cluster import connected
    from neuronmap.engines.pool import RayPool

    with connected(settings.address, progress) as cluster:
        pool = RayPool(cluster, cluster.places(settings.workers, settings.device), progress)
        try:
            yield pool
        finally:
            pool.close()
