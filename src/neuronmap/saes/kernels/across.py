"""The largest entries of a batch whose rows and features lie on several processes.

Shapes: B rows of the whole batch, F features; here are the entries of some rows and of some features, N of them found.

Bit patterns of positive float32 numbers order like the numbers. Every rank collects its entries above a bound, and the ranks add up three
histograms: of the upper 11 bits, of the next 10 within the bin where the wanted rank falls, and of the last 10 within that one. What
goes between processes is 32 KiB a step, whatever the batch, and the cut is exact. Of entries equal to the cut, the lowest row's are
kept, there the lowest feature's, as one process would: where there is not room for all of these, their places go between processes too.

Each rank keeps what lies above the cut, which need not be its share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode, offsets
from neuronmap.saes.kernels.protocol import Encoded, Encoder, Kernels
from neuronmap.saes.kernels.select import SAMPLE_ROWS, sampled_bound
from neuronmap.saes.ranks import Ranks
from neuronmap.saes.workspace import Workspace

__all__ = ["encode_top_across", "largest_across"]

_SHIFTS = (20, 10, 0)
"""Where the three digits of a bit pattern begin; the sign bit of a positive number is 0."""
_BINS = (2**11, 2**10, 2**10)
_MARGIN = 0.9
"""Of the last batch's cut: what an entry has to exceed to be looked at."""


def encode_top_across(kernels: Kernels, encoder: Encoder, count: int, workspace: Workspace) -> Encoded:
    """The entries of this rank among the ``count`` largest positive entries of the whole batch.

    Args:
        kernels: who takes the product.
        encoder: the product of this rank's rows and features, in float32; every rank has the same number.
        count: entries to keep on all ranks together (fewer if fewer are positive).
        workspace: whose ``ranks`` share the rows and whose ``features`` share the features; remembers the cut for the next batch.
    """
    for bound in _likely_bounds(encoder, count, workspace):
        encoded = _above(kernels, encoder, bound)
        code = encoded.code.trimmed()
        keep_N, cut = largest_across(code.value_N, count, workspace.everyone, partial(_places, code, workspace))
        if cut is not None or bound == 0.0:
            break
    workspace.last_cut = cut or 0.0
    if keep_N is None:
        return Encoded(code, encoded.kept_BM)
    kept = code.row_N[keep_N]
    parts = (kept, code.feature_N[keep_N], code.value_N[keep_N], offsets(kept, encoder.num_rows))
    return Encoded(SparseCode(*parts, encoder.num_features), encoded.kept_BM)


def largest_across(
    value_N: Tensor, count: int, ranks: Ranks, places: Callable[[Tensor], Tensor]
) -> tuple[Tensor | None, float | None]:
    """Which of this rank's positive values are among the ``count`` largest of all ranks.

    Args:
        value_N: float32, this rank's values, all positive.
        count: how many of all.
        ranks: the others.
        places: int64 [n], where values lie in the whole, from their positions here. Of values equal to the smallest kept one,
            those at the lowest places are kept.

    Returns:
        bool [N], or None for all of them; and the smallest value kept, or None where there are fewer than ``count``.
    """
    bits_N = value_N.view(torch.int32)
    inside_N = torch.ones_like(bits_N, dtype=torch.bool)
    prefix, wanted = 0, count
    for shift, bins in zip(_SHIFTS, _BINS, strict=True):
        digit_n = (bits_N[inside_N] >> shift) & (bins - 1)
        counts = ranks.sum_(torch.bincount(digit_n, minlength=bins)).cpu()
        from_top = counts.flip(0).cumsum(0)
        if int(from_top[-1]) < wanted:
            return None, None  # known of the first digit only, which counts everything
        place = int(torch.searchsorted(from_top, wanted))
        wanted -= int(from_top[place - 1]) if place else 0
        prefix = (prefix * bins) + (bins - 1 - place)
        inside_N = (bits_N >> shift) == prefix
    keep_N = bits_N >= prefix
    if int(counts[-1 - place]) > wanted:  # not all that equal the cut have room
        tied_n = torch.nonzero(inside_N).view(-1)
        place_n = places(tied_n)
        most = int(ranks.gathered(torch.tensor([len(tied_n)], device=value_N.device)).max())
        place_M = place_n.new_full((most,), torch.iinfo(torch.int64).max)
        place_M[: len(tied_n)] = place_n
        last = torch.kthvalue(ranks.gathered(place_M).view(-1), wanted).values
        keep_N[tied_n[place_n > last]] = False
    cut = float(torch.tensor([prefix], dtype=torch.int32).view(torch.float32))
    return keep_N, cut


def _places(code: SparseCode, workspace: Workspace, position_n: Tensor) -> Tensor:
    """int64 [n], places of some entries in the [B, F] matrix of all ranks."""
    features, width = workspace.features, code.num_features
    row_n = code.row_N[position_n].long() + workspace.ranks.rank * code.num_rows
    return row_n * (features.count * width) + features.rank * width + code.feature_N[position_n].long()


def _above(kernels: Kernels, encoder: Encoder, bound: float) -> Encoded:
    floor_F = torch.full_like(encoder.b_F, bound)
    everything = encoder.num_rows * encoder.num_features  # a limit that nothing exceeds
    return cast("Encoded", kernels.encode_above(encoder, floor_F, everything))


def _likely_bounds(encoder: Encoder, count: int, workspace: Workspace) -> Iterator[float]:
    """Bounds >= 0, the same on every rank, that ``count`` entries may exceed, until they do; what is found does not depend on them."""
    ranks = workspace.everyone
    per_row = count / (encoder.num_rows * ranks.count)  # and slice of features

    def sampled(factor: float) -> float:
        rows_RD = encoder.centred_BD[:: max(1, encoder.num_rows // SAMPLE_ROWS)]
        bound = sampled_bound(torch.addmm(encoder.b_F, rows_RD, encoder.W_DF), factor * per_row + 1.0)
        bounds = ranks.gathered(torch.tensor([bound], dtype=torch.float64, device=encoder.b_F.device))
        return float(bounds.min())

    yield workspace.last_cut * _MARGIN if workspace.last_cut > 0.0 else sampled(1.3)
    yield sampled(3.0)
    yield 0.0
