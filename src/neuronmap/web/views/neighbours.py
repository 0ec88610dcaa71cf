"""Which features are near a feature: lists of the store, and exact cosines of any pair from the weights. No torch.

Shapes: K features that are shown, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import LibraryEntry
from neuronmap.saes.metadata import WEIGHTS_FILE

__all__ = ["CoFiring", "Links", "cosines", "decoder_rows", "links"]


class CoFiring(NamedTuple):
    """How two features fire together on the sampled tokens."""

    together: int
    jaccard: float


class Links(NamedTuple):
    """What the store lists for one feature: others by decoder cosine and by Jaccard index, the largest first."""

    cosine: dict[int, float]
    firing: dict[int, CoFiring]


def links(store: FeatureStore, features: Iterable[int]) -> dict[int, Links]:
    """The lists of some features; of ``details.parquet`` only these columns of their row groups are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.tables.require("details")
    columns, wanted = ["feature", "neighbours", "coactive"], [("feature", "in", list(features))]
    if not wanted[0][2]:
        return {}
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns, filters=wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"The feature store is damaged: {path.name} cannot be read ({error}).") from error
    return {
        row["feature"]: Links(
            {one["feature"]: one["cosine"] for one in row["neighbours"] or []},
            {one["feature"]: CoFiring(one["count"], one["jaccard"]) for one in row["coactive"] or []},
        )
        for row in rows
    }


def decoder_rows(entry: LibraryEntry, features: Sequence[int]) -> npt.NDArray[np.float32]:
    """float32 [K, D]: decoder rows of some features, a range of them in one piece; only these are read from the disk.

    Raises:
        DamagedError: the weights have no readable decoder.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(entry.path / WEIGHTS_FILE, framework="numpy") as file:
            decoder = file.get_slice("W_dec")
            if isinstance(features, range):
                return np.asarray(decoder[features.start : features.stop], np.float32)
            return np.stack([np.asarray(decoder[feature], np.float32) for feature in features])
    except (SafetensorError, OSError, TypeError) as error:
        raise DamagedError(f"The decoder of SAE '{entry.id}' cannot be read: {error}.") from error


def cosines(a_KD: npt.NDArray[np.float32], b_KD: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64 [K, K]: cosine of each row of one with each of the other; 0 for a row that is zero."""
    a, b = (_unit(rows.astype(np.float64)) for rows in (a_KD, b_KD))
    return np.asarray(np.clip(a @ b.T, -1.0, 1.0))


def _unit(rows_KD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm = np.linalg.norm(rows_KD, axis=1, keepdims=True)
    return np.asarray(np.divide(rows_KD, norm, out=np.zeros_like(rows_KD), where=norm > 0))
