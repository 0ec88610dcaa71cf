"""Reconstruction and sparsity metrics: one definition, used while training and by evaluation.

Shapes: N rows in all, B rows of a batch, D = d_in, F = d_sae. x are activations, r = x - xhat.

    mse                          mean_t |r|^2                                summed over D, on the scale of x
    explained_variance           1 - sum_t |r|^2 / sum_t |x - mean x|^2      ratio of sums, all dimensions together
    explained_variance_median  median over dimensions of the same ratio; near-constant dimensions skipped
    fvu                          1 - explained_variance
    cosine                       mean_t cos(x, xhat)                         rows where it exists, without an epsilon
    norm_ratio                   mean_t |xhat| / |x|                         rows with x other than 0
    bias                         sum_t |xhat|^2 / sum_t x.xhat               below 1: shrinkage (arXiv 2404.16014, eq. 10)
    l0                           mean_t #{f != 0}
    l1                           mean_t sum_j |f_j| |W_dec_j|                as on a decoder with unit rows
    density_j                    #{t: f_j != 0} / N

Sums run in float64 and are divided once at the end, so batch size and order do not matter; sums about the mean are
merged by Chan's rule, which stays exact where E x^2 - (E x)^2 would cancel. Only dense feature activations are first
added up in float32, a few hundred rows at a time, which limits ``l1`` to about seven digits. What is undefined is
None with a reason in ``notes``, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor

from neuronmap.config import FrozenConfig
from neuronmap.errors import InputError, MismatchError
from neuronmap.saes.density import dead_density_bound

__all__ = ["ReconstructionMeter", "ReconstructionMetrics"]

_CHUNK_ELEMENTS = 2**20
"""Feature activations are counted in pieces of this size: the scratch tensor stays in the cache and is reused."""
_NEAR_CONSTANT = 1e-10
"""A dimension whose variance is at most this share of its mean square is below what float32 sums resolve."""
_SUMS = ("cosine", "norm_ratio", "xhat_square", "x_dot_xhat", "l1")
_COUNTS = ("cosine_rows", "norm_ratio_rows", "zero_inputs", "zero_reconstructions")


class ReconstructionMetrics(FrozenConfig):
    """What :class:`ReconstructionMeter` found. None where a value is undefined, with the reason in ``notes``."""

    rows: int
    """Rows N that were seen."""
    mse: float | None
    """Mean over rows of the squared error summed over dimensions, in squared units of the activation."""
    explained_variance: float | None
    """1 - squared error / variance, sums over all rows and dimensions. Below 0: worse than predicting the mean."""
    explained_variance_median: float | None
    """Median over dimensions of each one's explained variance; not ruled by a few dimensions of high variance."""
    dimensions: int
    """Dimensions in that median; near-constant ones are left out."""
    fvu: float | None
    """Fraction of variance unexplained, 1 - explained_variance."""
    cosine: float | None
    """Mean cosine of x and its reconstruction, uncentred, over rows where neither is zero."""
    cosine_rows: int
    """Rows in that mean."""
    zero_reconstructions: int
    """Rows reconstructed as exactly zero, left out of the cosine."""
    zero_inputs: int
    """Rows that are exactly zero, left out of the cosine and the norm ratio."""
    norm_ratio: float | None
    """Mean of the reconstruction's norm over the row's norm, over rows other than zero."""
    norm_ratio_rows: int
    """Rows in that mean."""
    bias: float | None
    """Relative reconstruction bias, E|xhat|^2 / E[x.xhat]; 1 is unbiased, below 1 is shrinkage."""
    l0: float | None
    """Mean number of active features in a row."""
    l1: float | None
    """Mean sum of activations in a row, each times the norm of its decoder row."""
    dead_at_n: int
    """Features that never fired in these rows."""
    dead_density_bound: float | None
    """Such a feature's true density is below this with 95 % confidence: 3 / N."""
    fraction_alive: float | None
    """Share of features that fired at least once."""
    fraction_above_1_percent: float | None
    """Share of features that fired in more than 1 % of rows."""
    fraction_above_10_percent: float | None
    """Share of features that fired in more than 10 % of rows."""
    notes: dict[str, str] = Field(default_factory=dict)
    """For each metric that is None, why."""


