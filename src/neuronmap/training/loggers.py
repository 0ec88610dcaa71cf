"""Where training curves go besides the run's own files: a small protocol, TensorBoard and Weights & Biases.

The files (``history.jsonl`` while training, ``history.parquet`` in the bundle) are always written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from neuronmap.errors import ConfigError, MissingDependencyError

__all__ = ["Logger", "TensorBoardLogger", "WandbLogger", "make_loggers"]


class Logger(Protocol):
    """What a logger must do. Values are plain floats; keys are the columns of the history."""

    def start(self, config: Mapping[str, Any], folder: Path) -> None:
        """A run begins (or goes on after a resume) in ``folder``."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row of the history."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run ended well; ``summary`` holds its final held-out figures."""


class TensorBoardLogger:
    """Writes event files into ``<run>/tensorboard`` (extra ``tensorboard``)."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "The logger 'tensorboard' needs the package tensorboard.", hint="pip install 'neuronmap[tensorboard]'"
            ) from error
        self._make_writer: Any = SummaryWriter

    def start(self, config: Mapping[str, Any], folder: Path) -> None:
        self._writer = self._make_writer(str(folder / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"    {name} = {value!r}" for name, value in config.items()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        del summary
        self._writer.close()


class WandbLogger:
    """Sends curves to Weights & Biases (extra ``wandb``); WANDB_MODE and WANDB_PROJECT are honoured."""

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingDependencyError(
                "The logger 'wandb' needs the package wandb.", hint="pip install 'neuronmap[wandb]'"
            ) from error
        self._wandb: Any = wandb

    def start(self, config: Mapping[str, Any], folder: Path) -> None:
        self._run = self._wandb.init(id=folder.name, resume="allow", config=dict(config), dir=str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish()


def make_loggers(names: Sequence[str]) -> list[Logger]:
    """Loggers by name.

    Raises:
        ConfigError: for an unknown name.
        MissingDependencyError: when a logger's package is not installed.
    """
    makers: dict[str, type[TensorBoardLogger] | type[WandbLogger]] = {
        "tensorboard": TensorBoardLogger,
        "wandb": WandbLogger,
    }
    for name in names:
        if name not in makers:
            raise ConfigError(f"No logger '{name}'. There are: {', '.join(makers)}.")
    return [makers[name]() for name in names]
