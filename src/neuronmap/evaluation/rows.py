"""Rows of activations through an SAE: the figures over all rows, and per-context sums for their errors.

The figures themselves are those of :class:`neuronmap.saes.ReconstructionMeter`, the one definition that training uses
too. The sums kept here, by unit (a context, or a run of neighbours), serve the bootstrap only; a test holds that
the figures computed from their totals are the meter's.

Shapes: N rows, D = d_in, O = width of what is reconstructed (D, but for a transcoder), F = d_sae, C units, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, RowSource
from neuronmap.corpora import ContextBatch, TokenSet
from neuronmap.errors import InputError, MismatchError
from neuronmap.saes import ReconstructionMeter
from neuronmap.saes.meter import ReconstructionMetrics

__all__ = ["Autoencoder", "Reconstructor", "RowSums", "SpreadContexts", "Units", "rows_of_source"]

_MOST_UNITS = 2000
"""Units of the bootstrap; more would cost memory (3 D float64 each) and make the errors no better."""

_BLOCK_ROWS = 128
_PIECE_ROWS = 4096
_SPREAD_ROWS = 512
_CHUNK_VALUES = 16 << 20


class Autoencoder(Protocol):
    """What is needed of an SAE to be evaluated; any ``neuronmap.saes.SparseAutoencoder`` is one."""

    d_in: int
    d_sae: int

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations [..., F] of rows [..., D]."""

    def decode(self, f: Tensor) -> Tensor:
        """Reconstruction [..., D] of feature activations [..., F]."""


