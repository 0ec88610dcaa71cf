"""Features by name: number, label and the few figures that stand beside a link to one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["FeatureName", "feature_names"]

_FEW = 16
_COLUMNS = ("label", "class", "status", "density", "max", "top_token_text")


class FeatureName(BaseModel):
    """A feature as it is mentioned."""

    feature: int
    label: str = Field(
        default="", description="The best label that people or models gave it, else that of its rule; may be empty."
    )
    label_by: str = Field(default="", description="Who gave the label; empty for the rules.")
    status: str = Field(default="", description="never, rare, alive or dense.")
    firing_class: str = Field(default="", description="Firing class.")
    density: float | None = Field(default=None, description="Share of tokens on which it fires.")
    max: float | None = Field(default=None, description="Largest activation.")
    top_token: str | None = Field(default=None, description="Its most frequent token.")


def feature_names(store: FeatureStore, features: Iterable[int]) -> list[FeatureName]:
    """What to call some features, in the order given.

    Args:
        store: the analysis.
        features: valid numbers.
    """
    wanted = list(features)
    given = store.given(wanted)
    return [
        FeatureName(
            feature=row["feature"],
            label=given[row["feature"]].text if row["feature"] in given else row["label"] or "",
            label_by=given[row["feature"]].author if row["feature"] in given else "",
            status=row["status"],
            firing_class=row["class"] or "",
            density=finite(row["density"]),
            max=finite(row["max"]),
            top_token=row["top_token_text"],
        )
        for row in _rows(store, wanted)
    ]


def _rows(store: FeatureStore, features: list[int]) -> Iterable[dict[str, Any]]:
    """Their rows; of a few features without the whole table, as long as nobody has needed that: it takes 0.3 s to read 65,536."""
    if "queries" in store.__dict__ or len(features) > _FEW:
        return store.queries.take(features, _COLUMNS)
    records = [store.feature(feature) for feature in features]
    return [{**dict.fromkeys(_COLUMNS), **(record.hint or {}), **record.row} for record in records]
