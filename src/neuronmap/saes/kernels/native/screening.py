"""Screening: the encoder's product of bfloat16 factors says where to look, float32 dot products say what is there.

A CPU with bfloat16 units takes such a product in less than half the time of the float32 one. What it says of a pre-activation is off by at
most a known amount, so an entry that could exceed what it has to is found for certain, and its value is then taken in float32
by itself. The code is that of a float32 encoder, value by value; only the order of summation differs from a matrix product's.
Decision 0019 has the choices.

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

ROUNDING = 1.01
"""Times the norms of the factors' errors: for the other factor, which is rounded too, and for the norms' own rounding."""
SUMS = 2.0**-22
"""Times D and |x| |w|: what the additions round, 2^-24 each in the product and in the dot product, with as much to spare."""

FLUSHED = 2.0**-125
"""Times D: what products and sums below 2^-126 are worth, which the units take for 0, and as much to spare."""


@cache
def can_screen() -> bool:
    """Whether this CPU has bfloat16 units and torch uses them."""
    units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(units and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Screen:
    """The factors of one product, in bfloat16, and how far it may be off.

    Attributes:
        encoder: the product that is meant.
        x_BD: its rows, bfloat16.
        W_DF: its encoder, bfloat16; by feature in memory.
        norm_B, norm_F: norms of the rows and of the encoder's columns.
        error_B: norms of what rounding took from the rows.
        reach_F: the same of the columns, and what the sums may round, over the norm of a row.
        up_F, down_F: the bias and what adding it may round, above and below.
    """

    encoder: Encoder
    x_BD: Tensor
    W_DF: Tensor
    norm_B: Tensor
    error_B: Tensor
    norm_F: Tensor
    reach_F: Tensor
    up_F: Tensor
    down_F: Tensor

    @classmethod
    def of(cls, encoder: Encoder, engine: Engine, workspace: Workspace, threads: int) -> Screen:
        """Round the factors; their memory is the workspace's."""

        def halved(name: str, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """A matrix in bfloat16, the norms of its rows, and those of the errors."""
            half = workspace.get(f"screen.{name}", (source.shape[0], source.shape[1]), torch.bfloat16)
            norm, error = workspace.get(f"screen.{name}.norms", (2, source.shape[0]))
            addresses = [tensor.data_ptr() for tensor in (half, norm, error)]
            engine.halve(source.data_ptr(), *source.shape, *addresses, threads)
            return half, norm, error.mul_(ROUNDING)

        x_BD, norm_B, error_B = halved("rows", encoder.centred_BD)
        W_FD, norm_F, error_F = halved("weights", encoder.W_DF.T)
        reach_F = error_F.add_(norm_F, alpha=(encoder.centred_BD.shape[1] + 64) * SUMS)
        slack_F = encoder.b_F.abs().mul_(2.0**-21).add_((encoder.centred_BD.shape[1] + 64) * FLUSHED)
        up_F, down_F = encoder.b_F + slack_F, encoder.b_F - slack_F
        return cls(encoder, x_BD, W_FD.T, norm_B, error_B, norm_F, reach_F, up_F, down_F)

    def product(self, first: int, out_BW: Tensor) -> Tensor:
        """Products with a block of features, without bias, bfloat16."""
        return torch.mm(self.x_BD, self.W_DF[:, first : first + out_BW.shape[1]], out=out_BW)

    def tables(self, first: int, stop: int) -> tuple[int, ...]:
        """Addresses of rows, encoder, norms and errors, bias, and the bias rounded up and down; of the features from ``first`` on."""
        part = slice(first, stop)
        tensors = (
            self.encoder.centred_BD,
            self.encoder.W_DF.T[part],
            self.norm_B,
            self.error_B,
            self.norm_F[part],
            self.reach_F[part],
            self.encoder.b_F[part],
            self.up_F[part],
            self.down_F[part],
        )
        return tuple(tensor.data_ptr() for tensor in tensors)
