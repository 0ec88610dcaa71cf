"""Rows of the store's files, as Arrow tables in the types of the schema, for one chunk of features.

Shapes: F features of the chunk, N entries of a list, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neuronmap.features.storage.schema import EXAMPLE_KINDS, arrow_schema
from neuronmap.features.summary.choosing import Examples
from neuronmap.features.summary.distributions import STATUSES, histogram_quantiles, moments, status_of, wilson
from neuronmap.features.summary.ragged import Ragged
from neuronmap.features.summary.tokenstats import TokenPairs, TokenStatistics
from neuronmap.features.summary.writing import rounded

if TYPE_CHECKING:
    from neuronmap.features.directions.lens import LensFacts
    from neuronmap.features.directions.map import FeatureMap
    from neuronmap.features.directions.weights import WeightFacts
    from neuronmap.features.storage.text import Vocabulary

__all__ = ["CoActive", "Texts", "details_table", "examples_table", "features_table", "promoted_table", "token_features"]

_QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
TOKEN_PAIRS = 32
"""Tokens of each feature that the index from tokens to features holds: those of the highest z."""


@dataclass(frozen=True)
class CoActive:
    """Lists of one chunk by :class:`neuronmap.features.summary.coactivation.CoActivation`."""

    together: Ragged
    leads: Ragged
    follows: Ragged


class Texts:
    """Texts of tokens, each decoded once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._known: dict[int, str] = {}

    def of(self, token_F: npt.NDArray[np.integer]) -> list[str | None]:
        """The text of each token; None for -1."""
        for token in np.unique(token_F).tolist():
            if token >= 0 and token not in self._known:
                self._known[token] = self._vocabulary.text_of(token)
        return [self._known.get(token) for token in token_F.tolist()]


def features_table(
    first: int,
    features: Mapping[str, npt.NDArray[Any]],
    rows: int,
    unit: float,
    tokens: TokenStatistics,
    texts: Texts,
    coactive: CoActive,
    weights: WeightFacts | None,
    feature_map: FeatureMap | None,
) -> pa.Table:
    """Rows of ``features.parquet``; arrays are those of features ``first`` on, weights and map those of all features."""
    firings_F = features["firings"]
    part = slice(first, first + len(firings_F))
    fires_F = firings_F > 0
    moment = moments(dict(features), unit)
    low_F, high_F = wilson(firings_F, rows)
    quantile_FS = histogram_quantiles(features["histogram"], features["max"], unit, list(_QUANTILES.values()))
    lift_F = tokens.on.first("token", -1)
    partner_F = coactive.together.first("feature", -1)
    columns: dict[str, Any] = {
        "feature": np.arange(part.start, part.stop, dtype=np.int32),
        "status": [STATUSES[status] for status in status_of(firings_F, rows).tolist()],
        "firings": firings_F,
        "density": firings_F / max(rows, 1),
        "density_low": low_F,
        "density_high": high_F,
        "mean": _or_null(moment.mean_F),
        "std": _or_null(moment.std_F),
        "max": _or_null(features["max"], ~fires_F),
        "sum": moment.sum_F,
        **{name: _or_null(quantile_FS[:, place]) for place, name in enumerate(_QUANTILES)},
        "contexts": tokens.contexts_F,
        "documents": tokens.documents_F,
        "sampled": tokens.sampled_F,
        "top_token": _or_null(tokens.top_token_F, tokens.top_token_F < 0),
        "top_token_text": texts.of(tokens.top_token_F),
        "top_token_share": _or_null(tokens.top_share_F),
        "top_token_share_low": _or_null(tokens.top_low_F),
        "top_token_share_high": _or_null(tokens.top_high_F),
        "top_lift_token": _or_null(lift_F, lift_F < 0),
        "top_lift_text": texts.of(lift_F),
        "token_entropy": _or_null(tokens.entropy_F),
        "early_share": _or_null(features["positions"][:, 0] / np.maximum(firings_F, 1), ~fires_F),
        **_weight_columns(weights, part, texts),
        "coactive": _or_null(partner_F, partner_F < 0),
        "coactive_jaccard": _or_null(coactive.together.first("jaccard", np.nan)),
        "map_x": _or_null(feature_map.x_F[part]) if feature_map is not None else None,
        "map_y": _or_null(feature_map.y_F[part]) if feature_map is not None else None,
        "cluster": _cluster(feature_map, part),
    }
    return _table("features", columns, len(firings_F))


