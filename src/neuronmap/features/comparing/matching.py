"""Which features of two SAEs belong together: best matches both ways, one-to-one, and what chance gives.

Shapes: A features of the first SAE, B of the second, N candidates kept for each feature, S features sampled for the null.

At a threshold t, with best(f) the most similar feature of the other SAE:

    shared    a and b are each other's best match, and their similarity is at least t
    split     a is the best match, at t or above, of two or more features of B
    merged    b is the best match, at t or above, of two or more features of A
    unique    the best match is below t
    related   none of these: the best match is above t, and prefers another

A shared feature may also be split or merged. The null's threshold is the (1 - rate) quantile of best-match similarities where there
is nothing to find (:meth:`Similarity.by_chance`), pooled over features and draws, the larger of both directions: at most a share
``rate`` of the features of either SAE would have a best match above it by chance.

One-to-one: the set of pairs, each feature in at most one, with the largest sum of (similarity - floor) over pairs above the floor.
Pairs at or below the floor are never matched, which makes the problem sparse, and exact wherever every pair above it was kept.
Where a feature has more than N of them and the matrix has at most 2**24 entries, the dense problem is solved; above that the result
is the optimum over the kept pairs and is marked as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from neuronmap.features.comparing.similarity import ABSENT, Similarity
from neuronmap.progress import Task

__all__ = [
    "Candidates",
    "Chance",
    "Matching",
    "Pairing",
    "best_of",
    "match",
    "one_to_one",
    "search",
    "what_chance_gives",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_BLOCK_NUMBERS = 1 << 24  # 64 MiB of float32
_DENSE_PAIRS = 1 << 24  # 128 MiB of float64; 4096 x 4096 takes about 3 s


@dataclass(frozen=True)
class Candidates:
    """The most similar features both ways, descending; -1 and ABSENT where there are fewer.

    Attributes:
        index_AN: int64, features of the second SAE for each of the first.
        value_AN: float32, their similarity.
        index_BN: int64, features of the first for each of the second.
        value_BN: float32.
        pairs_above: pairs of the whole matrix above ``floor``, kept or not.
        floor: the similarity they are counted from.
    """

    index_AN: Ints
    value_AN: Floats
    index_BN: Ints
    value_BN: Floats
    pairs_above: int
    floor: float


@dataclass(frozen=True)
class Chance:
    """What matching gives where there is nothing to find.

    Attributes:
        rate: share of features allowed above the threshold.
        threshold: the similarity that at most that share reaches, in either direction.
        best_A: float32 [draws x S], best-match similarity of features of the first SAE, ascending.
        best_B: float32, of the second.
        shared: share of the first SAE's features with a mutual best match above the threshold.
        draws: independent draws.
    """

    rate: float
    threshold: float
    best_A: Floats
    best_B: Floats
    shared: float
    draws: int


@dataclass(frozen=True)
class Pairing:
    """A one-to-one matching.

    Attributes:
        partner_A: int64 [A], the feature of the second SAE, -1 for none.
        floor: pairs at or below are not matched.
        exact: whether it is the optimum over all pairs, not only over those kept.
    """

    partner_A: Ints
    floor: float
    exact: bool


@dataclass(frozen=True)
class Matching:
    """Two SAEs matched by one measure.

    Attributes:
        measure: its name in words.
        candidates: the best matches both ways.
        usable_A, usable_B: bool, features that could be compared.
        chance: the null.
        threshold: t of the definitions above.
        pairing: the one-to-one matching.
        value_pairing_A: float32 [A], similarity to the partner, NaN for none.
    """

    measure: str
    candidates: Candidates
    usable_A: npt.NDArray[np.bool_]
    usable_B: npt.NDArray[np.bool_]
    chance: Chance
    threshold: float
    pairing: Pairing
    value_pairing_A: Floats

    @property
    def best_A(self) -> Ints:  # noqa: N802 (shape suffix)
        """int64 [A], most similar feature of the second SAE, -1 where nothing could be compared."""
        return self.candidates.index_AN[:, 0]

    @property
    def best_B(self) -> Ints:  # noqa: N802 (shape suffix)
        """int64 [B], most similar feature of the first."""
        return self.candidates.index_BN[:, 0]

    @property
    def value_A(self) -> Floats:  # noqa: N802 (shape suffix)
        """float32 [A], that similarity; NaN where nothing could be compared."""
        return _nan_if_absent(self.candidates.value_AN[:, 0])

    @property
    def value_B(self) -> Floats:  # noqa: N802 (shape suffix)
        """float32 [B], likewise."""
        return _nan_if_absent(self.candidates.value_BN[:, 0])

    @cached_property
    def mutual_A(self) -> npt.NDArray[np.bool_]:  # noqa: N802 (shape suffix)
        """bool [A], whether the best match's best match is the feature itself."""
        if not len(self.best_B):
            return np.zeros(len(self.best_A), bool)
        back_A = np.where(self.best_A >= 0, self.best_B[self.best_A], -1)
        mutual_A: npt.NDArray[np.bool_] = back_A == np.arange(len(self.best_A))
        return mutual_A

    def shared(self, threshold: float | None = None) -> Ints:
        """int64 [n, 2], pairs (a, b) that are each other's best match at the threshold or above, by a."""
        t = self.threshold if threshold is None else threshold
        a_n = np.flatnonzero(self.mutual_A & (self.candidates.value_AN[:, 0] >= t))
        return np.stack([a_n, self.best_A[a_n]], axis=1)

    def unique_a(self, threshold: float | None = None) -> Ints:
        """int64, comparable features of the first SAE whose best match is below the threshold."""
        t = self.threshold if threshold is None else threshold
        return np.flatnonzero(self.usable_A & (self.candidates.value_AN[:, 0] < t))

    def unique_b(self, threshold: float | None = None) -> Ints:
        """int64, of the second SAE."""
        t = self.threshold if threshold is None else threshold
        return np.flatnonzero(self.usable_B & (self.candidates.value_BN[:, 0] < t))

    def split(self) -> dict[int, list[int]]:
        """Feature of the first SAE -> the two or more features of the second whose best match it is."""
        return _groups(self.best_B, self.candidates.value_BN[:, 0], self.threshold)

    def merged(self) -> dict[int, list[int]]:
        """Feature of the second SAE -> the two or more features of the first whose best match it is."""
        return _groups(self.best_A, self.candidates.value_AN[:, 0], self.threshold)


