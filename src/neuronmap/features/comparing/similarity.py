"""How alike two features are: by decoder direction, and by when they fire. Blocks of the F_a x F_b matrix, never the whole.

Shapes: A features of the first SAE, B of the second, D width of the activation, P aligned places of the text, n features asked for.

    decoder cosine   d_a . d_b / |d_a| |d_b|
    correlation      Pearson's, of the activations of a and b over the P places (most are zero for both)
    cosine           of the same two vectors, without centring
    jaccard          places where both fire over places where either does

Places may have weights w_p (how much text a place stands for); every sum over places is then weighted. Sums are in float64.

What chance gives. For directions: the second decoder's coordinates along its own principal axes, each shuffled over the features
(``resampled``: spectrum and heavy tails stay, a feature's own combination goes), or the whole decoder turned by a random rotation
(``rotated``: only the angles among its own features stay; blind to directions that both SAEs crowd into because the data does).
For firing: the second SAE's places shifted around the circle, so that rates and runs of firing stay and only the timing is lost.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.errors import InputError

__all__ = ["ABSENT", "DecoderCosine", "DirectionNull", "FiringMeasure", "FiringSimilarity", "Similarity"]

ABSENT = -2.0
"""Stands where a feature cannot be compared; below every similarity."""

DirectionNull = Literal["resampled", "rotated"]
FiringMeasure = Literal["correlation", "cosine", "jaccard"]

_LEAST_PLACES = 64


class Similarity(Protocol):
    """A measure between all features of two SAEs.

    Attributes:
        measure: its name in words.
        usable_A: bool [A], features that can be compared at all.
        usable_B: bool [B], likewise.
        block_cost: numbers held for each pair of a block, which limits its size.
    """

    measure: str
    usable_A: npt.NDArray[np.bool_]
    usable_B: npt.NDArray[np.bool_]
    block_cost: int

    def block(self, features_n: npt.NDArray[np.int64]) -> Tensor:
        """float32 [n, B]: the similarity of some features of the first SAE to all of the second; ABSENT where there is none."""

    def pairs(self, a_n: npt.NDArray[np.int64], b_n: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """float32 [n]: the similarity of feature a_n[i] to b_n[i]; NaN where there is none."""

    def swapped(self) -> Similarity:
        """The same with the SAEs in the other order."""

    def by_chance(self, rng: np.random.Generator) -> Similarity:
        """The same measure where there is nothing to find."""


class DecoderCosine:
    """Cosine of decoder rows.

    Args:
        W_a_AD: float32 decoder rows of the first SAE, of any norm.
        W_b_BD: of the second, same width.
        null: how :meth:`by_chance` makes unrelated directions.
    """

    measure = "decoder cosine"
    block_cost = 1

    def __init__(self, W_a_AD: Tensor, W_b_BD: Tensor, null: DirectionNull = "resampled") -> None:
        self._null = null
        norm_A1, norm_B1 = (torch.linalg.vector_norm(W, dim=1, keepdim=True) for W in (W_a_AD, W_b_BD))
        self._a_AD, self._b_BD = W_a_AD / norm_A1.clamp_min(1e-30), W_b_BD / norm_B1.clamp_min(1e-30)
        self.usable_A, self.usable_B = (norm_A1 > 0).view(-1).cpu().numpy(), (norm_B1 > 0).view(-1).cpu().numpy()

    @classmethod
    def of(cls, a: Any, b: Any, null: DirectionNull) -> Self:
        """Of two SAEs (anything with ``W_dec`` [F, D])."""
        W_a_AD, W_b_BD = (sae.W_dec.detach().to("cpu", torch.float32) for sae in (a, b))
        return cls(W_a_AD, W_b_BD, null)

    def block(self, features_n: npt.NDArray[np.int64]) -> Tensor:
        """float32 [n, B]; costs 2 n B D operations."""
        cosine_nB: Tensor = self._a_AD[torch.from_numpy(features_n)] @ self._b_BD.T
        cosine_nB.clamp_(-1.0, 1.0)
        if not self.usable_B.all():
            cosine_nB[:, torch.from_numpy(~self.usable_B)] = ABSENT
        return cosine_nB

    def pairs(self, a_n: npt.NDArray[np.int64], b_n: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """float32 [n]; NaN for directions of length zero."""
        a_nD, b_nD = self._a_AD[torch.from_numpy(a_n)], self._b_BD[torch.from_numpy(b_n)]
        cosine_n: npt.NDArray[np.float32] = torch.linalg.vecdot(a_nD, b_nD).clamp_(-1.0, 1.0).numpy()
        cosine_n[~(self.usable_A[a_n] & self.usable_B[b_n])] = np.nan
        return cosine_n

    def swapped(self) -> DecoderCosine:
        """B against A."""
        return DecoderCosine(self._b_BD, self._a_AD, self._null)

    def by_chance(self, rng: np.random.Generator) -> DecoderCosine:
        """A against directions that are distributed as B's and have nothing to do with them."""
        if self._null == "rotated":
            gaussian_DD = torch.from_numpy(rng.standard_normal((self._b_BD.shape[1],) * 2).astype(np.float32))
            q_DD, r_DD = torch.linalg.qr(gaussian_DD)
            q_DD *= torch.sign(torch.diagonal(r_DD))  # uniform over all rotations (arXiv math-ph/0609050)
            return DecoderCosine(self._a_AD, self._b_BD @ q_DD, self._null)
        axes_DD, coordinates_BD = self._on_axes
        return DecoderCosine(self._a_AD @ axes_DD, torch.from_numpy(rng.permuted(coordinates_BD, axis=0)), self._null)

    @cached_property
    def _on_axes(self) -> tuple[Tensor, npt.NDArray[np.float32]]:
        """Principal axes of B's directions about zero, as columns, and B's coordinates on them.

        Unit length ties coordinates to one another, which shuffling undoes and renormalising does not restore: unrelated
        directions that crowd into few dimensions matched 1.8 times as often as such a null allowed. So each direction is first given
        the length it would have had as a draw of a Gaussian with B's second moments (one step of Tyler's estimator, 1987).
        """
        b_BD = self._b_BD[torch.from_numpy(self.usable_B)].double()
        features, width = b_BD.shape
        moments_DD = b_BD.T @ b_BD / features
        moments_DD.diagonal().add_(1e-6 * moments_DD.diagonal().mean())  # fewer features than dimensions
        white_DB = torch.linalg.solve_triangular(torch.linalg.cholesky(moments_DD), b_BD.T, upper=False)
        b_BD = b_BD * (width**0.5 / torch.linalg.vector_norm(white_DB, dim=0).clamp_min(1e-30)).unsqueeze(1)
        axes_DD = torch.linalg.eigh(b_BD.T @ b_BD).eigenvectors
        coordinates_BD: npt.NDArray[np.float32] = (b_BD @ axes_DD).float().numpy()
        return axes_DD.float(), coordinates_BD


