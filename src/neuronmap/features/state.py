"""The state of a feature pass: arrays by feature, figures over all rows, and the codes of a sample of contexts.

Shapes: F features, C contexts of T tokens in the whole token set, V vocabulary, G blocks of contexts, N rows and E entries of the
coded sample. Layout and exactness: :mod:`neuronmap.features.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.features.config import AnalysisConfig

__all__ = ["CodedSample", "FeatureState"]


@dataclass(frozen=True)
class CodedSample:
    """Codes of whole sampled contexts: every unmasked row of them, in order of (sequence, position), and its active entries.

    Attributes:
        sequence_N: uint32, context of each row.
        position_N: uint16, its place in the context.
        offset_N: int64 [N + 1], where each row's entries start.
        feature_E: int32, ascending within a row.
        value_E: float16, activation over the unit.
        error_N: float32, |x - xhat|^2 of each row.
        energy_N: float32, |x - mean|^2 of each row, mean as in ``facts["mean"]``.
    """

    sequence_N: npt.NDArray[np.uint32]
    position_N: npt.NDArray[np.uint16]
    offset_N: npt.NDArray[np.int64]
    feature_E: npt.NDArray[np.int32]
    value_E: npt.NDArray[np.float16]
    error_N: npt.NDArray[np.float32]
    energy_N: npt.NDArray[np.float32]


@dataclass
class FeatureState:
    """What a pass over some blocks of contexts knows; states of disjoint blocks merge.

    Attributes:
        config: the settings.
        facts: what the state is of, plain JSON: ``features`` F, ``contexts`` C, ``context_length`` T, ``vocabulary`` V,
            ``unit``, ``blocks`` G, ``contexts_per_block``, ``rows_digest``, ``sae_digest``, ``tokens_digest``, ``hook``, ``mask``,
            ``mean_from`` (whose mean EV is against), ``key`` (digest of all of these and the code version).
        features: arrays [F, ...] of :func:`neuronmap.features.layout.per_feature`.
        rows: rows seen.
        l0_histogram: int64 [L0_BINS], rows by number of active features.
        l0_sum_T: int64 [T], active entries by position in the context.
        rows_T: int64 [T], rows by position.
        token_count_V: int64 [V], rows by token.
        kept: uint8 [C, ceil(T / 8)], numpy.packbits of which positions were rows.
        done_G: bool [G], blocks that are in.
        sample: codes of the sampled contexts that are in.
    """

    config: AnalysisConfig
    facts: dict[str, Any]
    features: dict[str, npt.NDArray[Any]]
    rows: int
    l0_histogram: npt.NDArray[np.int64]
    l0_sum_T: npt.NDArray[np.int64]
    rows_T: npt.NDArray[np.int64]
    token_count_V: npt.NDArray[np.int64]
    kept: npt.NDArray[np.uint8]
    done_G: npt.NDArray[np.bool_]
    sample: CodedSample
