"""The order of rows: blocks permuted over the whole source, then rows permuted within a bucket of blocks.

A block is a run of neighbouring units (rows of a store, contexts of a stream) and is read in one piece. A bucket is
as many blocks as memory allows. Everything follows from (seed, epoch, bucket), so any place in the endless sequence
can be found again without replaying what came before. Shuffling within about 10^6 rows is enough (Gemma Scope,
arXiv 2408.05147).

Shape legend: N rows, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import psutil
import torch
from torch import Tensor

from neuronmap.activations.rows import RowSource
from neuronmap.errors import ConfigError, EmptyCorpusError

__all__ = ["Block", "BlockReader", "BlockSource", "PlainReader", "Position", "ShufflePlan", "Shuffler", "make_plan"]

Block = tuple[int, int]
"""First unit, and one past the last."""

BLOCK_ROWS = 1024
MAX_BUCKET_ROWS = 1_000_000
_MEMORY_SHARE = 0.25
_STREAM_BUCKETS = 8
_STREAM_BUCKET_ROWS = 65_536


class BlockReader(Protocol):
    """Reads the blocks of one shuffle, used by one thread at a time."""

    def read_block(self, start: int, stop: int, out: Tensor, following: Iterable[Block]) -> int:
        """Write the rows of units ``start`` to ``stop`` to the front of ``out``; returns how many there were.

        Args:
            start, stop: the block.
            out: [at least as many rows as the block can give, W].
            following: the blocks that will be asked for after it, as far as anybody looks.
        """

    def stop(self) -> None:
        """From another thread: whoever waits in :meth:`read_block` for other processes waits no longer."""

    def close(self) -> None:
        """No block is read any more."""


class PlainReader:
    """A :class:`BlockReader` that waits for nobody.

    Args:
        read: writes the rows of a block, and gives their number.
    """

    def __init__(self, read: Callable[[int, int, Tensor], int]) -> None:
        self._read = read

    def read_block(self, start: int, stop: int, out: Tensor, following: Iterable[Block]) -> int:
        del following
        return self._read(start, stop, out)

    def stop(self) -> None: ...

    def close(self) -> None: ...


class BlockSource(Protocol):
    """What the shuffle reads from: units in order, each giving at most ``rows_per_unit`` rows."""

    @property
    def width(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def digest(self) -> str: ...
    @property
    def num_units(self) -> int: ...
    @property
    def rows_per_unit(self) -> int: ...
    @property
    def block_units(self) -> int | None:
        """Units that must be read together, or None for a free choice."""

    @property
    def in_background(self) -> bool:
        """Whether another thread may read while the caller works."""

    def reader(self) -> BlockReader:
        """What reads for a shuffle; it is closed when that ends."""


class RowBlocks:
    """A :class:`RowSource` as a :class:`BlockSource`: a unit is a row."""

    rows_per_unit = 1
    block_units = None
    in_background = True

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.width, self.dtype, self.digest = source.width, source.dtype, source.digest
        self.num_units = source.num_rows

    def reader(self) -> BlockReader:
        return PlainReader(self._read)

    def _read(self, start: int, stop: int, out: Tensor) -> int:
        self._source.read(start, stop, out=out[: stop - start])
        return stop - start


@dataclass(frozen=True)
class ShufflePlan:
    """How units are grouped; part of what decides the order of batches."""

    num_units: int
    block_units: int
    blocks_in_bucket: int
    seed: int

    @property
    def num_blocks(self) -> int:
        return -(-self.num_units // self.block_units)

    @property
    def num_buckets(self) -> int:
        return -(-self.num_blocks // self.blocks_in_bucket)

    @property
    def bucket_units(self) -> int:
        """Most units in one bucket."""
        return min(self.blocks_in_bucket * self.block_units, self.num_units)

    def blocks(self, epoch: int, bucket: int) -> list[Block]:
        """Those of one bucket, in reading order."""
        if self.num_buckets == 1:
            chosen = list(range(self.num_blocks))
        else:
            order = _block_order(self.num_blocks, self.seed, epoch)
            first = bucket * self.blocks_in_bucket
            # ascending: the permutation inside the bucket mixes them anyway, and the disk reads forwards
            chosen = sorted(order[first : first + self.blocks_in_bucket].tolist())
        return [(b * self.block_units, min((b + 1) * self.block_units, self.num_units)) for b in chosen]

    def permute(self, epoch: int, bucket: int, rows: int, out_N: Tensor) -> None:
        """The order of a bucket's rows, int64, into the front of ``out_N``."""
        torch.randperm(rows, generator=_generator(self.seed, epoch, bucket), out=out_N[:rows])


