"""Screening: the encoder's product of bfloat16 factors says where to look, float32 dot products say what is there.

A CPU with bfloat16 units takes such a product in less than half the time of the float32 one. What it says of a pre-activation is off by at
most a known amount (``_reach``), so an entry that could exceed what it has to is found for certain, and its value is then taken in float32
by itself. The code is that of a float32 encoder, value by value; only the order of summation differs from a matrix product's.
Decision 0018 has the figures.

Shapes: B rows, D = d_in, F = d_sae, W = features of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from neuronmap.saes.kernels.native.library import Engine
from neuronmap.saes.kernels.protocol import Encoder
from neuronmap.saes.workspace import Workspace

__all__ = ["LEAST_WEIGHTS", "Screen", "can_screen"]

LEAST_WEIGHTS = 1 << 20
"""Of an encoder, D F: below, a product is so short that it does not matter. Not by rows: a row's values must not depend on how many
others are encoded with it."""


@cache
def can_screen() -> bool:
    """Whether this CPU has bfloat16 units and torch uses them."""
    return bool(
        torch.backends.mkldnn.is_available()
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


@dataclass(frozen=True, slots=True)
class Screen:
    """The factors of one product, in bfloat16, and how far it may be off.

    Attributes:
        encoder: the product that is meant.
        x_BD: its rows, bfloat16.
        W_DF: its encoder, bfloat16; by feature in memory.
        norm_B: norms of the rows.
        reach_F: times ``norm_B``, the most that the factors' rounding and the sums' change a pre-activation by.
        up_F, down_F: the bias and what adding it may round, above and below.
    """

    encoder: Encoder
    x_BD: Tensor
    W_DF: Tensor
    norm_B: Tensor
    reach_F: Tensor
    up_F: Tensor
    down_F: Tensor

    @classmethod
    def of(cls, encoder: Encoder, engine: Engine, workspace: Workspace, threads: int) -> Screen:
        """Round the factors; their memory is the workspace's."""
        rows, features, d_in = encoder.num_rows, encoder.num_features, encoder.centred_BD.shape[1]
        x_BD = workspace.get("screen.rows", (rows, d_in), torch.bfloat16)
        W_FD = workspace.get("screen.weights", (features, d_in), torch.bfloat16)
        norm_B = workspace.get("screen.norms", (rows,))
        reach_F = workspace.get("screen.reach", (features,))
        for source, half, norm in (
            (encoder.centred_BD, x_BD, norm_B),
            (encoder.W_DF.T, W_FD, reach_F),
        ):
            engine.halve(source.data_ptr(), *source.shape, half.data_ptr(), norm.data_ptr(), threads)
        reach_F.mul_(_reach(d_in))
        slack_F = encoder.b_F.abs().mul_(2.0**-21)
        return cls(encoder, x_BD, W_FD.T, norm_B, reach_F, encoder.b_F + slack_F, encoder.b_F - slack_F)

    def product(self, first: int, out_BW: Tensor) -> Tensor:
        """Products with a block of features, without bias, bfloat16."""
        return torch.mm(self.x_BD, self.W_DF[:, first : first + out_BW.shape[1]], out=out_BW)

    def tables(self, first: int, stop: int) -> tuple[int, int, int, int, int, int]:
        """Addresses of the rows, of the encoder from a feature on, norms, reach, and the bias rounded up and down."""
        part = slice(first, stop)
        tensors = (
            self.encoder.centred_BD,
            self.encoder.W_DF.T[part],
            self.norm_B,
            self.reach_F[part],
            self.up_F[part],
            self.down_F[part],
        )
        return tuple(tensor.data_ptr() for tensor in tensors)


def _reach(d_in: int) -> float:
    """Most that x . w can be off, over |x| |w|: 2^-8 for each rounded factor, 2^-24 for each addition, here and in the dot product.

    sum |x_i w_i| <= |x| |w| by Cauchy and Schwarz. The sixty-fourth more covers the product of both roundings and the norms' own.
    """
    return 2.0**-7 * (1 + 2.0**-6) + (d_in + 64) * 2.0**-22