def search(similarity: Similarity, keep: int, floor: float, task: Task | None = None) -> Candidates:
    """The ``keep`` most similar features both ways, in one pass over the blocks.

    Args:
        similarity: the measure.
        keep: candidates kept for each feature.
        floor: pairs above it are counted.
        task: told how many features of the first SAE are done.
    """
    num_a, num_b = len(similarity.usable_A), len(similarity.usable_B)
    value_AN, index_AN = _empty(num_a, min(keep, num_b))
    value_BN, index_BN = _empty(num_b, min(keep, num_a))
    above = 0
    for features_n, block_nB in _blocks(similarity, np.flatnonzero(similarity.usable_A)):
        rows_n = torch.from_numpy(features_n)
        value_AN[rows_n], index_AN[rows_n] = block_nB.topk(value_AN.shape[1], dim=1)
        above += int(torch.count_nonzero(block_nB > floor))
        columns_Bn = block_nB.T.contiguous()
        value_Bk, place_Bk = columns_Bn.topk(min(value_BN.shape[1], len(features_n)), dim=1)
        joined, joined_index = torch.cat([value_BN, value_Bk], 1), torch.cat([index_BN, rows_n[place_Bk]], 1)
        value_BN, order_BN = joined.topk(value_BN.shape[1], dim=1)
        index_BN = joined_index.gather(1, order_BN)
        if task is not None:
            task.advance(len(features_n))
    index_AN[value_AN <= ABSENT] = -1
    index_BN[value_BN <= ABSENT] = -1
    return Candidates(index_AN.numpy(), value_AN.numpy(), index_BN.numpy(), value_BN.numpy(), above, floor)


def best_of(similarity: Similarity, features_n: Ints) -> tuple[Floats, Ints]:
    """Similarity and index of the best match of some features of the first SAE; of equals the first."""
    values, indices = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for _, block_nB in _blocks(similarity, features_n):
        value_n, index_n = block_nB.max(dim=1)
        values.append(value_n.numpy())
        indices.append(index_n.numpy())
    return np.concatenate(values), np.concatenate(indices)


def what_chance_gives(
    similarity: Similarity, *, draws: int, rate: float, sample: int, seed: int, task: Task | None = None
) -> Chance:
    """The distribution of best matches where there is nothing to find, and the threshold that follows.

    Args:
        similarity: the measure between the real SAEs.
        draws: independent draws; each is a null of its own.
        rate: allowed share of false matches.
        sample: features of each SAE looked at in a draw (all, if there are fewer).
        seed: decides everything.
        task: told of each draw.
    """
    best_A, best_B, mutual = [np.empty(0, np.float32)], [np.empty(0, np.float32)], [np.empty(0, bool)]
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        null = similarity.by_chance(rng)
        back = null.swapped()
        a_S, b_S = (_sample(usable, sample, rng) for usable in (null.usable_A, null.usable_B))
        if len(a_S) and len(b_S):
            value_S, partner_S = best_of(null, a_S)
            best_A.append(value_S)
            best_B.append(best_of(back, b_S)[0])
            partners, place_S = np.unique(partner_S, return_inverse=True)
            mutual.append(best_of(back, partners)[1][place_S] == a_S)
        if task is not None:
            task.advance(1)
    a, b, m = np.concatenate(best_A), np.concatenate(best_B), np.concatenate(mutual)
    if not len(a) or not len(b):
        return Chance(rate, 1.0, a, b, 0.0, draws)
    threshold = max(float(np.quantile(values, 1.0 - rate, method="higher")) for values in (a, b))
    threshold = float(
        np.nextafter(np.float32(threshold), np.float32(2))
    )  # the share at or above it is then at most the rate
    return Chance(rate, threshold, np.sort(a), np.sort(b), float((m & (a >= threshold)).mean()), draws)


