"""Shuffled batches for training: endless, reproducible, resumable, read ahead by one thread.

Shape legend: B rows in a batch, W width of a row.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor

from neuronmap.activations.blocks import BlockSource, Position, RowBlocks, ShufflePlan, Shuffler, make_plan
from neuronmap.activations.rows import RowSource
from neuronmap.activations.stream import ActivationStream
from neuronmap.errors import ConfigError, InputError, MismatchError

__all__ = ["ShuffledBatches"]

_STATE_FORMAT = 1
_READY_BATCHES = 2


class ShuffledBatches:
    """An endless iterator over shuffled batches of a row source.

    Each row comes exactly once per epoch; a batch may hold the end of one epoch and the start of the next. The
    order depends on (source, seed, batch_rows, bucket size) only. Tensors come from a ring of preallocated
    buffers: a batch is valid until the next but one is asked for.

    Args:
        source: a store, an array, or a stream.
        batch_rows: B, rows in a batch; may be more than the source holds.
        seed: of the order.
        bucket_rows: rows mixed at once in memory; ``auto`` is 10^6, or what a quarter of the free memory holds.
        dtype: of the batches.
        scale: values are multiplied by it on the way (the input scale of training), saving a pass.
        prefetch: read ahead in a thread. A stream whose model runs on a CPU does not: both would want the same cores.
        once: the rows are to be used once: a stream on an accelerator then takes smaller buckets, so that training and model overlap
            from early on.
        beside: bytes that other sources hold for each row of this one, where several are shuffled side by side: ``auto`` then counts them.

    Attributes:
        waited_seconds: time that :func:`next` has taken so far: how long the caller waited for rows to be read or computed.

    Raises:
        ConfigError: for sizes that are not positive.
        InputError: if the source has no rows.

    Example:
        >>> import torch
        >>> from neuronmap.activations import ArrayRows
        >>> with ShuffledBatches(ArrayRows(torch.ones(10, 4)), 3, seed=0) as batches:
        ...     next(batches).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        source: RowSource | ActivationStream,
        batch_rows: int,
        *,
        seed: int,
        bucket_rows: int | Literal["auto"] = "auto",
        dtype: torch.dtype = torch.float32,
        scale: float = 1.0,
        prefetch: bool = True,
        once: bool = False,
        beside: int = 0,
    ) -> None:
        if batch_rows < 1:
            raise ConfigError(f"batch_rows = {batch_rows}: a batch needs at least 1 row.")
        self._blocks: BlockSource = source if isinstance(source, ActivationStream) else RowBlocks(source)
        if self._blocks.num_units < 1:
            raise InputError("The source has no rows to make batches from.")
        self._batch_rows, self._dtype, self._scale, self._asked_bucket = batch_rows, dtype, scale, bucket_rows
        self._threaded = prefetch and self._blocks.in_background
        self._plan = make_plan(self._blocks, bucket_rows, seed, threaded=self._threaded, once=once, beside=beside)
        self._position = Position()
        self._feed: _DirectFeed | _ThreadFeed | None = None
        self._stopper: Any = None
        self.waited_seconds = 0.0

    @property
    def epoch(self) -> int:
        """Passes over the source that are complete (that of the next row, from 0)."""
        return self._position.epoch

    @property
    def batch(self) -> int:
        """Batches given so far: the number of the next one."""
        return self._position.batch

    @property
    def bucket_rows(self) -> int:
        """Most rows mixed at once."""
        return self._plan.bucket_units * self._blocks.rows_per_unit

    @property
    def nbytes(self) -> int:
        """Memory that the buffers take while batches are drawn: buckets, their orders, and the ring."""
        values = self._blocks.width * self._blocks.dtype.itemsize
        buckets = 2 if self._threaded and self._plan.num_buckets > 1 else 1
        ring = self._ring_size() * self._batch_rows * self._blocks.width * self._dtype.itemsize
        return buckets * self.bucket_rows * (values + 8) + self._batch_rows * values + ring

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        started = time.perf_counter()
        if self._feed is None:
            self._feed = self._start()
        batch_BW, self._position = self._feed.take()
        self.waited_seconds += time.perf_counter() - started
        return batch_BW

    def state(self) -> dict[str, Any]:
        """Where the sequence stands after the last batch given, as plain JSON types, for :meth:`restore`."""
        plan, place = self._plan, self._position
        return {
            "format": _STATE_FORMAT,
            "source": self._blocks.digest,
            "seed": plan.seed,
            "batch_rows": self._batch_rows,
            "num_units": plan.num_units,
            "block_units": plan.block_units,
            "blocks_in_bucket": plan.blocks_in_bucket,
            "epoch": place.epoch,
            "bucket": place.bucket,
            "row": place.row,
            "batch": place.batch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with exactly the batches that followed when ``state`` was taken.

        With ``bucket_rows="auto"`` the bucket size of the state is taken over, whatever memory is free now.

        Raises:
            MismatchError: if the state belongs to another source, seed, batch size or bucket size.
        """
        missing = [key for key in self.state() if not isinstance(state.get(key), str if key == "source" else int)]
        if missing or state["format"] != _STATE_FORMAT:
            raise MismatchError(
                f"This is not a shuffle state of format {_STATE_FORMAT}: {', '.join(missing) or state['format']!r}."
            )
        plan = ShufflePlan(state["num_units"], state["block_units"], state["blocks_in_bucket"], state["seed"])
        own = self.state()
        fixed = ["source", "seed", "batch_rows", "num_units"]
        if self._asked_bucket != "auto":
            fixed += ["block_units", "blocks_in_bucket"]
        faults = [f"{key} is {own[key]!r}, the state has {state[key]!r}" for key in fixed if own[key] != state[key]]
        if faults:
            raise MismatchError(f"The shuffle state belongs to other data or settings: {'; '.join(faults)}.")
        self.close()
        self._plan = plan
        self._position = Position(state["epoch"], state["bucket"], state["row"], state["batch"])

    def close(self) -> None:
        """Stop reading ahead and release the buffers. Asking for another batch starts again where it stood."""
        feed, self._feed = self._feed, None
        if feed is not None:
            self._stopper.detach()
            feed.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ring_size(self) -> int:
        return 2 + (_READY_BATCHES if self._threaded else 0)  # two are with the caller

    def _start(self) -> _DirectFeed | _ThreadFeed:
        shape = (self._batch_rows, self._blocks.width)
        ring = [torch.empty(shape, dtype=self._dtype) for _ in range(self._ring_size())]
        shuffler = Shuffler(self._blocks, self._plan, self._batch_rows, self._scale, spare=self._threaded)
        shuffler.seek(self._position)
        feed = _ThreadFeed(shuffler, ring) if self._threaded else _DirectFeed(shuffler, ring)
        self._stopper = weakref.finalize(self, feed.stop)  # a forgotten close must not leave a thread behind
        return feed


class _DirectFeed:
    """Makes each batch when it is asked for, in one of two alternating buffers."""

    def __init__(self, shuffler: Shuffler, ring: list[Tensor]) -> None:
        self._shuffler, self._ring = shuffler, ring

    def take(self) -> tuple[Tensor, Position]:
        self._ring.reverse()
        return self._ring[0], self._shuffler.next_batch(self._ring[0])

    def stop(self) -> None:
        """Read no more."""
        self._shuffler.reader.close()


class _ThreadFeed:
    """A thread that keeps batches ready and, when enough are, reads on into the next bucket."""

    def __init__(self, shuffler: Shuffler, ring: list[Tensor]) -> None:
        self._shuffler = shuffler
        self._free = deque(ring)
        self._ready: deque[tuple[Tensor, Position]] = deque()
        self._given: deque[Tensor] = deque()
        self._failure: BaseException | None = None
        self._stopping = False
        self._at: tuple[int, int] | None = None
        self._kept_off_at: tuple[int, int] | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="neuronmap-prefetch", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Tensor, Position]:
        """The next batch; the one before the last is given back to the ring.

        Raises:
            whatever reading raised in the thread.
        """
        with self._changed:
            if len(self._given) == 2:
                self._free.append(self._given.popleft())
                self._changed.notify_all()
            while not self._ready and self._failure is None:
                self._changed.wait()
            if not self._ready and self._failure is not None:
                raise self._failure
            batch_BW, position = self._ready.popleft()
            self._given.append(batch_BW)
            return batch_BW, position

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._shuffler.reader.stop()
        if self._thread is not threading.current_thread():
            self._thread.join()
            self._shuffler.reader.close()

    def _work(self) -> None:
        try:
            while (slot_BW := self._free_slot()) is not None:
                position = self._shuffler.next_batch(slot_BW)
                self._at = (position.epoch, position.bucket)
                with self._changed:
                    self._ready.append((slot_BW, position))
                    self._changed.notify_all()
        except BaseException as failure:  # noqa: BLE001 (handed to the consumer, which raises it)
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _free_slot(self) -> Tensor | None:
        """A buffer to fill next, reading ahead while there is none; None when stopping."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                if self._free:
                    return self._free.popleft()
            if not self._read_ahead():
                with self._changed:
                    while not self._free and not self._stopping:
                        self._changed.wait()

    def _read_ahead(self) -> bool:
        """One block ahead; False when there is nothing to do, or it cannot be read.

        What cannot be read ahead is read again when a batch needs it, and that failure is told. The batches before it are given: of
        several processes all come as far, whichever had read ahead further.
        """
        if self._at == self._kept_off_at is not None:
            return False
        try:
            return self._shuffler.prepare_ahead()
        except Exception:  # noqa: BLE001 (it is read again)
            self._kept_off_at = self._at
            return False
