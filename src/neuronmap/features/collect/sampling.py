"""Which contexts keep their codes, and what is kept of them.

Shapes: B rows of a block, C contexts of T tokens, F features, N firings, n and e those of the sampled contexts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.features.collect.firings import BlockPlaces, Entries
from neuronmap.features.collect.layout import draw, halves
from neuronmap.features.collect.state import CodedSample
from neuronmap.features.config import AnalysisConfig
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.workspace import Workspace

__all__ = ["MOST_ENTRIES", "coded_part", "contexts_that_fit", "sampled_contexts"]

MOST_ENTRIES = 1 << 26
"""Entries of the whole sample, about: 400 MB."""


def contexts_that_fit(config: AnalysisConfig, contexts: int, context_length: int, firings: int, rows: int) -> int:
    """How many contexts to sample: ``sample_tokens`` worth, or fewer where so many features fire that it would be too much.

    Args:
        config: the settings.
        contexts: C.
        context_length: T.
        firings: active entries of the first block of the grid that has rows.
        rows: its rows.
    """
    wanted = min(contexts, -(-config.sample_tokens // context_length))
    fit = MOST_ENTRIES * max(rows, 1) // max(firings * context_length, 1)
    return max(1, min(wanted, fit))


def sampled_contexts(config: AnalysisConfig, contexts: int, count: int) -> npt.NDArray[np.bool_]:
    """bool [C]: the ``count`` contexts with the smallest draw; of equal ones the lower."""
    drawn_C = draw(config.seed, -1, np.arange(contexts), 0)
    is_sampled_C = np.zeros(contexts, bool)
    is_sampled_C[np.argsort(drawn_C, kind="stable")[:count]] = True
    return is_sampled_C


@torch.inference_mode()
def coded_part(
    sae: SparseAutoencoder,
    x_BD: Tensor,
    mean_D: Tensor,
    entries: Entries,
    places: BlockPlaces,
    is_sampled_B: npt.NDArray[np.bool_],
    unit: float,
    workspace: Workspace,
) -> CodedSample | None:
    """Codes of the sampled rows of a block; None without any.

    Args:
        sae: the SAE, for reconstructions of these rows.
        x_BD: all rows of the block, on its device and in its precision.
        mean_D: the mean row, float64.
        entries: all firings of the block.
        places: where its rows lie.
        is_sampled_B: whether the row's context is sampled.
        unit: what activations are counted in.
        workspace: scratch space.
    """
    if not is_sampled_B.any():
        return None
    row_n = np.flatnonzero(is_sampled_B)
    number_B = np.cumsum(is_sampled_B, dtype=np.int32) - 1
    chosen_e = np.flatnonzero(is_sampled_B[entries.row_N])
    row_e, feature_e = number_B[entries.row_N[chosen_e]], entries.feature_N[chosen_e]
    value_e = entries.value_N[chosen_e]
    if ((row_e[1:] == row_e[:-1]) & (feature_e[1:] < feature_e[:-1])).any():  # some backends have them in order
        order = _by_row_and_feature(row_e, feature_e)
        row_e, feature_e, value_e = row_e[order], feature_e[order], value_e[order]
    offset_n = np.zeros(len(row_n) + 1, np.int64)
    np.cumsum(np.bincount(row_e, minlength=len(row_n)), out=offset_n[1:])

    device, dtype = x_BD.device, x_BD.dtype
    row_R, feature_R, offset_R = (torch.from_numpy(part).to(device) for part in (row_e, feature_e, offset_n))
    code = SparseCode(row_R, feature_R, torch.from_numpy(value_e).to(device, dtype), offset_R, sae.d_sae)
    x_nD = workspace.get("sampled", (len(row_n), sae.d_in), dtype)
    torch.index_select(x_BD, 0, torch.from_numpy(row_n).to(device), out=x_nD)
    error_n = x_nD.new_full((len(row_n),), torch.nan)  # where another hook is reconstructed, of which there are no rows
    if sae.reconstructs_input:
        error_n = sae.complete(sae.decode_entries(code), x_nD).sub_(x_nD).square_().sum(1)
    centred_nD = x_nD.sub_(mean_D.to(device, dtype))
    energy_n = centred_nD.square_().sum(1)
    return CodedSample(
        places.sequence_B[row_n],
        places.position_B[row_n],
        offset_n,
        feature_e,
        halves(value_e * np.float32(1 / unit)),
        error_n.float().cpu().numpy(),
        energy_n.float().cpu().numpy(),
    )


def _by_row_and_feature(row_e: npt.NDArray[np.int32], feature_e: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The order of entries by (row, feature). numpy sorts 16-bit numbers by radix, several times as fast as wider ones."""
    order = np.argsort(feature_e.astype(np.uint16), kind="stable")  # the lower bits
    for key_e in (feature_e >> 16, row_e, row_e >> 16):
        if key_e is row_e or key_e.any():
            order = order[np.argsort(key_e[order].astype(np.uint16), kind="stable")]
    return order
