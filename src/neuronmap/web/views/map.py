"""The map of features, as columns: places, density, class and cluster."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.features.storage.conditions import Filter
from neuronmap.web.explorer import Analysed
from neuronmap.web.views.basis import Basis

__all__ = ["MOST_ROWS", "FeatureMap", "feature_map"]

MOST_ROWS = 10_000_000
"""Features in the table of the map: all."""


class FeatureMap(BaseModel):
    """Features with a place on the map; entry i of each list is one feature."""

    total: int = Field(description="Features with a place; more than are listed where the limit is below.")
    feature: list[int]
    x: list[float]
    y: list[float]
    density: list[float]
    firing_class: list[int] = Field(description="Number in `classes`.")
    cluster: list[int] = Field(description="Number in `clusters`; -1 for none.")
    label: list[str]
    classes: list[str] = Field(description="Firing classes, the most frequent first.")
    clusters: list[str] = Field(description="Labels of the clusters.")
    basis: Basis


def feature_map(analysed: Analysed, limit: int) -> FeatureMap:
    """The map; above the limit a sample that is the same each time.

    Raises:
        InputError: the analysis has no map.
    """
    store = analysed.store
    columns = ["map_x", "map_y", "density", "class", "cluster", "label"]
    table = store.queries.select([Filter("map_x", "!=", None)], limit=None, columns=columns).to_arrow()
    total = len(table)
    if not total:
        raise InputError(
            "This analysis has no map of features.",
            hint="Analyse again with the map (umap-learn is installed by `neuronmap[map]`).",
        )
    if total > limit:
        table = table.take(np.sort(np.random.default_rng(0).choice(total, limit, replace=False)))
    names = [name or "none" for name in table["class"].to_pylist()]
    classes = sorted(set(names), key=lambda name: (-names.count(name), name))
    labels = store.tables.read("clusters", ["cluster", "label"]).to_pylist() if "clusters" in store.tables.names else []
    by_number = {one["cluster"]: one["label"] for one in labels}
    return FeatureMap(
        total=total,
        feature=table["feature"].to_pylist(),
        x=[round(value, 4) for value in table["map_x"].to_pylist()],
        y=[round(value, 4) for value in table["map_y"].to_pylist()],
        density=[float(f"{value:.4g}") for value in table["density"].to_pylist()],
        firing_class=[classes.index(name) for name in names],
        cluster=[-1 if value is None else value for value in table["cluster"].to_pylist()],
        label=[value or "" for value in table["label"].to_pylist()],
        classes=classes,
        clusters=[by_number.get(number, "") for number in range(max(by_number, default=-1) + 1)],
        basis=Basis.of(analysed),
    )
