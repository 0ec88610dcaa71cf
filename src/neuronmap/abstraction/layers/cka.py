"""Debiased linear CKA of many pairs of layers at once, in batches of rows, with exact leave-one-out values.

For centred X [n, W] and Y [n, V], with k_i = |x_i|^2 and q_i = |y_i|^2, the unbiased estimate of |cov(X, Y)|_F^2 (Song et al. 2012) is

    HSIC1(X, Y) = [ |X'Y|_F^2 - n/(n-2) k.q + (sum k)(sum q) / ((n-1)(n-2)) ] / (n(n-3))

and CKA = HSIC1(X, Y) / sqrt(HSIC1(X, X) HSIC1(Y, Y)). The biased estimate is near 0.5 for independent Gaussians of n = 500 and W = 576;
this one is near 0. The same in Gram matrices K = XX', L = YY' without their diagonals, p = K1, q = L1:

    HSIC1(X, Y) = [ sum K*L + (sum p)(sum q) / ((n-1)(n-2)) - 2/(n-2) p.q ] / (n(n-3))

so that one product of stacked Gram matrices gives every pair of layers, without their cross-covariances (L^2 W^2 numbers). Rows may come in
batches; numerators and denominators are summed over them before dividing (Nguyen et al., arXiv 2010.15327). One batch is the exact
estimate on all rows.

Leaving a row out changes only sums that are in hand, so the jackknife value of each row costs no more than the estimate. Standard errors
and resamples use it: CKA + (1/N) sum_i (m_i - 1) v_i for a draw with multiplicities m, where v_i = (N-1)(CKA - CKA without i). Drawing rows
themselves would pair each row with its own copies, which is the very bias that was removed. Where CKA is near 0 the error is of higher
order, and this one is too small.

Legend: L layers of X, M of Y, n rows of a batch, N all rows, W, V widths, R resamples, C contexts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronmap.errors import InputError

__all__ = ["DebiasedCKA", "PairwiseCKA", "cka", "grams", "hsic1"]

_LEAST_ROWS = 5
"""Of a batch: one more than HSIC1 itself needs, for leaving one out."""


def hsic1(x_NW: Tensor, y_NV: Tensor) -> float:
    """The feature formula above, in float64; costs N W V. For checking, and for two matrices with many rows.

    Raises:
        InputError: if there are fewer than 4 rows, or not the same rows.
    """
    n = _checked_rows(x_NW.shape[0], y_NV.shape[0], least=4)
    x_NW, y_NV = (z - z.mean(0) for z in (x_NW.double(), y_NV.double()))
    k_N, q_N = x_NW.square().sum(1), y_NV.square().sum(1)
    cross = (x_NW.T @ y_NV).square().sum()
    total = cross - n / (n - 2) * (k_N @ q_N) + k_N.sum() * q_N.sum() / ((n - 1) * (n - 2))
    return float(total / (n * (n - 3)))


def cka(x_NW: Tensor, y_NV: Tensor) -> float | None:
    """Debiased linear CKA of two matrices by the feature formula; None where one does not vary.

    Args:
        x_NW, y_NV: activations on the same rows; widths may differ.

    Returns:
        At most about 1; may be slightly below 0 or above 1, as an unbiased estimate is.
    """
    own = hsic1(x_NW, x_NW), hsic1(y_NV, y_NV)
    return None if min(own) <= 0 else hsic1(x_NW, y_NV) / (own[0] * own[1]) ** 0.5


@dataclass(frozen=True, eq=False)
class PairwiseCKA:
    """What :class:`DebiasedCKA` found.

    Attributes:
        value_LM: float64 [L, M]; NaN where a layer does not vary.
        jackknife_NLM: float32 [N, L, M], v_i of the module's docstring.
        own_L: float64 [L], HSIC1(X, X): an unbiased estimate of the sum of the squared eigenvalues of X's covariance.
    """

    value_LM: Tensor
    jackknife_NLM: Tensor
    own_L: Tensor

    def resampled(self, weights_RC: Tensor, context_N: Tensor) -> Tensor:
        """The estimate in resamples of whole contexts.

        Args:
            weights_RC: float64 [R, C], how often each context is drawn.
            context_N: int64 [N], the context of each row, 0 to C - 1.

        Returns:
            float64 [R, L, M].
        """
        rows, pairs = self.jackknife_NLM.shape[0], self.value_LM.numel()
        by_context_CP = torch.zeros(weights_RC.shape[1], pairs, dtype=torch.float64)
        by_context_CP.index_add_(0, context_N, self.jackknife_NLM.reshape(rows, pairs).double())
        change_RP = (weights_RC - 1) @ by_context_CP / rows
        return self.value_LM + change_RP.view(-1, *self.value_LM.shape)


@dataclass(frozen=True)
class _Sums:
    """HSIC1 of a batch, and how much of it goes when one row goes."""

    value: Tensor
    without_n: Tensor

    @classmethod
    def of(cls, both_n: Tensor, p: Tensor, q: Tensor, kq_n: Tensor, lp_n: Tensor, rows: int) -> _Sums:
        """From sums over the rows of Gram matrices without diagonals; trailing dimensions are pairs of layers.

        Args:
            both_n: sum_j K_ij L_ij, [n, ...].
            p, q: sum_j K_ij and sum_j L_ij, [n, ...].
            kq_n: sum_j K_ij q_j.
            lp_n: sum_j L_ij p_j.
            rows: n.
        """
        pq_n = p * q
        value = _hsic1(both_n.sum(0), p.sum(0), q.sum(0), pq_n.sum(0), rows)
        # without row i each other row j loses K_ij of p_j and L_ij of q_j
        rest_n = pq_n.sum(0) - pq_n - kq_n - lp_n + both_n
        without_n = _hsic1(both_n.sum(0) - 2 * both_n, p.sum(0) - 2 * p, q.sum(0) - 2 * q, rest_n, rows - 1)
        return cls(value, without_n)


class DebiasedCKA:
    """Adds up batches of rows of all layers.

    Memory of a batch: 4 (L + M) n^2 bytes for Gram matrices and some 30 n L M bytes for the leave-one-out values.

    Example:
        >>> x_LNW = torch.randn(3, 64, 16)
        >>> pairs = DebiasedCKA()
        >>> for batch_LnW in x_LNW.split(32, dim=1):
        ...     pairs.add(batch_LnW)
        >>> pairs.result().value_LM.shape
        torch.Size([3, 3])
    """

    def __init__(self) -> None:
        self._cross: list[_Sums] = []
        self._own_x: list[_Sums] = []
        self._own_y: list[_Sums] = []

    def add(self, x_LnW: Tensor, y_MnV: Tensor | None = None) -> None:
        """One batch: the same rows of every layer of X, and of Y if that is another model.

        All batches must be on one scale (standardise with the statistics of all rows). They count alike, so give them about equal sizes;
        a few hundred rows each are good, fewer than 5 are refused.

        Raises:
            InputError: too few rows, or X and Y have different rows.
        """
        self.add_grams(grams(x_LnW), None if y_MnV is None else grams(y_MnV))

    def add_grams(self, k_Lnn: Tensor, l_Mnn: Tensor | None = None) -> None:
        """As :meth:`add`, from :func:`grams`."""
        n = _checked_rows(k_Lnn.shape[1], (k_Lnn if l_Mnn is None else l_Mnn).shape[1], least=_LEAST_ROWS)
        other_Mnn = k_Lnn if l_Mnn is None else l_Mnn
        p_nL, q_nM = (g.sum(2, dtype=torch.float64).T for g in (k_Lnn, other_Mnn))
        both_nLM = torch.bmm(k_Lnn.transpose(0, 1), other_Mnn.permute(1, 2, 0)).double()
        kq_nLM = (k_Lnn @ q_nM.float()).transpose(0, 1).double()
        lp_nLM = (other_Mnn @ p_nL.float()).permute(1, 2, 0).double()
        self._cross.append(_Sums.of(both_nLM, p_nL[:, :, None], q_nM[:, None, :], kq_nLM, lp_nLM, n))
        self._own_x.append(_own(k_Lnn, p_nL))
        self._own_y.append(self._own_x[-1] if l_Mnn is None else _own(other_Mnn, q_nM))

    def result(self) -> PairwiseCKA:
        """CKA of every pair.

        Raises:
            InputError: nothing was added.
        """
        if not self._cross:
            raise InputError("CKA of no rows: add at least one batch.")
        rows = sum(part.without_n.shape[0] for part in self._cross)
        cross_LM, own_L, own_M = (_total(parts) for parts in (self._cross, self._own_x, self._own_y))
        value_LM = _quotient(cross_LM, own_L[:, None], own_M[None, :])
        jackknife = [
            _jackknife(value_LM, (cross_LM, own_L, own_M), parts, rows)
            for parts in zip(self._cross, self._own_x, self._own_y, strict=True)
        ]
        return PairwiseCKA(value_LM, torch.cat(jackknife), own_L / len(self._cross))


def grams(x_LnW: Iterable[Tensor]) -> Tensor:
    """float32 [L, n, n]: products of the centred rows of each layer [n, W], zero on the diagonal."""
    return torch.stack([_gram(x_nW.float()) for x_nW in x_LnW])


def _gram(x_nW: Tensor) -> Tensor:
    x_nW = x_nW - x_nW.mean(0, dtype=torch.float64).float()
    return (x_nW @ x_nW.T).fill_diagonal_(0.0)


def _own(k_Lnn: Tensor, p_nL: Tensor) -> _Sums:
    both_nL = k_Lnn.square().sum(2, dtype=torch.float64).T
    kp_nL = torch.bmm(k_Lnn, p_nL.float().T.unsqueeze(2)).squeeze(2).T.double()
    return _Sums.of(both_nL, p_nL, p_nL, kp_nL, kp_nL, k_Lnn.shape[1])


def _hsic1(both: Tensor, p: Tensor, q: Tensor, pq: Tensor, n: int) -> Tensor:
    return (both + p * q / ((n - 1) * (n - 2)) - 2 / (n - 2) * pq) / (n * (n - 3))


def _total(parts: list[_Sums]) -> Tensor:
    return torch.stack([part.value for part in parts]).sum(0)


def _jackknife(
    value_LM: Tensor, totals: tuple[Tensor, Tensor, Tensor], parts: tuple[_Sums, _Sums, _Sums], rows: int
) -> Tensor:
    """(N - 1)(CKA - CKA without the row), float32 [n, L, M], for the rows of one batch."""
    cross_nLM, own_nL, own_nM = (total - part.value + part.without_n for total, part in zip(totals, parts, strict=True))
    without_nLM = _quotient(cross_nLM, own_nL[:, :, None], own_nM[:, None, :])
    return ((rows - 1) * (value_LM - without_nLM)).float()


def _quotient(cross: Tensor, own_x: Tensor, own_y: Tensor) -> Tensor:
    valid = (own_x > 0) & (own_y > 0)
    return torch.where(
        valid, cross / (own_x.clamp_min(0).sqrt() * own_y.clamp_min(0).sqrt()).clamp_min(1e-300), torch.nan
    )


def _checked_rows(rows: int, other: int, *, least: int) -> int:
    if rows != other:
        raise InputError(f"The two sides have {rows:,} and {other:,} rows; they must be the same tokens.")
    if rows < least:
        raise InputError(f"{rows} rows; debiased CKA needs at least {least}.", hint="Give more contexts.")
    return rows
