"""The code of a block of rows, as its active entries, checked.

Shapes: B rows, D = d_in, F = d_sae, N active entries.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuronmap.errors import InputError
from neuronmap.features.collect.firings import Entries
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.workspace import Workspace

__all__ = ["MOST_UNITS", "encode_block"]

MOST_UNITS = 2.0**30
"""Most units that an activation may be: sums of squares are 64-bit integers."""
_DENSE_VALUES = 1 << 24


@torch.inference_mode()
def encode_block(sae: SparseAutoencoder, x_BD: Tensor, workspace: Workspace, unit: float, where: str) -> Entries:
    """The firings of some rows.

    Args:
        sae: the SAE.
        x_BD: rows in its precision, on its device.
        workspace: its scratch space.
        unit: what activations are counted in.
        where: what the rows are, for messages.

    Raises:
        InputError: if a row or an activation is NaN or infinite, or an activation is beyond all measure.
    """
    # NaN and infinity spread into a sum: one quick pass finds whether there is any
    if len(x_BD) and not bool(x_BD.sum().isfinite()):
        bad_B = ~x_BD.isfinite().all(1)
        if bool(bad_B.any()):
            raise InputError(
                f"{int(bad_B.sum()):,} of {len(x_BD):,} rows of {where} hold NaN or infinity; the first is row"
                f" {int(bad_B.int().argmax())} of them.",
                hint="Compute the activations in float32, or harvest them again.",
            )
    code = sae.encode_entries(x_BD, workspace) if len(x_BD) else None
    code = _dense_entries(sae, x_BD) if code is None else code.trimmed()
    row_N, feature_N, value_N = (
        part.to("cpu", dtype).numpy()
        for part, dtype in ((code.row_N, torch.int32), (code.feature_N, torch.int32), (code.value_N, torch.float32))
    )
    if len(value_N):
        least, largest = value_N.min(), value_N.max()
        if not (np.isfinite(least) and largest <= MOST_UNITS * unit):
            raise InputError(
                f"The SAE gives activations of {largest:g} in {where}, of rows whose norm is about {unit:g}.",
                hint="Its weights are damaged, or it was made for activations of another scale.",
            )
        if least <= 0.0:
            active_N = value_N > 0.0
            row_N, feature_N, value_N = row_N[active_N], feature_N[active_N], value_N[active_N]
    return Entries(row_N, feature_N, value_N)


def _dense_entries(sae: SparseAutoencoder, x_BD: Tensor) -> SparseCode:
    """By the whole matrix, a fixed number of rows at a time."""
    rows = max(1, _DENSE_VALUES // sae.d_sae)
    flat_parts, value_parts = [], []
    for start in range(0, len(x_BD), rows):
        f_bF = sae.encode(x_BD[start : start + rows]).reshape(-1)
        # "not f <= 0" and not "f > 0": NaN is to be found, not to be lost
        flat_n = torch.nonzero(~(f_bF <= 0)).view(-1)
        flat_parts.append(flat_n + start * sae.d_sae)
        value_parts.append(f_bF[flat_n])
    if not flat_parts:
        return SparseCode.from_flat(torch.empty(0, dtype=torch.int64), torch.empty(0), 0, sae.d_sae)
    return SparseCode.from_flat(torch.cat(flat_parts), torch.cat(value_parts), len(x_BD), sae.d_sae)
