"""BatchTopK SAE (arXiv 2412.06410): k active features per row on average, chosen over the whole batch.

Shapes: B rows, D = d_in, F = d_sae, N rows of a calibration pass.

    training   f = the B k largest positive entries of pre_BF
    inference  f_j = relu(pre_j) * (pre_j > threshold_j)        a row never depends on its neighbours

The threshold is one number for all features. While training it is a bias-corrected running mean of each batch's smallest
kept activation (buffers, so checkpoints carry it), good enough to watch; at the end ``calibrate`` finds the number
that keeps exactly k N entries of the rows it is given. SAELens writes and reads this form as ``jumprelu``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from neuronmap.errors import InputError
from neuronmap.saes.base import ArchitectureOptions, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels.across import encode_top_across
from neuronmap.saes.kernels.choice import backend
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.entries import above_floor
from neuronmap.saes.kernels.protocol import Encoded, Encoder, Kernels
from neuronmap.saes.kernels.select import SAMPLE_ROWS, sampled_bound, select_top_of_batch
from neuronmap.saes.options import BatchTopKOptions
from neuronmap.saes.topk import TopKFamily
from neuronmap.saes.workspace import Workspace

__all__ = ["BatchTopKOptions", "BatchTopKSAE", "exact_threshold"]

THRESHOLD_DECAY = 0.99
"""Of the running mean of the smallest kept activation, per step."""
_SAMPLE_FACTORS = (2.0, 8.0)
"""Times k: how many entries of a row calibration looks at, as the sampled rows tell; the second where the first misled."""
_KEPT_ENTRIES = 2**26
"""Entries that calibration keeps in memory (256 MiB); beyond that it makes them twice."""


class BatchTopKSAE(TopKFamily):
    """Keeps the B k largest activations of a batch; at inference, those above one calibrated threshold.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`BatchTopKOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    architecture: ClassVar[str] = "batchtopk"
    Options: ClassVar[type[ArchitectureOptions]] = BatchTopKOptions
    calibrated: ClassVar[bool] = True

    threshold: Tensor
    """[F], all equal; what ``encode`` compares with."""
    threshold_sum: Tensor
    """0-d, running sum behind the mean; divided by ``threshold_weight`` it is unbiased from the first step."""
    threshold_weight: Tensor
    """0-d, 1 - decay^steps."""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(d_in, d_sae, options, device=device, dtype=dtype)
        self.register_buffer("threshold", torch.zeros(d_sae, device=device, dtype=dtype))
        self.register_buffer("threshold_sum", torch.zeros((), device=device, dtype=dtype))
        self.register_buffer("threshold_weight", torch.zeros((), device=device, dtype=dtype))

    def select(self, pre_BF: Tensor, k: int, workspace: Workspace) -> SparseCode:
        """The B k largest positive entries of the batch, ties to the lowest row, then feature."""
        return select_top_of_batch(pre_BF, k * len(pre_BF), workspace)

    def encode_kept(self, kernels: Kernels, encoder: Encoder, k: int) -> Encoded:
        """The same, fused with the product; of the rows and features on all ranks."""
        workspace = kernels.workspace
        if workspace.everyone.count > 1:
            return encode_top_across(kernels, encoder, k * encoder.num_rows * workspace.ranks.count, workspace)
        return kernels.encode_top_of_batch(encoder, k * encoder.num_rows)

    def encode(self, x: Tensor) -> Tensor:
        """The inference rule at the top of this file."""
        # The product and sum of SAELens, not training's fused one: entries within rounding of the threshold then fall
        # on the same side in both.
        pre = SparseAutoencoder.pre_activations(self, self.normalised(x))
        return torch.relu(pre) * (pre > self.threshold)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """Pre-activations above the threshold."""
        floor_F = self.threshold.clamp_min(
            0.0
        )  # files from elsewhere may have it below zero; encode's relu is there too
        return above_floor((self.normalised(x_BD), self.b_dec, self.W_enc), self.b_enc, floor_F, workspace)

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """mean_b |x - xhat|^2 + aux_coefficient * AuxK, with the training rule at the top of this file, by autograd."""
        pre_BF, f_BF, code = self._training_code(x_BD, state)
        residual_BD = x_BD - (f_BF @ self.W_dec + self.b_dec)
        mse = residual_BD.square().sum(dim=1).mean()
        return self._reference_loss(code, mse, mse, self._reference_aux(pre_BF, residual_BD, state))

    def after_step(self, loss: StepLoss, state: StepState) -> None:
        """Unit decoder rows, and the running threshold."""
        super().after_step(loss, state)
        if loss.threshold is not None:
            with torch.no_grad():
                self.threshold_sum.lerp_(loss.threshold.to(self.dtype), 1 - THRESHOLD_DECAY)
                self.threshold_weight.lerp_(torch.ones_like(self.threshold_weight), 1 - THRESHOLD_DECAY)
                self.threshold.copy_((self.threshold_sum / self.threshold_weight).expand_as(self.threshold))

    @torch.no_grad()
    def calibrate(self, batches: Callable[[], Iterable[Tensor]]) -> dict[str, float]:
        """Set the threshold so that k entries per row are kept on average over exactly these rows.

        Args:
            batches: gives the same scaled rows [B, D] each time it is called (twice, rarely three times).

        Returns:
            ``threshold``, ``l0`` (entries kept per row; below k only where too few are positive, and then the
            threshold is 0) and ``rows``.

        Raises:
            InputError: for no rows.
        """
        return self._fit_threshold(batches, self.threshold, lambda x_BD: x_BD - self.b_dec)

    def _fit_threshold(
        self,
        batches: Callable[[], Iterable[Tensor]],
        threshold_F: Tensor,
        encoder_input: Callable[[Tensor], Tensor],
    ) -> dict[str, float]:
        """Fill a threshold so that k entries per row of what the encoder is given lie above it."""
        kernels = backend(Workspace(self.device), self.W_enc)

        def entries_above(bound: float) -> Iterator[tuple[Tensor, int]]:
            floor_F = torch.full_like(self.b_enc, bound)
            for x_BD in batches():
                encoder = Encoder(encoder_input(x_BD.to(self.b_dec)).contiguous(), self.W_enc, self.b_enc)
                encoded = kernels.encode_above(encoder, floor_F, encoder.num_rows * encoder.num_features)
                if encoded is not None:  # there is no limit to exceed
                    yield encoded.code.value_N, encoder.num_rows

        threshold, l0, rows = exact_threshold(
            entries_above, self._likely_bounds(batches, encoder_input), self.options.k
        )
        threshold_F.fill_(threshold)
        return {"threshold": threshold, "l0": l0, "rows": float(rows)}

    def _likely_bounds(
        self, batches: Callable[[], Iterable[Tensor]], encoder_input: Callable[[Tensor], Tensor]
    ) -> list[float]:
        """Bounds that a few times k entries of a row exceed, from some rows of the first batch."""
        for x_BD in batches():
            if len(x_BD):
                rows_RD = x_BD[:: max(1, len(x_BD) // SAMPLE_ROWS)].to(self.b_dec)
                pre_RF = torch.addmm(self.b_enc, encoder_input(rows_RD), self.W_enc)
                return [sampled_bound(pre_RF, factor * self.options.k) for factor in _SAMPLE_FACTORS]
        return []

    def scaled_tensors(self) -> list[Tensor]:
        """Both biases and the thresholds."""
        return [*super().scaled_tensors(), self.threshold, self.threshold_sum]

    def saelens_config(self) -> dict[str, Any]:
        """The inference form is SAELens' ``jumprelu``."""
        return {"architecture": "jumprelu"}

    def saelens_tensors(self) -> dict[str, Tensor]:
        """The parameters and ``threshold``; the running mean is of use in training only."""
        return {**super().saelens_tensors(), "threshold": self.threshold}

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """From the tensors above; the running mean starts anew if training goes on."""
        del config
        W_enc_DF = tensors["W_enc"]
        d_in, d_sae = W_enc_DF.shape
        sae = cls(d_in, d_sae, options, device=W_enc_DF.device, dtype=W_enc_DF.dtype)
        sae.load_state_dict({**sae.state_dict(), **tensors})
        return sae


def exact_threshold(
    entries_above: Callable[[float], Iterable[tuple[Tensor, int]]], bounds: Sequence[float], k: int
) -> tuple[float, float, int]:
    """The threshold above which exactly round(k N) of the entries of N rows lie.

    Float32 bit patterns order positive numbers. One pass counts entries by their upper 16 bits and finds the bin of the wanted
    rank, a second counts inside that bin by the lower 16. Both read the entries from memory where these are few enough
    to be kept; else they are made twice, and memory is two tables of 65,536 counts, whatever N is.

    Args:
        entries_above: gives the entries above a bound [n] and the number of rows they come from, batch by batch, the same each
            time it is called.
        bounds: where to look, one after the other, until as many as wanted lie above; at last all positive entries.
        k: entries per row.

    Returns:
        Threshold (halfway between the last value kept and the next; with ties at the cut, the side that
        keeps nearer to k N), entries kept per row, and N.

    Raises:
        InputError: for no rows.
    """
    for bound in (*bounds, 0.0):
        passes = _Passes(entries_above, bound)
        upper, rows = passes.upper_counts()
        wanted = k * rows
        if int(upper.sum()) > wanted:
            break
    positive = int(upper.sum())
    if positive <= wanted:
        return 0.0, positive / rows, rows
    from_top = upper.flip(0).cumsum(0)
    bin_from_top = int(torch.searchsorted(from_top, wanted))
    chosen = len(upper) - 1 - bin_from_top
    above_bin = int(from_top[bin_from_top] - upper[chosen])

    lower = torch.zeros(2**16, dtype=torch.int64)
    below = passes.bound
    for value_N, _ in passes.entries():
        bits_N = value_N.view(torch.int32)
        inside = (bits_N >> 16) == chosen
        lower += torch.bincount(bits_N[inside] & 0xFFFF, minlength=2**16).cpu()
        beneath = value_N[(bits_N >> 16) < chosen]
        if beneath.numel():
            below = max(below, float(beneath.max()))
    from_top = lower.flip(0).cumsum(0)
    rank = int(torch.searchsorted(from_top, wanted - above_bin))
    kept = above_bin + int(from_top[rank])
    last_kept = _float_of(chosen, len(lower) - 1 - rank)
    rest = torch.nonzero(lower[: len(lower) - 1 - rank])
    next_value = _float_of(chosen, int(rest[-1])) if rest.numel() else below
    without_tied = kept - int(lower[len(lower) - 1 - rank])
    if wanted - without_tied < kept - wanted:
        return last_kept, without_tied / rows, rows
    return _between(next_value, last_kept), kept / rows, rows


class _Passes:
    """The entries above a bound, as often as wanted; kept in memory after the first time while they are few.

    Args:
        entries_above: as for :func:`exact_threshold`.
        bound: what the entries exceed.
    """

    def __init__(self, entries_above: Callable[[float], Iterable[tuple[Tensor, int]]], bound: float) -> None:
        self._entries_above, self.bound = entries_above, bound
        self._kept: list[tuple[Tensor, int]] | None = None

    def entries(self) -> Iterator[tuple[Tensor, int]]:
        """Values in float32 and rows of each batch."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[tuple[Tensor, int]] = []
        total = 0
        for value_N, rows in self._entries_above(self.bound):
            total += value_N.numel()
            if total <= _KEPT_ENTRIES:
                kept.append((value_N.float(), rows))
            else:
                kept.clear()
            yield value_N.float(), rows
        self._kept = kept if total <= _KEPT_ENTRIES else None

    def upper_counts(self) -> tuple[Tensor, int]:
        """Counts of entries by the upper 16 bits of their pattern, int64 [2^15], and rows.

        Raises:
            InputError: for no rows.
        """
        counts = torch.zeros(2**15, dtype=torch.int64)
        rows = 0
        for value_N, rows_here in self.entries():
            counts += torch.bincount(value_N.view(torch.int32) >> 16, minlength=2**15).cpu()
            rows += rows_here
        if rows == 0:
            raise InputError("Calibrating a threshold needs rows of activations, got none.")
        return counts, rows


def _float_of(upper: int, lower: int) -> float:
    return float(torch.tensor([(upper << 16) | lower], dtype=torch.int32).view(torch.float32))


def _between(low: float, high: float) -> float:
    """A float32 in [low, high), as near the middle as there is."""
    middle = float(torch.tensor((low + high) / 2, dtype=torch.float32))
    return middle if low <= middle < high else low