class FiringSimilarity:
    """How alike two features fire, over aligned places of the text.

    Args:
        a_PA: sparse activations of the first SAE at each place, CSR.
        b_PB: of the second.
        weight_P: float64, how much each place counts; None for all alike.
        measure: ``correlation``, ``cosine`` or ``jaccard``.
        least_firings: features that fire at fewer places are not compared: two that fired once, at the same place, would
            agree perfectly.

    Raises:
        InputError: if there are fewer than 64 places.
    """

    block_cost = 4

    def __init__(
        self,
        a_PA: scipy.sparse.csr_matrix,
        b_PB: scipy.sparse.csr_matrix,
        weight_P: npt.NDArray[np.float64] | None = None,
        *,
        measure: FiringMeasure = "correlation",
        least_firings: int = 10,
    ) -> None:
        if a_PA.shape[0] < _LEAST_PLACES:
            raise InputError(
                f"Both SAEs have activations at {a_PA.shape[0]:,} common places; at least {_LEAST_PLACES} are needed to compare firing.",
                hint="Give more rows, or rows of the same text.",
            )
        self._kind, self._least, self._weight_P = measure, least_firings, weight_P
        self.measure = {"jaccard": "Jaccard index of firing"}.get(measure, f"activation {measure}")
        self.a_PA, self.b_PB = a_PA, b_PB
        self.firings_A, self.firings_B = (np.bincount(m.indices, minlength=m.shape[1]) for m in (a_PA, b_PB))
        self._total = float(a_PA.shape[0] if weight_P is None else weight_P.sum())
        (self._sum_A, self._square_A), (self._sum_B, self._square_B) = self._moments(a_PA), self._moments(b_PB)
        self.usable_A = (self.firings_A >= least_firings) & (self._spread(self._sum_A, self._square_A) > 0)
        self.usable_B = (self.firings_B >= least_firings) & (self._spread(self._sum_B, self._square_B) > 0)

    @cached_property
    def by_feature_AP(self) -> scipy.sparse.csr_matrix:  # noqa: N802 (shape suffix)
        """The first SAE's activations by feature, places ascending."""
        return self.a_PA.T.tocsr()

    @cached_property
    def by_feature_BP(self) -> scipy.sparse.csr_matrix:  # noqa: N802 (shape suffix)
        """The second SAE's."""
        return self.b_PB.T.tocsr()

    def block(self, features_n: npt.NDArray[np.int64]) -> Tensor:
        """float32 [n, B]; costs one multiplication for each pair of entries at a common place."""
        left_nP = self.by_feature_AP[features_n]
        values = self._values(left_nP)
        if self._weight_P is not None:
            values = values * self._weight_P[left_nP.indices]
        left_nP = scipy.sparse.csr_matrix((values, left_nP.indices, left_nP.indptr), shape=left_nP.shape)
        product_nB = (left_nP @ self._right_PB).toarray()
        similar_nB = self._normalised(product_nB, features_n[:, None], slice(None))
        similar_nB[:, ~self.usable_B] = ABSENT
        return torch.from_numpy(similar_nB.astype(np.float32))

    def pairs(self, a_n: npt.NDArray[np.int64], b_n: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """float32 [n]; NaN where either feature fires at too few places."""
        left_nP, right_nP = self.by_feature_AP[a_n], self.by_feature_BP[b_n]
        left_nP = scipy.sparse.csr_matrix((self._values(left_nP), left_nP.indices, left_nP.indptr), left_nP.shape)
        right_nP = scipy.sparse.csr_matrix((self._values(right_nP), right_nP.indices, right_nP.indptr), right_nP.shape)
        both_nP = left_nP.multiply(right_nP).tocsr()
        weights_P = np.ones(both_nP.shape[1]) if self._weight_P is None else self._weight_P
        similar_n: npt.NDArray[np.float32] = self._normalised(both_nP @ weights_P, a_n, b_n).astype(np.float32)
        similar_n[~(self.usable_A[a_n] & self.usable_B[b_n])] = np.nan
        return similar_n

    def swapped(self) -> FiringSimilarity:
        """B against A; nothing is counted again."""
        other = FiringSimilarity.__new__(FiringSimilarity)
        other._kind, other._least, other._weight_P = self._kind, self._least, self._weight_P
        other.measure, other._total = self.measure, self._total
        other.a_PA, other.b_PB = self.b_PB, self.a_PA
        other.firings_A, other.firings_B = self.firings_B, self.firings_A
        other._sum_A, other._sum_B = self._sum_B, self._sum_A
        other._square_A, other._square_B = self._square_B, self._square_A
        other.usable_A, other.usable_B = self.usable_B, self.usable_A
        return other

    def by_chance(self, rng: np.random.Generator) -> FiringSimilarity:
        """The second SAE's places moved on by a random eighth to seven eighths of the text, around the end."""
        places = self.a_PA.shape[0]
        shift = int(rng.integers(places // 8, places - places // 8))
        return FiringSimilarity(
            self.a_PA,
            self.b_PB[np.roll(np.arange(places), shift)],
            self._weight_P,
            measure=self._kind,
            least_firings=self._least,
        )

    def coverage(self, one: int, many: list[int], *, of_b: bool = False) -> tuple[float, float]:
        """How well the firing of one feature is that of several of the other SAE.

        Args:
            one: a feature of the first SAE (of the second if ``of_b``).
            many: features of the other.

        Returns:
            Share of the one's places where any of the many fires, and share of the places of any of the many where the one
            fires; NaN where there is no such place.
        """
        by_one, by_many = (self.by_feature_BP, self.by_feature_AP) if of_b else (self.by_feature_AP, self.by_feature_BP)
        own = by_one.indices[by_one.indptr[one] : by_one.indptr[one + 1]]
        union = np.unique(by_many[many].indices)
        common = np.intersect1d(own, union, assume_unique=True)
        own_size, union_size, common_size = (self._weighed(places) for places in (own, union, common))
        return (
            common_size / own_size if own_size else float("nan"),
            common_size / union_size if union_size else float("nan"),
        )

    @cached_property
    def _right_PB(self) -> scipy.sparse.csr_matrix:  # noqa: N802 (shape suffix)
        return scipy.sparse.csr_matrix((self._values(self.b_PB), self.b_PB.indices, self.b_PB.indptr), self.b_PB.shape)

    def _values(self, matrix: scipy.sparse.csr_matrix) -> npt.NDArray[np.float64]:
        """What is summed of each entry: 1 for Jaccard, else the activation."""
        if self._kind == "jaccard":
            return np.ones(matrix.nnz)
        values: npt.NDArray[np.float64] = matrix.data.astype(np.float64)
        return values

    def _moments(self, matrix: scipy.sparse.csr_matrix) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weighted sums of the values and of their squares, by feature."""
        values = self._values(matrix)
        weighted = values if self._weight_P is None else values * np.repeat(self._weight_P, np.diff(matrix.indptr))
        width = matrix.shape[1]
        total: npt.NDArray[np.float64] = np.bincount(matrix.indices, weighted, minlength=width).astype(np.float64)
        square: npt.NDArray[np.float64] = np.bincount(matrix.indices, weighted * values, minlength=width).astype(
            np.float64
        )
        return total, square

    def _spread(self, total: npt.NDArray[np.float64], square: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What a similarity is divided by, squared, one factor a side; what is within rounding of zero is zero."""
        if self._kind != "correlation":
            return square
        spread = self._total * square - total**2
        return np.where(spread > 1e-12 * self._total * square, spread, 0.0)

    def _normalised(self, product: Any, a: Any, b: Any) -> npt.NDArray[np.float64]:
        sum_a, sum_b = self._sum_A[a], self._sum_B[b]
        if self._kind == "jaccard":
            jaccard: npt.NDArray[np.float64] = product / np.maximum(sum_a + sum_b - product, 1e-300)
            return jaccard
        scale = np.sqrt(self._spread(sum_a, self._square_A[a])) * np.sqrt(self._spread(sum_b, self._square_B[b]))
        if self._kind == "correlation":
            product = self._total * product - sum_a * sum_b
        similar: npt.NDArray[np.float64] = np.clip(product / np.maximum(scale, 1e-300), -1.0, 1.0)
        return similar

    def _weighed(self, places: npt.NDArray[Any]) -> float:
        return float(len(places) if self._weight_P is None else self._weight_P[places].sum())
