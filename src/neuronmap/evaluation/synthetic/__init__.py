"""Activations with a known truth: generators, measures against the truth, baselines, and runs. Settings and records do not load torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuronmap.evaluation.synthetic.record import GroundTruth, ground_truth_schema
from neuronmap.evaluation.synthetic.settings import (
    PRESETS,
    Correlation,
    Firing,
    Hierarchy,
    Magnitudes,
    SyntheticConfig,
    synthetic_preset,
)

if TYPE_CHECKING:
    from neuronmap.evaluation.synthetic.baselines import OracleSAE as OracleSAE
    from neuronmap.evaluation.synthetic.baselines import explained_variance_ceiling as explained_variance_ceiling
    from neuronmap.evaluation.synthetic.baselines import probe_ceiling as probe_ceiling
    from neuronmap.evaluation.synthetic.baselines import random_decoder as random_decoder
    from neuronmap.evaluation.synthetic.baselines import untrained_sae as untrained_sae
    from neuronmap.evaluation.synthetic.measures import measure_against_truth as measure_against_truth
    from neuronmap.evaluation.synthetic.model import SyntheticModel as SyntheticModel
    from neuronmap.evaluation.synthetic.model import Truth as Truth
    from neuronmap.evaluation.synthetic.rows import SyntheticCorpus as SyntheticCorpus
    from neuronmap.evaluation.synthetic.rows import SyntheticRows as SyntheticRows
    from neuronmap.evaluation.synthetic.rows import open_corpus as open_corpus
    from neuronmap.evaluation.synthetic.rows import write_corpus as write_corpus
    from neuronmap.evaluation.synthetic.sweep import GroundTruthCell as GroundTruthCell
    from neuronmap.evaluation.synthetic.sweep import GroundTruthRun as GroundTruthRun
    from neuronmap.evaluation.synthetic.sweep import ground_truth_run as ground_truth_run
    from neuronmap.evaluation.synthetic.sweep import ground_truth_sweep as ground_truth_sweep
    from neuronmap.evaluation.synthetic.sweep import training_config as training_config

_HOMES = {
    "GroundTruthCell": "sweep",
    "GroundTruthRun": "sweep",
    "OracleSAE": "baselines",
    "SyntheticCorpus": "rows",
    "SyntheticModel": "model",
    "SyntheticRows": "rows",
    "Truth": "model",
    "explained_variance_ceiling": "baselines",
    "ground_truth_run": "sweep",
    "ground_truth_sweep": "sweep",
    "measure_against_truth": "measures",
    "open_corpus": "rows",
    "probe_ceiling": "baselines",
    "random_decoder": "baselines",
    "training_config": "sweep",
    "untrained_sae": "baselines",
    "write_corpus": "rows",
}

__all__ = [
    "PRESETS",
    "Correlation",
    "Firing",
    "GroundTruth",
    "GroundTruthCell",
    "GroundTruthRun",
    "Hierarchy",
    "Magnitudes",
    "OracleSAE",
    "SyntheticConfig",
    "SyntheticCorpus",
    "SyntheticModel",
    "SyntheticRows",
    "Truth",
    "explained_variance_ceiling",
    "ground_truth_run",
    "ground_truth_schema",
    "ground_truth_sweep",
    "measure_against_truth",
    "open_corpus",
    "probe_ceiling",
    "random_decoder",
    "synthetic_preset",
    "training_config",
    "untrained_sae",
    "write_corpus",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.evaluation.synthetic.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.evaluation.synthetic' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