def one_to_one(candidates: Candidates, similarity: Similarity) -> Pairing:
    """The one-to-one matching with the largest sum of similarity above the candidates' floor.

    Args:
        candidates: from :func:`search`.
        similarity: asked again only where candidates are missing and the matrix is small.

    Returns:
        The pairing; exact wherever the module's docstring says so.
    """
    num_a, num_b = len(candidates.index_AN), len(candidates.index_BN)
    gain_AB = _candidate_gains(candidates)
    exact = gain_AB.nnz == candidates.pairs_above
    partner_A = np.full(num_a, -1, np.int64)
    if not exact and num_a * num_b <= _DENSE_PAIRS:
        dense_AB = np.zeros((num_a, num_b))
        for features_n, block_nB in _blocks(similarity, np.flatnonzero(similarity.usable_A)):
            dense_AB[features_n] = np.maximum(block_nB.numpy().astype(np.float64) - candidates.floor, 0.0)
        rows, columns = linear_sum_assignment(dense_AB, maximize=True)
        good = dense_AB[rows, columns] > 0
        partner_A[rows[good]] = columns[good]
        return Pairing(partner_A, candidates.floor, True)
    some_A = np.flatnonzero(np.diff(gain_AB.indptr))
    if len(some_A):
        # Every feature may also stay alone, at no gain: a column of its own. All weights are raised by 1, since a stored zero
        # would be no edge; each row takes exactly one, so the optimum stays where it is.
        edges = gain_AB[some_A]
        edges.data += 1.0
        alone = scipy.sparse.identity(len(some_A), format="csr")
        _, columns = min_weight_full_bipartite_matching(
            scipy.sparse.hstack([edges, alone], format="csr"), maximize=True
        )
        partner_A[some_A] = np.where(columns < num_b, columns, -1)
    return Pairing(partner_A, candidates.floor, exact)


def match(
    similarity: Similarity,
    chance: Chance,
    *,
    threshold: float | None = None,
    keep: int = 32,
    task: Task | None = None,
) -> Matching:
    """Match two SAEs by one measure.

    Args:
        similarity: the measure.
        chance: its null.
        threshold: t of the definitions; None for the null's.
        keep: candidates kept for each feature.
        task: told how many features of the first SAE are done.
    """
    t = chance.threshold if threshold is None else threshold
    candidates = search(similarity, keep, min(t, chance.threshold), task)
    pairing = one_to_one(candidates, similarity)
    paired = pairing.partner_A >= 0
    value_A = np.full(len(paired), np.nan, np.float32)
    value_A[paired] = similarity.pairs(np.flatnonzero(paired), pairing.partner_A[paired])
    usable = (similarity.usable_A, similarity.usable_B)
    return Matching(similarity.measure, candidates, *usable, chance, t, pairing, value_A)


def _blocks(similarity: Similarity, features: Ints) -> Iterator[tuple[Ints, Tensor]]:
    size = max(1, min(1024, _BLOCK_NUMBERS // (similarity.block_cost * max(1, len(similarity.usable_B)))))
    for start in range(0, len(features), size):
        part_n = features[start : start + size]
        yield part_n, similarity.block(part_n)


def _candidate_gains(candidates: Candidates) -> scipy.sparse.csr_matrix:
    """Similarity over the floor of every kept pair above it, once, [A, B]."""
    num_a, num_b = len(candidates.index_AN), len(candidates.index_BN)
    a_of_A = np.repeat(np.arange(num_a), candidates.index_AN.shape[1])
    b_of_B = np.repeat(np.arange(num_b), candidates.index_BN.shape[1])
    a = np.concatenate([a_of_A, candidates.index_BN.reshape(-1)])
    b = np.concatenate([candidates.index_AN.reshape(-1), b_of_B])
    value = np.concatenate([candidates.value_AN.reshape(-1), candidates.value_BN.reshape(-1)])
    above = value > candidates.floor
    flat, first = np.unique(a[above] * num_b + b[above], return_index=True)
    gain = value[above][first].astype(np.float64) - candidates.floor
    return scipy.sparse.csr_matrix((gain, (flat // num_b, flat % num_b)), shape=(num_a, num_b))


def _groups(best: Ints, value: Floats, threshold: float) -> dict[int, list[int]]:
    """Target -> the two or more features whose best match it is at the threshold or above, by target."""
    members = np.flatnonzero(value >= threshold)
    if not len(members):
        return {}
    order = members[np.argsort(best[members], kind="stable")]
    targets, starts = np.unique(best[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(target): part.tolist() for target, part in zip(targets, parts, strict=True) if len(part) > 1}


def _sample(usable: npt.NDArray[np.bool_], most: int, rng: np.random.Generator) -> Ints:
    features = np.flatnonzero(usable)
    return features if len(features) <= most else np.sort(rng.choice(features, most, replace=False))


def _empty(features: int, keep: int) -> tuple[Tensor, Tensor]:
    return torch.full((features, keep), ABSENT), torch.full((features, keep), -1, dtype=torch.int64)


def _nan_if_absent(value: Floats) -> Floats:
    return np.where(value <= ABSENT, np.float32(np.nan), value).astype(np.float32)
