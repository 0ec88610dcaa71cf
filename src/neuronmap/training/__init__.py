"""Training: configuration, data preparation, the loop, checkpoints and history.

Loads torch only when a name that needs it is first used: ``SAEConfig`` alone feeds ``--help`` and the docs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.training.config import SAEConfig as SAEConfig
    from neuronmap.training.loggers import Logger as Logger
    from neuronmap.training.recipe import load_recipe as load_recipe
    from neuronmap.training.result import TrainingResult as TrainingResult
    from neuronmap.training.run import TrainingRun as TrainingRun
    from neuronmap.training.sweeping.config import SweepConfig as SweepConfig
    from neuronmap.training.sweeping.config import load_sweep as load_sweep
    from neuronmap.training.sweeping.record import SweepRun as SweepRun
    from neuronmap.training.sweeping.sweep import SAESweep as SAESweep
    from neuronmap.training.sweeping.sweep import SweepResult as SweepResult
    from neuronmap.training.trainer import SAETrainer as SAETrainer

_HOMES = {
    "Logger": "neuronmap.training.loggers",
    "SAEConfig": "neuronmap.training.config",
    "SAESweep": "neuronmap.training.sweeping.sweep",
    "SAETrainer": "neuronmap.training.trainer",
    "SweepConfig": "neuronmap.training.sweeping.config",
    "SweepResult": "neuronmap.training.sweeping.sweep",
    "SweepRun": "neuronmap.training.sweeping.record",
    "TrainingResult": "neuronmap.training.result",
    "TrainingRun": "neuronmap.training.run",
    "load_recipe": "neuronmap.training.recipe",
    "load_sweep": "neuronmap.training.sweeping.config",
}

__all__ = [
    "Logger",
    "SAEConfig",
    "SAESweep",
    "SAETrainer",
    "SweepConfig",
    "SweepResult",
    "SweepRun",
    "TrainingResult",
    "TrainingRun",
    "load_recipe",
    "load_sweep",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'neuronmap.training' has no attribute '{name}'")
