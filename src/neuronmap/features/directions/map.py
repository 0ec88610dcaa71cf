"""The map: decoder directions laid out in two dimensions, its clusters, and names for them.

Shapes: F features, M features on the map, D width of the activation, N neighbours given, K neighbours used.

The layout is UMAP (arXiv 1802.03426) of the cosines between decoder rows. It is given the exact neighbours that
:mod:`neuronmap.features.directions.weights` has found, starts from the first two principal components, and runs on one thread, so
that the same seed gives the same map on the same machine. min_dist is 0: on a trained SAE of 4,096 features 15 % of the nearest 14
directions were among the nearest 14 on the map, against 13 % with UMAP's usual 0.1. So few are kept because directions have many
more dimensions than a page: read the map for neighbourhoods, never for distances.

Clusters are the leaves of HDBSCAN (Campello et al. 2013) on the map, at least sqrt(M) / 6 features each. Its other rule, the most
stable branches, put 2,857 features of the same SAE in one cluster (at a smallest size of 32). Features between clusters have none:
about half.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.errors import InputError, MissingDependencyError
from neuronmap.features.directions.weights import nearest_rows
from neuronmap.progress import Progress, default

__all__ = ["FeatureMap", "cluster_labels", "feature_map"]

_NEIGHBOURS = 14
_FEWEST = 15
"""Features below which there is no neighbourhood to speak of, and the map is a plain projection."""
_SMALLEST_CLUSTER = 5

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureMap:
    """Where each feature lies.

    Attributes:
        x_F: float32, NaN for features that are not on the map. The map has mean 0; its unit means nothing.
        y_F: float32, likewise.
        cluster_F: int32, cluster by size, the largest is 0; -1 for features in none or not on the map.
        method: ``umap``, ``pca`` or ``none``.
        note: what a reader should know; empty when there is nothing.
    """

    x_F: _Floats
    y_F: _Floats
    cluster_F: npt.NDArray[np.int32]
    method: str
    note: str = ""


def feature_map(
    W_dec_FD: Tensor,
    alive_F: npt.NDArray[np.bool_],
    neighbours_FN: npt.NDArray[np.int32],
    cosines_FN: _Floats,
    seed: int = 0,
    progress: Progress | None = None,
) -> FeatureMap:
    """Lay the decoder directions of living features out in two dimensions, and find clusters.

    Args:
        W_dec_FD: decoder rows [F, D], of any length; rows of zeros are not on the map.
        alive_F: bool [F], features to show.
        neighbours_FN: int32 [F, N], nearest rows of each among all F, as in
            :class:`~neuronmap.features.directions.weights.WeightFacts`; rows of which fewer than 14 are on the map are searched again.
        cosines_FN: float32 [F, N], their cosines.
        seed: of the layout.
        progress: where bars and notes go.

    Returns:
        The map. Fewer than 15 features, or directions that are all the same, are projected on their principal components instead,
        without clusters, and ``note`` says so.

    Raises:
        InputError: if the arrays are not of the same features.
        MissingDependencyError: if umap-learn is needed and not there.
    """
    progress = progress or default()
    F = len(W_dec_FD)
    if not len(alive_F) == len(neighbours_FN) == len(cosines_FN) == F:
        raise InputError(
            f"A map needs arrays of the same features: W_dec has {F} rows, alive {len(alive_F)}, neighbours {len(neighbours_FN)}, "
            f"cosines {len(cosines_FN)}."
        )
    rows_FD = W_dec_FD.detach().to(device="cpu", dtype=torch.float32)
    there_F = np.asarray(alive_F, dtype=bool) & rows_FD.any(dim=1).numpy()
    shown_M = np.flatnonzero(there_F)
    unit_MD = torch.nn.functional.normalize(rows_FD[torch.from_numpy(shown_M)], dim=1)
    x_F, y_F = np.full(F, np.nan, np.float32), np.full(F, np.nan, np.float32)
    cluster_F = np.full(F, -1, np.int32)
    M = len(shown_M)
    if M == 0:
        return FeatureMap(x_F, y_F, cluster_F, "none", "No feature is alive, so there is nothing to show.")
    same = unit_MD.shape[1] < 2 or bool((unit_MD - unit_MD[0]).abs().max() < 1e-6)
    if M < _FEWEST or same:
        x_F[shown_M], y_F[shown_M] = _principal(unit_MD).T
        why = f"fewer than {_FEWEST} are too few" if M < _FEWEST else "they differ too little"
        note = f"Principal components of {M} directions: {why} for UMAP and for clusters."
        return FeatureMap(x_F, y_F, cluster_F, "pca", note)
    near_MK, cosine_MK = _neighbours_shown(unit_MD, shown_M, neighbours_FN, cosines_FN, progress)
    with progress.task("map", M, "features") as task:
        place_M2 = _layout(unit_MD.numpy(), near_MK, cosine_MK, seed)
        task.advance(M)
    x_F[shown_M], y_F[shown_M] = place_M2.T
    cluster_F[shown_M] = _clusters(place_M2)
    return FeatureMap(x_F, y_F, cluster_F, "umap")


def cluster_labels(
    cluster_F: npt.NDArray[np.int32], words_of_feature: Sequence[Sequence[str]], *, words: int = 3
) -> list[str]:
    """Name clusters by words that many of their features have and few others do.

    A word's weight in a cluster is p log2(p / q): p the share of the cluster's features that have it, q its share of the features
    outside the cluster that have words, with one added on both sides of q. Words are the same if only their case or the space around
    them differs; the commonest spelling is shown. A word of a single feature names nothing, and neither does one of less than half
    the weight of the best.

    Args:
        cluster_F: cluster of each feature, -1 for none.
        words_of_feature: for each feature its words (of its hint, or its top tokens), of any number.
        words: how many words a name has at most.

    Returns:
        A name for each cluster 0, 1, ..., such as ``"river, lake, water"``; empty where nothing is shared.

    Raises:
        InputError: if the two are not of the same features.
    """
    if len(cluster_F) != len(words_of_feature):
        raise InputError(f"There are clusters of {len(cluster_F)} features but words of {len(words_of_feature)}.")
    spellings: dict[str, Counter[str]] = {}
    everywhere: Counter[str] = Counter()
    inside: list[Counter[str]] = [Counter() for _ in range(int(max(cluster_F, default=-1)) + 1)]
    sizes: Counter[int] = Counter()
    for cluster, texts in zip(np.asarray(cluster_F).tolist(), words_of_feature, strict=True):
        forms: dict[str, str] = {}
        for text in map(str.strip, texts):
            if text:
                forms.setdefault(text.casefold(), text)
        for form, spelling in forms.items():
            spellings.setdefault(form, Counter())[spelling] += 1
        everywhere.update(forms.keys())
        if cluster >= 0:
            inside[cluster].update(forms.keys())
        if forms:
            sizes[cluster] += 1
    total = sum(sizes.values())
    names: list[str] = []
    for cluster, counts in enumerate(inside):
        size = sizes[cluster]
        weights = {}
        for form, count in counts.items():
            p = count / size
            q = (everywhere[form] - count + 1) / (total - size + 1)
            if count >= 2 and p > q:
                weights[form] = p * np.log2(p / q)
        enough = 0.5 * max(weights.values(), default=0.0)
        best = sorted((f for f in weights if weights[f] >= enough), key=lambda form: (-weights[form], form))[:words]
        names.append(", ".join(min(spellings[form].items(), key=lambda item: (-item[1], item[0]))[0] for form in best))
    return names


def _neighbours_shown(
    unit_MD: Tensor,
    shown_M: npt.NDArray[np.int64],
    neighbours_FN: npt.NDArray[np.int32],
    cosines_FN: _Floats,
    progress: Progress,
) -> tuple[npt.NDArray[np.int32], _Floats]:
    """The K nearest rows on the map of each row on it, numbered 0 .. M - 1: those given that are on it, or a search of its own."""
    M, K = len(shown_M), min(_NEIGHBOURS, len(shown_M) - 1)
    number_F = np.full(len(neighbours_FN), -1, np.int32)
    number_F[shown_M] = np.arange(M, dtype=np.int32)
    given_MN = number_F[neighbours_FN[shown_M]].reshape(M, -1)
    cosine_MN = cosines_FN[shown_M].reshape(M, -1)
    if given_MN.shape[1] < K:
        return nearest_rows(unit_MD, K, progress=progress)
    # Those on the map first, each in the order that was given.
    order_MK = np.argsort(given_MN < 0, axis=1, kind="stable")[:, :K]
    near_MK = np.take_along_axis(given_MN, order_MK, 1)
    cosine_MK = np.take_along_axis(cosine_MN, order_MK, 1)
    short_M = np.flatnonzero((near_MK < 0).any(axis=1))
    if len(short_M):
        near_MK[short_M], cosine_MK[short_M] = nearest_rows(unit_MD, K, of=torch.from_numpy(short_M), progress=progress)
    return near_MK, cosine_MK


def _layout(unit_MD: _Floats, near_MK: npt.NDArray[np.int32], cosine_MK: _Floats, seed: int) -> _Floats:
    """float32 [M, 2], of mean 0."""
    own_M1 = np.arange(len(unit_MD), dtype=np.int32)[:, None]
    # UMAP counts the point itself as its first neighbour, and cuts those at the largest distance there is, 2.
    near_MJ = np.concatenate([own_M1, near_MK], axis=1)
    distance_MJ = np.concatenate([np.zeros_like(own_M1, np.float32), (1.0 - cosine_MK).clip(0.0, 1.999)], axis=1)
    with warnings.catch_warnings():
        # Of no concern here: TensorFlow is missing; new points cannot be placed; one thread because of the seed.
        warnings.simplefilter("ignore")
        umap: Any = _umap()(
            n_neighbors=near_MJ.shape[1], metric="cosine", min_dist=0.0, init="pca", random_state=seed % 2**32, n_jobs=1,
            precomputed_knn=(near_MJ, distance_MJ.astype(np.float32)),
        )  # fmt: skip
        place_M2: _Floats = np.array(umap.fit_transform(unit_MD), np.float32)
    place_M2 -= place_M2.mean(axis=0, dtype=np.float64).astype(np.float32)
    return place_M2


def _umap() -> Any:
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingDependencyError(
            "The map of features needs the package umap-learn.", hint="pip install 'neuronmap[map]'"
        ) from error
    return UMAP


def _clusters(place_M2: _Floats) -> npt.NDArray[np.int32]:
    """Cluster of each place, numbered by size (equal sizes by their first member); -1 for none."""
    from sklearn.cluster import HDBSCAN

    smallest = max(_SMALLEST_CLUSTER, round(len(place_M2) ** 0.5 / 6))
    found_M = HDBSCAN(min_cluster_size=smallest, cluster_selection_method="leaf", copy=True).fit(place_M2).labels_
    number, first, size = np.unique(found_M, return_index=True, return_counts=True)
    by_size = sorted((-int(s), int(f), int(n)) for n, f, s in zip(number, first, size, strict=True) if n >= 0)
    cluster_M = np.full(len(place_M2), -1, np.int32)
    for rank, (_, _, n) in enumerate(by_size):
        cluster_M[found_M == n] = rank
    return cluster_M


def _principal(unit_MD: Tensor) -> _Floats:
    """float32 [M, 2]: the rows on their first two principal components; the largest entry of each component is positive."""
    centred_MD = (unit_MD - unit_MD.mean(dim=0)).double()
    _, _, component_KD = torch.linalg.svd(centred_MD, full_matrices=False)
    place_M2 = np.zeros((len(unit_MD), 2), np.float32)
    for axis, component_D in enumerate(component_KD[:2]):
        sign = torch.sign(component_D[component_D.abs().argmax()])
        place_M2[:, axis] = (centred_MD @ (sign * component_D)).numpy()
    return place_M2