def _cluster(feature_map: FeatureMap | None, part: slice) -> pa.Array | None:
    if feature_map is None:
        return None
    # features that have no place on the map have no cluster either, which is not the same as none of the clusters
    return _or_null(feature_map.cluster_F[part].astype(np.int32), ~np.isfinite(feature_map.x_F[part]))


def _weight_columns(weights: WeightFacts | None, part: slice, texts: Texts) -> dict[str, Any]:
    if weights is None:
        return {}
    columns: dict[str, Any] = {
        "decoder_norm": _or_null(weights.decoder_norm_F[part]),
        "encoder_norm": _or_null(weights.encoder_norm_F[part]),
        "encoder_decoder_cosine": _or_null(weights.encoder_decoder_cosine_F[part]),
        "encoder_bias": _or_null(weights.encoder_bias_F[part]) if weights.encoder_bias_F is not None else None,
        "threshold": _or_null(weights.threshold_F[part]) if weights.threshold_F is not None else None,
    }
    if weights.neighbours_FN.shape[1]:
        columns["nearest"] = _or_null(weights.neighbours_FN[part, 0], weights.neighbours_FN[part, 0] < 0)
        columns["nearest_cosine"] = _or_null(weights.neighbour_cosines_FN[part, 0])
    lens = weights.lens
    if lens is not None:
        columns |= {
            "logit_mean": _or_null(lens.mean_F[part]),
            "logit_std": _or_null(lens.std_F[part]),
            "logit_skew": _or_null(lens.skew_F[part]),
            "logit_kurtosis": _or_null(lens.kurtosis_F[part]),
        }
        if lens.promoted_FN.shape[1]:
            top_F = lens.promoted_FN[part, 0]
            columns |= {"top_promoted": _or_null(top_F, top_F < 0), "top_promoted_text": texts.of(top_F)}
    return columns


def details_table(
    first: int,
    features: Mapping[str, npt.NDArray[Any]],
    tokens: TokenStatistics,
    coactive: CoActive,
    weights: WeightFacts | None,
) -> pa.Table:
    """Rows of ``details.parquet``; what there is no data for is an empty list. Numbers are :func:`rounded`."""
    count = len(features["firings"])
    part = slice(first, first + count)
    lens: LensFacts | None = weights.lens if weights is not None else None
    near = (weights.neighbours_FN[part], weights.neighbour_cosines_FN[part]) if weights is not None else (None, None)
    columns: dict[str, Any] = {
        "feature": np.arange(part.start, part.stop, dtype=np.int32),
        "histogram": _rectangle(features["histogram"], pa.uint32()),
        "positions": _rectangle(features["positions"], pa.uint32()),
        "tokens": _structs(tokens.on),
        "previous_tokens": _structs(tokens.before),
        "next_tokens": _structs(tokens.after),
        "neighbours": _structs(_pairs(count, "feature", "cosine", *near)),
        "coactive": _structs(coactive.together),
        "leads": _structs(coactive.leads),
        "follows": _structs(coactive.follows),
        "logit_histogram": _rectangle(
            lens.histogram_F64[part] if lens is not None else np.zeros((count, 0), np.uint32), pa.uint32()
        ),
    }
    for name, ids, values in (
        ("promoted", "promoted_FN", "promoted_logit_FN"),
        ("suppressed", "suppressed_FN", "suppressed_logit_FN"),
        ("input_tokens", "input_tokens_FN", "input_scores_FN"),
    ):
        lists = (getattr(lens, ids)[part], getattr(lens, values)[part]) if lens is not None else (None, None)
        columns[name] = _structs(_pairs(count, "token", "value", *lists))
    return _table("details", columns, count)


def examples_table(examples: Examples) -> pa.Table:
    """Rows of ``examples.parquet``."""
    offset = pa.array(examples.firings.offset.astype(np.int32))
    columns = {
        "feature": examples.feature,
        "kind": pa.DictionaryArray.from_arrays(pa.array(examples.kind), pa.array(EXAMPLE_KINDS)),
        "group": examples.group,
        "rank": examples.rank,
        "sequence": examples.sequence,
        "position": examples.position,
        "activation": examples.activation,
        "offsets": pa.ListArray.from_arrays(offset, pa.array(examples.firings["offset"])),
        "activations": pa.ListArray.from_arrays(offset, pa.array(examples.firings["value"])),
    }
    return _table("examples", columns, len(examples))