@lru_cache(maxsize=4)
def _block_order(num_blocks: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_blocks, generator=_generator(seed, epoch, -1))


def _generator(seed: int, epoch: int, bucket: int) -> torch.Generator:
    text = f"neuronmap shuffle {seed} {epoch} {bucket}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "little"))


def make_plan(
    source: BlockSource, bucket_rows: int | str, seed: int, *, threaded: bool, once: bool = False, beside: int = 0
) -> ShufflePlan:
    """Choose block and bucket sizes.

    Args:
        source: what will be read.
        bucket_rows: rows to hold at once, or ``auto``: all rows if they fit in 10^6 rows and a quarter of the
            available memory; else 10^6, or the largest power of two that fits (a power of two, so that small
            changes in free memory do not change the order).
        seed: of every permutation.
        threaded: whether a second bucket is filled while the first is used.
        once: whether the rows are used once only. A stream that is computed ahead then gets at least 8 buckets (of 65,536 rows or
            more), so that training begins when the first is full and runs beside the model from there on. Used more than once, rows
            that fit stay in one bucket and are computed once.
        beside: bytes that other sources hold for each row of this one, where several are shuffled side by side.

    Raises:
        ConfigError: if ``bucket_rows`` is neither ``auto`` nor a positive number.
    """
    total = source.num_units * source.rows_per_unit
    if bucket_rows == "auto":
        row_bytes = source.width * source.dtype.itemsize + 8 + beside  # 8: its place in the permutation
        fit = int(psutil.virtual_memory().available * _MEMORY_SHARE) // row_bytes
        rows = min(MAX_BUCKET_ROWS, fit)
        if total > rows:
            fit = fit // 2 if threaded else fit
            rows = MAX_BUCKET_ROWS if fit >= MAX_BUCKET_ROWS else 1 << max(fit, 1).bit_length() - 1
        if threaded and once and source.block_units is not None:
            rows = min(rows, max(_STREAM_BUCKET_ROWS, -(-total // _STREAM_BUCKETS)))
    elif isinstance(bucket_rows, int) and not isinstance(bucket_rows, bool) and bucket_rows >= 1:
        rows = bucket_rows
    else:
        raise ConfigError(f"bucket_rows = {bucket_rows!r}: allowed are 'auto' and whole numbers from 1.")
    units = max(1, rows // source.rows_per_unit)
    block = source.block_units or max(1, min(BLOCK_ROWS, units // 64))
    return ShufflePlan(source.num_units, block, max(1, units // block), seed)


@dataclass(frozen=True)
class Position:
    """A place in the endless sequence: the next row is number ``row`` of this epoch's bucket number ``bucket``."""

    epoch: int = 0
    bucket: int = 0
    row: int = 0
    batch: int = 0


class _Bucket:
    """One preallocated bucket and how far it is filled."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype) -> None:
        self.rows_NW = torch.empty(rows, width, dtype=dtype)
        self.order_N = torch.empty(rows, dtype=torch.int64)
        self.words_NX = _as_words(self.rows_NW)
        self.rows = 0
        self.place = (-1, -1)
        self.pending: list[Block] = []


def _as_words(rows_NW: Tensor) -> Tensor:
    """The same bytes as whole 4-byte words where the width allows.

    index_select of float16 and bfloat16 rows takes a slow path in torch on CPU: 5 to 90 times slower than of int32.
    """
    if rows_NW.dtype.itemsize == 2:
        return rows_NW.view(torch.int32 if rows_NW.shape[1] % 2 == 0 else torch.int16)
    return rows_NW


class Shuffler:
    """Gives the batches of the sequence one after the other; used by one thread at a time.

    Args:
        source: where rows come from.
        plan: block and bucket sizes, seed.
        batch_rows: rows in a batch.
        scale: every value is multiplied by it.
        spare: keep a second bucket that :meth:`prepare_ahead` fills.

    Attributes:
        reader: reads the blocks; to be closed by whoever made the shuffler.
    """

    def __init__(self, source: BlockSource, plan: ShufflePlan, batch_rows: int, scale: float, *, spare: bool) -> None:
        self._plan, self._batch_rows, self._scale = plan, batch_rows, scale
        rows = plan.bucket_units * source.rows_per_unit
        count = 2 if spare and plan.num_buckets > 1 else 1
        self._buckets = [_Bucket(rows, source.width, source.dtype) for _ in range(count)]
        self._stage_BW = torch.empty(batch_rows, source.width, dtype=source.dtype)
        self._stage_words_BX = _as_words(self._stage_BW)
        self._position = Position()
        self.reader = source.reader()

    def seek(self, position: Position) -> None:
        """Continue at ``position`` with the next batch."""
        self._position = position

    def next_batch(self, out_BW: Tensor) -> Position:
        """Fill ``out_BW`` [batch_rows, W] with the next rows; returns the position after them."""
        filled, empty_buckets, place = 0, 0, self._position
        while filled < self._batch_rows:
            bucket = self._load(place.epoch, place.bucket)
            take = min(self._batch_rows - filled, bucket.rows - place.row)
            if take:
                chosen_N = bucket.order_N[place.row : place.row + take]
                staged_BW = self._stage_BW[:take]
                torch.index_select(bucket.words_NX, 0, chosen_N, out=self._stage_words_BX[:take])
                out_BW[filled : filled + take].copy_(staged_BW)
                filled += take
                place = Position(place.epoch, place.bucket, place.row + take)
            empty_buckets = 0 if bucket.rows else empty_buckets + 1
            if empty_buckets > self._plan.num_buckets:
                raise EmptyCorpusError("The source gave no row in a whole epoch.", hint="Relax the mask.")
            if place.row >= bucket.rows:
                place = self._after(place.epoch, place.bucket)
        if self._scale != 1.0:
            out_BW.mul_(self._scale)
        self._position = Position(place.epoch, place.bucket, place.row, self._position.batch + 1)
        return self._position

    def prepare_ahead(self) -> bool:
        """Read one block of the bucket after the current one; False if there is nothing to do."""
        if len(self._buckets) < 2:
            return False
        following = self._after(self._position.epoch, self._position.bucket)
        spare = self._buckets[1]
        if self._buckets[0].place != (self._position.epoch, self._position.bucket):
            return False  # the current bucket itself is not loaded yet: next_batch does that
        if spare.place != (following.epoch, following.bucket):
            self._begin(spare, following.epoch, following.bucket)
        if not spare.pending:
            return False
        self._read_one(spare)
        return True

    def _after(self, epoch: int, bucket: int) -> Position:
        return Position(epoch, bucket + 1) if bucket + 1 < self._plan.num_buckets else Position(epoch + 1)

    def _load(self, epoch: int, number: int) -> _Bucket:
        if len(self._buckets) > 1 and self._buckets[1].place == (epoch, number):
            self._buckets.reverse()
        bucket = self._buckets[0]
        if bucket.place != (epoch, number):
            self._begin(bucket, epoch, number)
        while bucket.pending:
            self._read_one(bucket)
        return bucket

    def _begin(self, bucket: _Bucket, epoch: int, number: int) -> None:
        loaded = bucket.place != (-1, -1) and not bucket.pending
        bucket.place = (-1, -1)
        if self._plan.num_buckets == 1 and loaded:  # everything is here already: only a new order
            self._plan.permute(epoch, number, bucket.rows, bucket.order_N)
        else:
            bucket.rows = 0
            bucket.pending = self._plan.blocks(epoch, number)[::-1]
        bucket.place = (epoch, number)

    def _read_one(self, bucket: _Bucket) -> None:
        start, stop = bucket.pending[-1]
        rows = bucket.rows + self.reader.read_block(
            start, stop, bucket.rows_NW[bucket.rows :], self._following(bucket.place, bucket.pending[:-1])
        )
        if len(bucket.pending) == 1:
            self._plan.permute(*bucket.place, rows, bucket.order_N)
        # together and last: after Ctrl-C anywhere above, the block is simply read again
        bucket.rows, bucket.pending = rows, bucket.pending[:-1]

    def _following(self, place: tuple[int, int], pending: list[Block]) -> Iterator[Block]:
        """The blocks of a bucket that are still to be read, and those of the buckets after it; a single bucket is read once."""
        yield from reversed(pending)
        while self._plan.num_buckets > 1:
            after = self._after(*place)
            place = after.epoch, after.bucket
            yield from self._plan.blocks(*place)
