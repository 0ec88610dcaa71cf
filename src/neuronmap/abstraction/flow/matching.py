"""How alike the features of two SAEs are, by decoder direction and by when they fire, and how alike chance makes them.

Shapes: N shared rows, D width of the activation, A features of the earlier SAE, B of the later one, n features of a chunk. Chunks of the
A x B matrices are looked at and dropped; none is ever whole.

    cosine       w_a . w_b / |w_a| |w_b|                                   decoder rows (arXiv 2502.03032)
    both         n_ab = sum_n [f_a > 0] [f_b > 0]
    jaccard      n_ab / (n_a + n_b - n_ab)                                 P(b|a) = n_ab / n_a, P(a|b) = n_ab / n_b (arXiv 2410.08869)
    correlation  Pearson's, of f_a and f_b over all N rows, silent ones included

Sums over rows are in float64. What chance gives: for directions, one decoder turned by a random rotation (the best of m cosines then lies
near sqrt(2 ln m / D)); for firing, the rows of one side moved by whole contexts around the text, so that rates, runs and what depends on
the place in a context stay. The null is the 99th percentile of a feature's best match, the larger of the two directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.abstraction.flow.codes import SharedCodes

__all__ = [
    "LEAST_FIRINGS",
    "MOST_DENSITY",
    "NULL_QUANTILE",
    "Best",
    "Coactivation",
    "best_by_correlation",
    "best_by_cosine",
    "correlation_null",
    "cosine_null",
    "overlap",
    "usable_features",
]

LEAST_FIRINGS = 20
"""Features that fire at fewer rows are not tested: two that fired once, at the same row, would agree perfectly."""
MOST_DENSITY = 0.10
"""Features that fire at a larger share of the rows are not tested: they go with everything."""
NULL_QUANTILE = 0.99
NULL_DRAWS = 5
"""Random rotations, and shifts by whole contexts."""

_NULL_FEATURES = 2048  # features of each side that a draw looks at
_CHUNK_NUMBERS = 1 << 22  # 32 MiB of float64

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Best:
    """The best match of every feature, both ways. Of equals the first.

    Attributes:
        index_A: int64, feature of the later SAE.
        value_A: float32, its similarity.
        both_A: int64, rows where both are active; zeros where it was not asked for.
        index_B, value_B, both_B: the same for the later SAE's features.
    """

    index_A: Ints
    value_A: Floats
    both_A: Ints
    index_B: Ints
    value_B: Floats
    both_B: Ints

    @property
    def mutual_A(self) -> npt.NDArray[np.bool_]:  # noqa: N802 (shape suffix)
        """bool [A], whether the best match's best match is the feature itself."""
        mutual_A: npt.NDArray[np.bool_] = self.index_B[self.index_A] == np.arange(len(self.index_A))
        return mutual_A


