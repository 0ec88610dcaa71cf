"""Which features carry a concept: AUC of each feature's activation for each class, against what the best of all features reaches by chance.

Shapes: N items, F features, K classes, P permutations.

AUC of a feature for a class is the probability that its activation is higher on an item of the class than on one of the others, ties
counting half; it is the rank sum of the class, so all permutations of the labels are one product of ranks and indicators. The bound is
the 95th percentile of the maximum over features and classes: with labels that mean nothing, no feature at all is named in 95 % of cases.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.stats import rankdata
from torch import Tensor

from neuronmap.errors import InputError

__all__ = ["Carried", "Carrier", "carried_by"]

_CHUNK_NUMBERS = 1 << 22  # 32 MiB of float64

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Carrier:
    """A feature that carries a class.

    Attributes:
        feature: its number.
        label: the class it is higher on.
        auc: against all other classes.
        p_value: share of the permutations whose best feature reaches it, (1 + those) / (1 + P).
    """

    feature: int
    label: Any
    auc: float
    p_value: float


@dataclass(frozen=True)
class Carried:
    """What one SAE's features say of a concept.

    Attributes:
        classes: in the order of first appearance in sorted labels.
        auc_FK: float32, every feature and class.
        bound: 95th percentile of the best feature's AUC under permuted labels.
        carriers: features above it, each with its best class, the highest AUC first.
    """

    classes: list[Any]
    auc_FK: npt.NDArray[np.float32]
    bound: float
    carriers: list[Carrier]


def carried_by(
    codes_NF: Tensor | npt.NDArray[Any] | scipy.sparse.csr_matrix,
    labels: Sequence[Hashable],
    *,
    clusters: Sequence[Hashable] | None = None,
    permutations: int = 500,
    rate: float = 0.05,
    seed: int = 0,
) -> Carried:
    """Find the features that carry a concept.

    Args:
        codes_NF: activations of the features at the items' read positions, dense or sparse.
        labels: class of each item; at least two classes.
        clusters: what each item belongs with (its lemma, its pair). A cluster that holds several labels exchanges them as a whole,
            and clusters that hold one exchange it among each other, so that a feature of some lemmas is not taken for the concept.
        permutations: at least 20.
        rate: chance that any feature is named without cause.
        seed: decides the permutations.

    Returns:
        AUC of every feature, bound, and the features above it.

    Raises:
        InputError: if counts do not agree, there are fewer than two classes or 20 permutations, or a value is NaN or infinite.
    """
    values_NF = _as_matrix(codes_NF)
    items, features = values_NF.shape
    classes = sorted(set(labels), key=lambda label: (str(type(label)), label))
    _check(items, labels, clusters, classes, permutations)
    label_N = np.asarray([classes.index(label) for label in labels])
    rng = np.random.default_rng(seed)
    cluster_N = None if clusters is None else _numbered(clusters)
    draws_PN = np.stack([label_N, *(_permuted(label_N, cluster_N, rng) for _ in range(permutations))])
    auc_FK = np.full((features, len(classes)), 0.5, np.float32)
    best_P = np.zeros(permutations)
    for start in range(0, features, _size(items, permutations * len(classes))):
        stop = min(start + _size(items, permutations * len(classes)), features)
        rank_Nf = _ranks(values_NF[:, start:stop])
        for k in range(len(classes)):
            chosen_PN = (draws_PN == k).astype(np.float64)
            sums_Pf, count_P1 = chosen_PN @ rank_Nf, chosen_PN.sum(1, keepdims=True)
            pairs_P1 = np.maximum(count_P1 * (items - count_P1), 1.0)
            auc_Pf = (sums_Pf - count_P1 * (count_P1 + 1) / 2) / pairs_P1
            auc_FK[start:stop, k] = auc_Pf[0]
            best_P = np.maximum(best_P, auc_Pf[1:].max(1))
    bound = float(np.quantile(best_P, 1.0 - rate, method="higher"))
    return Carried(classes, auc_FK, bound, _carriers(auc_FK, bound, best_P, classes))


def _carriers(
    auc_FK: npt.NDArray[np.float32], bound: float, best_P: npt.NDArray[np.float64], classes: list[Any]
) -> list[Carrier]:
    best_F = auc_FK.argmax(1)
    value_F = auc_FK[np.arange(len(auc_FK)), best_F].astype(np.float64)
    above = np.flatnonzero(value_F > bound + 1e-6)  # float32 against float64: equal is not above
    order = above[np.argsort(-value_F[above], kind="stable")]
    return [
        Carrier(
            feature,
            classes[best_F[feature]],
            float(value_F[feature]),
            float((1 + (best_P >= value_F[feature] - 1e-6).sum()) / (1 + len(best_P))),
        )
        for feature in order.tolist()
    ]


def _ranks(values_Nf: Any) -> npt.NDArray[np.float64]:
    """float64 [N, f]: mid-ranks from 1, by column."""
    dense_Nf = values_Nf.toarray() if scipy.sparse.issparse(values_Nf) else values_Nf
    rank_Nf: npt.NDArray[np.float64] = rankdata(dense_Nf, axis=0)
    return rank_Nf


def _permuted(label_N: Ints, cluster_N: Ints | None, rng: np.random.Generator) -> Ints:
    """Labels that are as likely as the real ones if they mean nothing: the unit is the cluster."""
    if cluster_N is None:
        return rng.permutation(label_N)
    result_N = label_N.copy()
    members = [np.flatnonzero(cluster_N == cluster) for cluster in range(cluster_N.max() + 1)]
    whole: dict[int, list[Ints]] = {}  # clusters of one label, by size: only equal ones can be exchanged
    for items in members:
        if len(np.unique(label_N[items])) > 1:
            # The whole cluster exchanges its classes: what a feature knows of a lemma's forms it knows in all its sentences.
            present = np.unique(label_N[items])
            exchanged = rng.permutation(present)
            result_N[items] = exchanged[np.searchsorted(present, label_N[items])]
        else:
            whole.setdefault(len(items), []).append(items)
    for alike in whole.values():
        for items, taken in zip(alike, rng.permutation(len(alike)), strict=True):
            result_N[items] = label_N[alike[taken][0]]
    return result_N


def _size(items: int, draws: int) -> int:
    return max(1, _CHUNK_NUMBERS // max(items, draws))


def _numbered(clusters: Sequence[Hashable]) -> Ints:
    numbers: dict[Hashable, int] = {}
    return np.asarray([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])


def _as_matrix(codes_NF: Any) -> Any:
    if scipy.sparse.issparse(codes_NF):
        values = codes_NF.data
        matrix = codes_NF.tocsc()
    else:
        values = matrix = (
            codes_NF.detach().cpu().float().numpy() if isinstance(codes_NF, Tensor) else np.asarray(codes_NF)
        )
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InputError(f"Activations must be [items, features] with at least one feature, not {list(matrix.shape)}.")
    if not np.isfinite(values).all():
        raise InputError("Activations of the items hold NaN or infinity.", hint="Compute them in float32.")
    return matrix


def _check(items: int, labels: Sequence[Any], clusters: Sequence[Any] | None, classes: list[Any], draws: int) -> None:
    for name, given in (("labels", labels), ("clusters", clusters)):
        if given is not None and len(given) != items:
            raise InputError(f"There are {items:,} items but {len(given):,} {name}; each item needs one.")
    if len(classes) < 2:
        raise InputError(f"All items have the same label ({classes}); a concept needs at least two classes.")
    if draws < 20:
        raise InputError(f"permutations = {draws}: at least 20 are needed for a bound at 5 %.")