class ReconstructionMeter:
    """Adds up batches and gives :class:`ReconstructionMetrics`.

    Sums live on the device of the first batch; :meth:`update` does not wait for that device.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.

    Attributes:
        rows: rows seen, N.
        fired_F: int64 [F], rows in which each feature was active.
        activation_sum_F: float64 [F], sum over rows of each feature's absolute activation.

    Example:
        >>> meter = ReconstructionMeter(d_in=2, d_sae=3)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> meter.update(x, 0.5 * x, torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        >>> meter.result().norm_ratio
        0.5
    """

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.d_in, self.d_sae = d_in, d_sae
        self.rows = 0
        self._scratch = torch.empty(0)
        self._allocate(torch.device("cpu"))

    def _allocate(self, device: torch.device) -> None:
        """Zero all sums on a device (the CPU for devices without float64)."""
        device = torch.device("cpu") if device.type == "mps" else device
        self._device = device
        self._mean_D = torch.zeros(self.d_in, dtype=torch.float64, device=device)
        self._spread_D = torch.zeros_like(self._mean_D)  # sum_t (x - mean)^2
        self._error_D = torch.zeros_like(self._mean_D)  # sum_t r^2
        self._sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self._row_counts = torch.zeros(len(_COUNTS), dtype=torch.int64, device=device)
        self.fired_F = torch.zeros(self.d_sae, dtype=torch.int64, device=device)
        self.activation_sum_F = torch.zeros(self.d_sae, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(
        self,
        x_BD: Tensor,
        xhat_BD: Tensor,
        features: Tensor | tuple[Tensor, Tensor],
        decoder_norm_F: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            x_BD: [B, D] activations, any float dtype, all rows counted (mask before).
            xhat_BD: [B, D] their reconstructions, on the same scale.
            features: dense [B, F] activations; or (index, value), two tensors of one shape listing the entries that
                may be active, at most once per row and feature, in which a value of 0 means inactive.
            decoder_norm_F: [F] norms of the decoder's rows, for ``l1``; None when they are all 1.

        Raises:
            InputError: when shapes do not fit the meter.
        """
        rows = len(x_BD)
        self._check(x_BD, xhat_BD, features)
        if rows == 0:
            return
        if self.rows == 0:
            self._allocate(x_BD.device)
        x_BD = x_BD.to(self._device).to(torch.float64)
        xhat_BD = xhat_BD.to(self._device).to(torch.float64)
        self._add_rows(x_BD, xhat_BD)
        mean_D = x_BD.mean(dim=0)
        self._add_spread(rows, mean_D, (x_BD - mean_D).square_().sum(dim=0))
        activation_F = torch.zeros(self.d_sae, dtype=torch.float64, device=self._device)
        if isinstance(features, Tensor):
            self._add_dense(features, activation_F)
        else:
            self._add_sparse(*features, activation_F)
        self.activation_sum_F += activation_F
        if decoder_norm_F is not None:
            activation_F *= decoder_norm_F.detach().to(self._device)
        self._sums[_SUMS.index("l1")] += activation_F.sum()
        self.rows += rows

    def _check(self, x_BD: Tensor, xhat_BD: Tensor, features: Tensor | tuple[Tensor, Tensor]) -> None:
        expected = (len(x_BD), self.d_in)
        if tuple(x_BD.shape) != expected or tuple(xhat_BD.shape) != expected:
            raise InputError(
                f"The meter takes rows of width {self.d_in} and as many reconstructions; it was given x of shape "
                f"{list(x_BD.shape)} and xhat of shape {list(xhat_BD.shape)}."
            )
        if isinstance(features, Tensor):
            if tuple(features.shape) != (len(x_BD), self.d_sae):
                raise InputError(
                    f"The meter takes features of shape [{len(x_BD)}, {self.d_sae}] for these rows, not {list(features.shape)}."
                )
        elif features[0].shape != features[1].shape:
            raise InputError(
                f"Sparse features are an index and a value tensor of one shape, not {list(features[0].shape)} and "
                f"{list(features[1].shape)}."
            )

    def _add_rows(self, x_BD: Tensor, xhat_BD: Tensor) -> None:
        """Sums that need no mean: squared error, cosine, norms."""
        self._error_D += (x_BD - xhat_BD).square_().sum(dim=0)
        norm_B, norm_hat_B = torch.linalg.vector_norm(x_BD, dim=1), torch.linalg.vector_norm(xhat_BD, dim=1)
        dot_B = torch.linalg.vecdot(x_BD, xhat_BD)
        has_x_B, has_hat_B = norm_B != 0, norm_hat_B != 0
        has_both_B = has_x_B & has_hat_B
        # Divided one after the other: the product of two tiny norms could underflow to 0.
        cosine_B = torch.where(has_both_B, dot_B / norm_B / norm_hat_B, 0.0)
        ratio_B = torch.where(has_x_B, norm_hat_B / norm_B, 0.0)
        self._sums[:4] += torch.stack([cosine_B.sum(), ratio_B.sum(), norm_hat_B.square().sum(), dot_B.sum()])
        self._row_counts += torch.stack([has_both_B.sum(), has_x_B.sum(), (~has_x_B).sum(), (~has_hat_B).sum()])

    def _add_spread(self, rows: int, mean_D: Tensor, spread_D: Tensor) -> None:
        """Merge means and sums of squares about them (Chan, Golub, LeVeque 1983)."""
        total = self.rows + rows
        step_D = mean_D - self._mean_D
        self._spread_D += spread_D + step_D.square() * (self.rows * rows / total)
        self._mean_D += step_D * (rows / total)

    def _add_dense(self, f_BF: Tensor, activation_F: Tensor) -> None:
        """Count and sum dense activations piece by piece, without a tensor of the size of ``f_BF``."""
        f_BF = f_BF.to(self._device)
        dtype = torch.float64 if f_BF.dtype == torch.float64 else torch.float32
        rows = max(1, min(len(f_BF), _CHUNK_ELEMENTS // self.d_sae))
        if self._scratch.shape[0] < rows or self._scratch.dtype != dtype or self._scratch.device != self._device:
            self._scratch = torch.empty(rows, self.d_sae, dtype=dtype, device=self._device)
        for piece_RF in torch.split(f_BF, rows):
            scratch_RF = self._scratch[: len(piece_RF)]
            # The sum of a 0/1 mask in float32 is exact: a piece has far fewer than 2^24 rows.
            self.fired_F += torch.ne(piece_RF, 0, out=scratch_RF).sum(dim=0).to(torch.int64)
            activation_F += scratch_RF.copy_(piece_RF).abs_().sum(dim=0)

    def _add_sparse(self, index: Tensor, value: Tensor, activation_F: Tensor) -> None:
        """Count and sum listed activations."""
        index = index.to(self._device).reshape(-1).to(torch.int64)
        value = value.to(self._device).reshape(-1)
        self.fired_F.index_add_(0, index, (value != 0).to(torch.int64))
        activation_F.index_add_(0, index, value.abs().to(torch.float64))

    def merge(self, other: ReconstructionMeter) -> None:
        """Add what another meter has seen; the same as having updated this one with its batches.

        Raises:
            MismatchError: when the widths differ.
        """
        if (self.d_in, self.d_sae) != (other.d_in, other.d_sae):
            raise MismatchError(
                f"Meters of different widths cannot be merged: d_in {self.d_in} and {other.d_in}, "
                f"d_sae {self.d_sae} and {other.d_sae}."
            )
        if other.rows == 0:
            return
        if self.rows == 0:
            self._allocate(other._device)
        device = self._device
        self._add_spread(other.rows, other._mean_D.to(device), other._spread_D.to(device))
        self._error_D += other._error_D.to(device)
        self._sums += other._sums.to(device)
        self._row_counts += other._row_counts.to(device)
        self.fired_F += other.fired_F.to(device)
        self.activation_sum_F += other.activation_sum_F.to(device)
        self.rows += other.rows

    def state(self) -> dict[str, Any]:
        """All sums as plain JSON types; :meth:`from_state` continues from them exactly."""
        return {
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "rows": self.rows,
            "mean": self._mean_D.tolist(),
            "spread": self._spread_D.tolist(),
            "error": self._error_D.tolist(),
            "sums": dict(zip(_SUMS, self._sums.tolist(), strict=True)),
            "row_counts": dict(zip(_COUNTS, self._row_counts.tolist(), strict=True)),
            "fired": self.fired_F.tolist(),
            "activation": self.activation_sum_F.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], *, device: torch.device | str = "cpu") -> Self:
        """A meter that continues from :meth:`state`."""
        meter = cls(state["d_in"], state["d_sae"])
        meter._allocate(torch.device(device))
        meter.rows = state["rows"]
        for target, values in (
            (meter._mean_D, state["mean"]),
            (meter._spread_D, state["spread"]),
            (meter._error_D, state["error"]),
            (meter._sums, [state["sums"][name] for name in _SUMS]),
            (meter._row_counts, [state["row_counts"][name] for name in _COUNTS]),
            (meter.fired_F, state["fired"]),
            (meter.activation_sum_F, state["activation"]),
        ):
            target.copy_(torch.tensor(values, dtype=target.dtype))
        return meter

    def varying_dimensions(self) -> Tensor:
        """bool [D]: dimensions that are not near-constant, those of ``explained_variance_median``."""
        mean_square_D = self._spread_D / max(self.rows, 1) + self._mean_D.square()
        return ~(self._spread_D / max(self.rows, 1) <= _NEAR_CONSTANT * mean_square_D)

    def result(self) -> ReconstructionMetrics:
        """The metrics of everything seen so far."""
        counts = dict(zip(_COUNTS, self._row_counts.tolist(), strict=True))
        varies_D = self.varying_dimensions()
        values = _Values("no rows were seen" if self.rows == 0 else None)
        self._reconstruction(values, counts, varies_D)
        self._sparsity(values)
        return ReconstructionMetrics(
            rows=self.rows,
            dimensions=int(varies_D.sum()) if self.rows else 0,
            **counts,
            notes=values.notes,
            **values.found,
        )

    def _reconstruction(self, values: _Values, counts: dict[str, int], varies_D: Tensor) -> None:
        """Divide the sums over rows and dimensions."""
        rows = self.rows
        sums = dict(zip(_SUMS, self._sums.tolist(), strict=True))
        error, spread = float(self._error_D.sum()), float(self._spread_D.sum())
        energy = spread + rows * float(self._mean_D.square().sum())
        constant = "the activations do not vary" if spread <= _NEAR_CONSTANT * energy else None
        values.put("mse", lambda: error / rows)
        values.put("explained_variance", lambda: 1 - error / spread, constant)
        values.put("fvu", lambda: error / spread, constant)
        values.put(
            "explained_variance_median",
            lambda: float((1 - self._error_D / self._spread_D)[varies_D].quantile(0.5)),
            None if bool(varies_D.any()) else "no dimension varies",
        )
        values.put(
            "cosine",
            lambda: sums["cosine"] / counts["cosine_rows"],
            None if counts["cosine_rows"] else "in every row the activation or its reconstruction is zero",
        )
        values.put(
            "norm_ratio",
            lambda: sums["norm_ratio"] / counts["norm_ratio_rows"],
            None if counts["norm_ratio_rows"] else "every activation is zero",
        )
        values.put(
            "bias",
            lambda: sums["xhat_square"] / sums["x_dot_xhat"],
            None if sums["x_dot_xhat"] != 0 else "E[x.xhat] is zero",
        )
        values.put("l1", lambda: sums["l1"] / rows)

    def _sparsity(self, values: _Values) -> None:
        """Summarise the firing counts."""
        rows, fired_F = self.rows, self.fired_F.cpu()
        never = int((fired_F == 0).sum())
        values.put("l0", lambda: int(fired_F.sum()) / rows)
        values.put("dead_density_bound", lambda: dead_density_bound(rows))
        values.put("fraction_alive", lambda: 1 - never / self.d_sae)
        values.put("fraction_above_1_percent", lambda: int((fired_F * 100 > rows).sum()) / self.d_sae)
        values.put("fraction_above_10_percent", lambda: int((fired_F * 10 > rows).sum()) / self.d_sae)
        values.found["dead_at_n"] = never


class _Values:
    """Collects metrics that may be undefined: a number, or None with a note."""

    def __init__(self, nothing: str | None) -> None:
        self.nothing = nothing
        self.found: dict[str, Any] = {}
        self.notes: dict[str, str] = {}

    def put(self, name: str, compute: Callable[[], float], undefined: str | None = None) -> None:
        reason = self.nothing or undefined
        value = None if reason else compute()
        if value is not None and not math.isfinite(value):
            value, reason = None, "activations or reconstructions contain NaN or infinity"
        self.found[name] = value
        if reason:
            self.notes[name] = reason