class Coactivation:
    """Firing of two SAEs at the same rows, ready for products.

    Args:
        a_NA: activations of the earlier SAE, sparse, not negative.
        b_NB: of the later one.
    """

    def __init__(self, a_NA: scipy.sparse.csr_matrix, b_NB: scipy.sparse.csr_matrix) -> None:
        self.rows = a_NA.shape[0]
        self.by_feature_AN = a_NA.T.tocsr().astype(np.float64)
        self.b_NB = b_NB.astype(np.float64)
        self._fires_NB = scipy.sparse.csr_matrix((np.ones(b_NB.nnz), b_NB.indices, b_NB.indptr), shape=b_NB.shape)
        (self.firings_A, self._sum_A, self._spread_A) = _moments(a_NA)
        (self.firings_B, self._sum_B, self._spread_B) = _moments(b_NB)

    def correlation(self, features_n: Ints) -> npt.NDArray[np.float64]:
        """float64 [n, B]: correlation of some features of the earlier SAE with all of the later; 0 for features that never change.

        Costs one multiplication for each pair of firings at the same row.
        """
        product_nB = (self.by_feature_AN[features_n] @ self.b_NB).toarray()
        product_nB *= self.rows
        product_nB -= self._sum_A[features_n, None] * self._sum_B
        product_nB /= np.maximum(self._spread_A[features_n, None] * self._spread_B, 1e-300)
        product_nB[self._spread_A[features_n] == 0.0] = 0.0
        product_nB[:, self._spread_B == 0.0] = 0.0
        correlation_nB: npt.NDArray[np.float64] = np.clip(product_nB, -1.0, 1.0, out=product_nB)
        return correlation_nB

    def both(self, features_n: Ints) -> npt.NDArray[np.float64]:
        """float64 [n, B]: rows where both are active."""
        fires_nN = self.by_feature_AN[features_n]
        fires_nN = scipy.sparse.csr_matrix(
            (np.ones(fires_nN.nnz), fires_nN.indices, fires_nN.indptr), shape=fires_nN.shape
        )
        both_nB: npt.NDArray[np.float64] = (fires_nN @ self._fires_NB).toarray()
        return both_nB

    def chunks(self, features: Ints) -> Iterator[Ints]:
        """Features in portions whose products with all of the later SAE fit into 32 MiB."""
        size = max(1, _CHUNK_NUMBERS // max(1, self.b_NB.shape[1]))
        for start in range(0, len(features), size):
            yield features[start : start + size]


def usable_features(
    code_NF: scipy.sparse.csr_matrix, least_firings: int = LEAST_FIRINGS, most_density: float = MOST_DENSITY
) -> Ints:
    """int64, ascending: features that fire often enough to be tested, and not everywhere."""
    firings_F = np.bincount(code_NF.indices, minlength=code_NF.shape[1])
    return np.flatnonzero((firings_F >= least_firings) & (firings_F <= most_density * code_NF.shape[0]))


def overlap(both: int, firings_a: int, firings_b: int) -> tuple[float, float, float]:
    """Jaccard index, P(b|a) and P(a|b) from counts of rows; 0 where there is nothing to divide by."""
    either = firings_a + firings_b - both
    return both / max(1, either), both / max(1, firings_a), both / max(1, firings_b)


def best_by_cosine(W_A_AD: Tensor, W_B_BD: Tensor) -> Best:
    """The closest decoder directions. Costs 2 A B D operations.

    Args:
        W_A_AD: float32 decoder rows of the earlier SAE, of any norm; a row of length zero has cosine 0 with all.
        W_B_BD: of the later one; at least one row each.
    """
    a_AD, b_BD = _unit(W_A_AD), _unit(W_B_BD)
    size = max(1, _CHUNK_NUMBERS // len(b_BD))
    running = _Running(len(a_AD), len(b_BD))
    for start in range(0, len(a_AD), size):
        cosine_nB = (a_AD[start : start + size] @ b_BD.T).clamp_(-1.0, 1.0).numpy()
        running.add(np.arange(start, start + len(cosine_nB)), cosine_nB, None)
    return running.best


def best_by_correlation(pair: Coactivation) -> Best:
    """The features that fire most alike, with the rows where both do; at least one feature on either side."""
    running = _Running(len(pair.firings_A), len(pair.firings_B))
    for features_n in pair.chunks(np.arange(len(pair.firings_A))):
        running.add(features_n, pair.correlation(features_n).astype(np.float32), pair.both(features_n))
    return running.best


def cosine_null(W_A_AD: Tensor, W_B_BD: Tensor, *, seed: int, draws: int = NULL_DRAWS) -> float:
    """99th percentile of a feature's best cosine with a randomly rotated decoder.

    The rotation is uniform (QR of a Gaussian matrix with the signs of R's diagonal, arXiv math-ph/0609050). Angles within a decoder stay.

    Args:
        W_A_AD, W_B_BD: as for :func:`best_by_cosine`.
        seed: decides everything.
        draws: rotations.
    """
    a_AD, b_BD = _unit(W_A_AD), _unit(W_B_BD)
    best_a: list[npt.NDArray[np.float64]] = []
    best_b: list[npt.NDArray[np.float64]] = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, 1, draw])
        gaussian_DD = torch.from_numpy(rng.standard_normal((a_AD.shape[1],) * 2).astype(np.float32))
        q_DD, r_DD = torch.linalg.qr(gaussian_DD)
        turned_BD = b_BD @ (q_DD * torch.sign(torch.diagonal(r_DD)))
        best_a.append(_best_cosine_of(a_AD[torch.from_numpy(_sample(len(a_AD), rng))], turned_BD))
        best_b.append(_best_cosine_of(turned_BD[torch.from_numpy(_sample(len(b_BD), rng))], a_AD))
    return _threshold(best_a, best_b)