def token_features(
    pairs: TokenPairs,
    firings_F: npt.NDArray[np.integer],
    sampled_F: npt.NDArray[np.integer],
    count_V: npt.NDArray[np.int64],
) -> pa.Table:
    """``token_features.parquet``: the pairs turned round.

    Args:
        pairs: (feature, token) with features numbered from 0.
        firings_F: firings of all features.
        sampled_F: how many of them were sampled.
        count_V: rows with each token.

    Returns:
        By token, then by the estimated share of the token's rows on which the feature fires:
        share of the feature's firings on it, times its firings, over the token's rows.
    """
    share_R = pairs.count / sampled_F[pairs.feature]
    of_token_R = np.minimum(share_R * firings_F[pairs.feature] / np.maximum(count_V[pairs.token], 1), 1.0)
    order = np.lexsort((pairs.feature, -of_token_R, pairs.token))
    token = pairs.token[order]
    columns = {
        "token": token,
        "rank": (np.arange(len(token)) - np.searchsorted(token, token)).astype(np.int32),
        "feature": pairs.feature[order],
        "count": pairs.count[order],
        "share_of_feature": rounded(share_R[order]),
        "share_of_token": rounded(of_token_R[order]),
        "mean": rounded((pairs.total / pairs.count)[order]),
    }
    return _table("token_features", columns, len(token))


def promoted_table(lens: LensFacts) -> pa.Table:
    """``promoted.parquet``: the lists of promoted tokens turned round, by token, then by logit descending."""
    num, size = lens.promoted_FN.shape
    token, logit = lens.promoted_FN.ravel(), lens.promoted_logit_FN.ravel()
    order = np.lexsort((np.arange(len(token)), -logit, token))
    order = order[token[order] >= 0]
    token = token[order]
    columns = {
        "token": token.astype(np.int32),
        "rank": (np.arange(len(token)) - np.searchsorted(token, token)).astype(np.int32),
        "feature": np.repeat(np.arange(num, dtype=np.int32), size)[order],
        "place": np.tile(np.arange(size, dtype=np.int16), num)[order],
        "logit": rounded(logit[order]),
    }
    return _table("promoted", columns, len(token))


def _table(name: str, columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Columns in the schema's order and types; those not given are null."""
    schema = arrow_schema(name)
    arrays = []
    for field in schema:
        value = columns.get(field.name)
        if value is None:
            arrays.append(pa.nulls(rows, field.type))
            continue
        array = value if isinstance(value, pa.Array) else pa.array(value)
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _or_null(values: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Null where asked, or where a number is NaN."""
    return pa.array(values, mask=np.isnan(values) if null is None else null)


def _rectangle(values_FN: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    num, size = values_FN.shape
    offset = pa.array(np.arange(num + 1, dtype=np.int32) * size)
    return pa.ListArray.from_arrays(offset, pa.array(np.ascontiguousarray(values_FN).ravel(), kind))


def _pairs(
    count: int,
    id_name: str,
    value_name: str,
    ids_FN: npt.NDArray[np.int32] | None,
    values_FN: npt.NDArray[np.float32] | None,
) -> Ragged:
    """Lists from rectangles; entries of a negative id are left out."""
    if ids_FN is None or values_FN is None:
        ids_FN, values_FN = np.zeros((count, 0), np.int32), np.zeros((count, 0), np.float32)
    there_FN = ids_FN >= 0
    offset = np.concatenate([[0], np.cumsum(there_FN.sum(axis=1))]).astype(np.int64)
    return Ragged(offset, {id_name: ids_FN[there_FN].astype(np.int32), value_name: values_FN[there_FN]})


def _structs(lists: Ragged) -> pa.Array:
    names: Sequence[str] = list(lists.columns)
    parts = [
        pa.array(rounded(lists[name]) if np.issubdtype(lists[name].dtype, np.floating) else lists[name])
        for name in names
    ]
    return pa.ListArray.from_arrays(
        pa.array(lists.offset.astype(np.int32)), pa.StructArray.from_arrays(parts, names=names)
    )
