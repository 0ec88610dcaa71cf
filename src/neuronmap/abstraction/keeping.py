"""What was measured, kept in the cache: the next run with the same model, items and settings reads it instead.

    <home>/cache/concepts/<key>.safetensors   probes of one concept in one model, with its record in the header

The key is over everything that decides the content, so a stale entry cannot be read. Each concept is kept as soon as it is
finished: a stopped run loses at most the one it was at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from neuronmap.abstraction.probes.probe_set import ProbeSet
from neuronmap.abstraction.record import RULES_VERSION, ConceptResult
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.errors import ConfigError
from neuronmap.hashing import digest_json, short
from neuronmap.models import LanguageModel
from neuronmap.paths import cache_folder, new_folder, write_bytes

__all__ = ["KeptConcept", "concept_key", "keep", "read_kept"]

_NOT_DECISIVE = ("similarity", "similarity_rows", "lens")


@dataclass(frozen=True, eq=False)
class KeptConcept:
    """A concept's record and probes, and its half depth in each resample (for the order of concepts)."""

    result: ConceptResult
    probes: ProbeSet
    depths_R: npt.NDArray[np.float64]


def concept_key(
    model: LanguageModel, layers: Sequence[int], concept: dict[str, object], dataset_digest: str, config: TrackerConfig
) -> str:
    """Digest of all that decides a concept's measurement."""
    settings = {name: value for name, value in config.to_dict().items() if name not in _NOT_DECISIVE}
    identity = model.identity
    return digest_json(
        {
            "model": [identity.model_digest, identity.tokenizer_digest, identity.dtype, model.attention],
            "layers": list(layers),
            "concept": concept,
            "items": dataset_digest,
            "settings": settings,
            "rules": RULES_VERSION,
            "code": version("neuronmap"),
        }
    )


def read_kept(key: str) -> KeptConcept | None:
    """What was kept under a key; None if there is nothing whole."""
    path = _path(key)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["document"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        if document["key"] != key:
            return None
        depths_R = tensors.pop("depths_R").numpy().astype(np.float64)
        return KeptConcept(ConceptResult(**document["result"]), ProbeSet.from_tensors(tensors), depths_R)
    except (ConfigError, KeyError, OSError, SafetensorError, ValueError):
        return None  # made again


def keep(key: str, kept: KeptConcept) -> None:
    """Keep a measurement.

    Raises:
        UnwritablePathError: the cache cannot be written.
    """
    tensors = {**kept.probes.to_tensors(), "depths_R": torch.from_numpy(kept.depths_R.copy())}
    document = json.dumps({"key": key, "result": kept.result.to_dict()}, allow_nan=False)
    write_bytes(_path(key), save(tensors, {"document": document}))


def _path(key: str) -> Path:
    return new_folder(cache_folder("concepts")) / f"{short(key)}.safetensors"