def correlation_null(
    codes: SharedCodes,
    a_NA: scipy.sparse.csr_matrix,
    b_NB: scipy.sparse.csr_matrix,
    *,
    seed: int,
    draws: int = NULL_DRAWS,
) -> float:
    """99th percentile of a feature's best correlation after one side's rows are shifted by whole contexts.

    Args:
        codes: says which context and place each row has; at least two contexts.
        a_NA, b_NB: activations of the features that are tested, on those rows; at least one each.
        seed: decides everything.
        draws: shifts, each by an eighth to seven eighths of the text; fewer where there are not as many.
    """
    rng = np.random.default_rng([seed, 2])
    low = max(1, codes.contexts // 8)
    shifts = np.arange(low, max(low + 1, codes.contexts - low + 1))
    best_a: list[npt.NDArray[np.float64]] = []
    best_b: list[npt.NDArray[np.float64]] = []
    for by in np.sort(rng.permutation(shifts)[:draws]):
        rows_n, other_n = codes.shifted(int(by))
        if not len(rows_n):
            continue
        left, right = a_NA[rows_n], b_NB[other_n]
        for first, second, best in ((left, right, best_a), (right, left, best_b)):
            pair = Coactivation(first, second)
            for features_n in pair.chunks(_sample(first.shape[1], rng)):
                best.append(pair.correlation(features_n).max(1))
    return _threshold(best_a, best_b)


class _Running:
    """Best matches both ways, from chunks of the matrix in the order of its rows."""

    def __init__(self, num_a: int, num_b: int) -> None:
        index_A, index_B = np.zeros(num_a, np.int64), np.zeros(num_b, np.int64)
        both_A, both_B = np.zeros(num_a, np.int64), np.zeros(num_b, np.int64)
        self.best = Best(index_A, np.zeros(num_a, np.float32), both_A, index_B, np.full(num_b, -2, np.float32), both_B)

    def add(self, features_n: Ints, similar_nB: Floats, both_nB: npt.NDArray[np.float64] | None) -> None:
        best = self.best
        index_n, place_B = similar_nB.argmax(1), similar_nB.argmax(0)
        every_B, every_n = np.arange(similar_nB.shape[1]), np.arange(len(features_n))
        best.index_A[features_n] = index_n
        best.value_A[features_n] = similar_nB[every_n, index_n]
        value_B = similar_nB[place_B, every_B]
        better_b = np.flatnonzero(value_B > best.value_B)
        best.index_B[better_b] = features_n[place_B[better_b]]
        best.value_B[better_b] = value_B[better_b]
        if both_nB is not None:
            best.both_A[features_n] = both_nB[every_n, index_n]
            best.both_B[better_b] = both_nB[place_B[better_b], better_b]


def _moments(
    code_NF: scipy.sparse.csr_matrix,
) -> tuple[Ints, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Firings, sum of the activations, and N times their standard deviation (0 within rounding of it), by feature."""
    values, width = code_NF.data.astype(np.float64), code_NF.shape[1]
    firings_F: Ints = np.bincount(code_NF.indices, minlength=width).astype(np.int64)
    sum_F: npt.NDArray[np.float64] = np.bincount(code_NF.indices, values, minlength=width).astype(np.float64)
    square_F = np.bincount(code_NF.indices, values * values, minlength=width)
    variance_F = code_NF.shape[0] * square_F - sum_F**2
    spread_F: npt.NDArray[np.float64] = np.sqrt(
        np.where(variance_F > 1e-12 * code_NF.shape[0] * square_F, variance_F, 0.0)
    )
    return firings_F, sum_F, spread_F


def _unit(W_FD: Tensor) -> Tensor:
    W_FD = W_FD.detach().to("cpu", torch.float32)
    unit_FD: Tensor = W_FD / torch.linalg.vector_norm(W_FD, dim=1, keepdim=True).clamp_min(1e-30)
    return unit_FD


def _best_cosine_of(some_nD: Tensor, all_FD: Tensor) -> npt.NDArray[np.float64]:
    size = max(1, _CHUNK_NUMBERS // len(all_FD))
    parts = [(some_nD[start : start + size] @ all_FD.T).amax(1) for start in range(0, len(some_nD), size)]
    return torch.cat(parts).double().numpy()


def _sample(features: int, rng: np.random.Generator) -> Ints:
    if features <= _NULL_FEATURES:
        return np.arange(features)
    return np.sort(rng.choice(features, _NULL_FEATURES, replace=False))


def _threshold(best_a: list[npt.NDArray[np.float64]], best_b: list[npt.NDArray[np.float64]]) -> float:
    """The larger of the two directions' percentiles; 1 where there was nothing to draw from, so that nothing passes."""
    if not best_a or not best_b:
        return 1.0
    percentiles = [np.quantile(np.concatenate(best), NULL_QUANTILE, method="higher") for best in (best_a, best_b)]
    return float(np.clip(max(percentiles), 0.0, 1.0))
