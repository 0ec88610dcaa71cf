"""The data of each plot and list of the feature page, as rows for a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from neuronmap.features.export.records import finite

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureRecord

__all__ = ["PLOTS", "plot_rows"]

Rows = list[dict[str, Any]]


def _histogram(record: FeatureRecord) -> Rows:
    edges = record.store.edges.tolist()
    counts = record.details["histogram"] or []
    return [{"bin": at, "from": edges[at], "to": edges[at + 1], "firings": count} for at, count in enumerate(counts)]


def _positions(record: FeatureRecord) -> Rows:
    counts, length = record.details["positions"] or [], record.store.context_length
    size = length / max(len(counts), 1)
    return [
        {"from_position": round(at * size), "to_position": round((at + 1) * size), "firings": count}
        for at, count in enumerate(counts)
    ]


def _logit_histogram(record: FeatureRecord) -> Rows:
    mean, std = record.row["logit_mean"], record.row["logit_std"]
    counts = (record.details["logit_histogram"] or []) if mean is not None and std is not None else []
    size = 16 / max(len(counts), 1)
    return [
        {
            "from_z": -8 + at * size,
            "to_z": -8 + (at + 1) * size,
            "from_logit": mean + std * (-8 + at * size),
            "to_logit": mean + std * (-8 + (at + 1) * size),
            "tokens": count,
        }
        for at, count in enumerate(counts)
    ]


def _logits(record: FeatureRecord) -> Rows:
    both = [("promoted", record.details["promoted"]), ("suppressed", record.details["suppressed"])]
    return [
        {"list": name, "token": entry["token"], "text": _text(record, entry), "logit": entry["value"]}
        for name, entries in both
        for entry in entries or []
    ]


def _listed(name: str) -> Callable[[FeatureRecord], Rows]:
    def rows(record: FeatureRecord) -> Rows:
        entries: Sequence[dict[str, Any]] = record.details[name] or []
        return [{**({"text": _text(record, entry)} if "token" in entry else {}), **entry} for entry in entries]

    return rows


def _text(record: FeatureRecord, entry: dict[str, Any]) -> str:
    return record.store.vocabulary.text_of(entry["token"])


PLOTS: dict[str, tuple[tuple[str, ...], Callable[[FeatureRecord], Rows]]] = {
    "histogram": (("bin", "from", "to", "firings"), _histogram),
    "positions": (("from_position", "to_position", "firings"), _positions),
    "logit-histogram": (("from_z", "to_z", "from_logit", "to_logit", "tokens"), _logit_histogram),
    "logits": (("list", "token", "text", "logit"), _logits),
    "tokens": (("token", "text", "count", "share", "lift", "z"), _listed("tokens")),
    "previous-tokens": (("token", "text", "count", "share", "lift", "z"), _listed("previous_tokens")),
    "next-tokens": (("token", "text", "count", "share", "lift", "z"), _listed("next_tokens")),
    "input-tokens": (("token", "text", "value"), _listed("input_tokens")),
    "neighbours": (("feature", "cosine"), _listed("neighbours")),
    "coactive": (("feature", "count", "jaccard", "pmi", "given", "implies"), _listed("coactive")),
    "leads": (("feature", "count", "given", "lift"), _listed("leads")),
    "follows": (("feature", "count", "given", "lift"), _listed("follows")),
}
"""Name in the address -> columns, and what makes the rows."""


def plot_rows(record: FeatureRecord, name: str) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows of a plot; NaN is null.

    Raises:
        KeyError: there is no such plot.
    """
    columns, make = PLOTS[name]
    return columns, [finite(row) for row in make(record)]