class Reconstructor:
    """Runs an SAE over rows in pieces of bounded memory and checks what it gives.

    Args:
        sae: the SAE.
        device, dtype: where and in which precision it runs.

    Attributes:
        sae: as given.
        device: as given.
        width: O, of its reconstructions.
        decoder_norm_F: norms of its decoder rows [F]; ones for an SAE without ``W_dec``.
    """

    def __init__(self, sae: Autoencoder, device: torch.device, dtype: torch.dtype) -> None:
        self.sae, self.device, self._dtype = sae, device, dtype
        self.width: int = getattr(sae, "d_out", sae.d_in)
        self._complete = getattr(sae, "complete", None)
        self._chunk = max(1, min(_PIECE_ROWS, _CHUNK_VALUES // sae.d_sae))

    @cached_property
    def decoder_norm_F(self) -> Tensor:  # noqa: N802
        decoder = getattr(self.sae, "W_dec", None)
        if isinstance(decoder, Tensor):
            norm_F: Tensor = torch.linalg.vector_norm(decoder.detach(), dim=1)
            return norm_F
        return torch.ones(self.sae.d_sae, device=self.device)

    def pieces(
        self, rows_ND: Tensor, target_NO: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """``(which rows, y [n, O], features [n, F], reconstruction [n, O])`` for rows of any float dtype.

        Args:
            rows_ND: what the SAE reads.
            target_NO: what it is to reconstruct, y; None for the rows themselves.

        Raises:
            InputError: if the SAE gives NaN or infinity.
            MismatchError: if features or reconstruction do not have the expected shape.
        """
        for start in range(0, rows_ND.shape[0], self._chunk):
            part = slice(start, min(start + self._chunk, rows_ND.shape[0]))
            x_nD = rows_ND[part].to(device=self.device, dtype=self._dtype)
            f_nF = self.sae.encode(x_nD)
            xhat_nO = self.sae.decode(f_nF)
            if self._complete is not None:
                xhat_nO = self._complete(xhat_nO, x_nD)
            n = x_nD.shape[0]
            if f_nF.shape != (n, self.sae.d_sae) or xhat_nO.shape != (n, self.width):
                raise MismatchError(
                    f"For rows {list(x_nD.shape)} the SAE gives features {list(f_nF.shape)} and a reconstruction "
                    f"{list(xhat_nO.shape)}; {[n, self.sae.d_sae]} and {[n, self.width]} are expected."
                )
            bad = int((~(xhat_nO.isfinite().all(1) & f_nF.isfinite().all(1))).sum())
            if bad:
                raise InputError(
                    f"The SAE gives NaN or infinity for {bad:,} of {x_nD.shape[0]:,} rows.",
                    hint="Its weights are damaged, or it was made for activations of another scale.",
                )
            y_nO = x_nD if target_NO is None else target_NO[part].to(device=self.device, dtype=self._dtype)
            yield part, y_nO, f_nF, xhat_nO

    def __call__(self, rows_ND: Tensor) -> Tensor:
        """Reconstruction [N, O] in float32."""
        if not len(rows_ND):
            return rows_ND.new_empty(0, self.width)
        return torch.cat([xhat_nO.float() for _, _, _, xhat_nO in self.pieces(rows_ND)])


class RowSums:
    """What is summed over rows that went through an SAE, batch by batch; sums of several parts of the rows are put together.

    Args:
        width: O, of the reconstructions.
        d_sae: F.
        units: number of bootstrap units, C.
    """

    def __init__(self, width: int, d_sae: int, units: int) -> None:
        self.meter = ReconstructionMeter(width, d_sae)
        scalars = ("rows", "r2", "x2", "cos", "cos_rows", "ratio", "ratio_rows", "xhat2", "x_xhat", "l0", "l1")
        self._sums = {name: torch.zeros(units, dtype=torch.float64) for name in scalars}
        self._sums |= {name: torch.zeros(units, width, dtype=torch.float64) for name in ("x_D", "x2_D", "r2_D")}

    @torch.inference_mode()
    def add(
        self, reconstructor: Reconstructor, rows_ND: Tensor, unit_N: Tensor, target_NO: Tensor | None = None
    ) -> None:
        """Count rows [N, D] (any float dtype) of units [N]; ``target_NO`` is what a transcoder is to make of them."""
        norm_F = reconstructor.decoder_norm_F
        for part, y_nO, f_nF, xhat_nO in reconstructor.pieces(rows_ND, target_NO):
            self.meter.update(y_nO, xhat_nO, f_nF, norm_F)
            self._sum(y_nO, f_nF, xhat_nO, norm_F, unit_N[part])

    def merge(self, other: RowSums, first_unit: int) -> None:
        """Add the sums of other rows, whose units are those from ``first_unit`` on."""
        self.meter.merge(other.meter)
        for name, value in other._sums.items():
            self._sums[name][first_unit : first_unit + len(value)] += value

    def on_cpu(self) -> Self:
        """The same sums without anything on another device, so that they can be sent to a process that has none."""
        if self.meter.fired_F.device.type != "cpu":
            self.meter = ReconstructionMeter.from_state(self.meter.state())
        return self

    def result(self) -> ReconstructionMetrics:
        """The meter's figures."""
        return self.meter.result()

    @property
    def rows(self) -> int:
        """Rows counted so far."""
        return int(self._sums["rows"].sum())

    def mean(self) -> Tensor:
        """float64 [O]: mean of what is reconstructed."""
        mean_D: Tensor = self._sums["x_D"].sum(0) / self.rows
        return mean_D

    def by_unit(self) -> dict[str, Tensor]:
        """Sums [C, ...] of the units that have rows."""
        filled_C = self._sums["rows"] > 0
        return {name: value[filled_C] for name, value in self._sums.items()}

    def _sum(self, x_ND: Tensor, f_NF: Tensor, xhat_ND: Tensor, norm_F: Tensor, unit_N: Tensor) -> None:
        x_ND, xhat_ND = x_ND.double(), xhat_ND.double()
        x2_ND, r2_ND = x_ND.square(), (x_ND - xhat_ND).square()
        x2_N, xhat2_N, dot_N = x2_ND.sum(1), xhat_ND.square().sum(1), (x_ND * xhat_ND).sum(1)
        both_N = (x2_N > 0) & (xhat2_N > 0)
        has_norm_N = x2_N > 0
        parts = {
            "rows": torch.ones_like(x2_N),
            "r2": r2_ND.sum(1),
            "x2": x2_N,
            "cos": torch.where(both_N, dot_N / (x2_N * xhat2_N).sqrt(), 0.0),
            "cos_rows": both_N.double(),
            "ratio": torch.where(has_norm_N, (xhat2_N / x2_N).sqrt(), 0.0),
            "ratio_rows": has_norm_N.double(),
            "xhat2": xhat2_N,
            "x_xhat": dot_N,
            "l0": torch.count_nonzero(f_NF, dim=1).double(),
            "l1": (f_NF.abs() @ norm_F.to(f_NF)).double(),
            "x_D": x_ND,
            "x2_D": x2_ND,
            "r2_D": r2_ND,
        }
        for name, value in parts.items():
            self._sums[name].index_add_(0, unit_N, value.cpu())


@dataclass(frozen=True)
class Units:
    """What the bootstrap resamples as a whole.

    Attributes:
        label: in words.
        joined: neighbouring contexts (or rows) that make one unit.
        first: number of the first unit, before counting from 0.
        count: how many units there may be.
    """

    label: str
    joined: int
    first: int
    count: int

    @classmethod
    def of_contexts(cls, first: int, last: int) -> Units:
        """One unit a context, or a run of neighbouring contexts where there are very many."""
        joined = -(-(last - first + 1) // _MOST_UNITS)
        label = "context" if joined == 1 else f"run of {joined} contexts"
        return cls(label, joined, first // joined, last // joined - first // joined + 1)

    @classmethod
    def of_source(cls, source: RowSource) -> Units:
        """Contexts for a store, whose rows know theirs; blocks of neighbouring rows otherwise."""
        if isinstance(source, ActivationStore):
            return cls.of_contexts(*(int(source.provenance(r, r + 1).context[0]) for r in (0, source.num_rows - 1)))
        joined = max(_BLOCK_ROWS, -(-source.num_rows // _MOST_UNITS))
        return cls(f"block of {joined} rows", joined, 0, -(-source.num_rows // joined))

    def number(self, context_N: Tensor) -> Tensor:
        """Units [N], from 0, of contexts (or row numbers) [N]."""
        return context_N // self.joined - self.first

    def part(self, start: int, stop: int) -> Units:
        """The units of contexts ``start`` to ``stop`` alone."""
        first = start // self.joined
        return replace(self, first=first, count=(stop - 1) // self.joined - first + 1)


def rows_of_source(source: RowSource, most_rows: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a source in pieces, evenly spread over it when not all are wanted.

    Args:
        source: the rows.
        most_rows: how many at most; None for all.

    Yields:
        rows [n, D] in the stored dtype, and the context of each [n] (its own number, for rows that know none).
    """
    wanted = source.num_rows if most_rows is None else min(most_rows, source.num_rows)
    left_out = source.num_rows - wanted
    pieces = -(-wanted // (_SPREAD_ROWS if left_out else _PIECE_ROWS))
    for piece in range(pieces):
        taken, stop_taken = (wanted * at // pieces for at in (piece, piece + 1))
        start = taken + left_out * piece // pieces
        stop = start + stop_taken - taken
        if isinstance(source, ActivationStore):
            context_n = torch.from_numpy(source.provenance(start, stop).context).long()
        else:
            context_n = torch.arange(start, stop)
        yield source.read(start, stop), context_n


class SpreadContexts:
    """Some contexts of a token set, evenly spread over it, as a token set of their own.

    Evenly spread and not the first ones: the first 4,096 tokens of a corpus are one or two documents.

    Args:
        tokens: the token set.
        count: how many contexts; all when there are fewer.
    """

    def __init__(self, tokens: TokenSet, count: int) -> None:
        self._tokens = tokens
        self.num_contexts = min(count, tokens.num_contexts)
        self.context_length = tokens.context_length
        self.indices = [place * tokens.num_contexts // self.num_contexts for place in range(self.num_contexts)]

    def part(self, start: int, stop: int) -> Self:
        """Contexts ``start`` to ``stop`` of those chosen, as a token set of their own."""
        found = copy(self)
        found.indices = self.indices[start:stop]
        found.num_contexts = len(found.indices)
        return found

    def contexts(self, start: int, stop: int) -> ContextBatch:
        """Contexts ``start`` to ``stop`` of those chosen."""
        batches = [self._tokens.contexts(index, index + 1) for index in self.indices[start:stop]]
        return ContextBatch(
            *(np.concatenate([getattr(batch, field.name) for batch in batches]) for field in fields(ContextBatch))
        )

    def summary(self) -> str:
        return f"{self.num_contexts:,} of {self._tokens.summary()}"
