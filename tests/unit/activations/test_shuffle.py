"""Shuffled batches: every row once an epoch, the same order from the same seed, and exact continuation."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.activations.blocks import RowBlocks, Shuffler, make_plan
from neuronmap.errors import ConfigError, MismatchError

MODES = pytest.mark.parametrize("prefetch", [True, False])


def numbered(rows: int, width: int = 2) -> ArrayRows:
    """Row i holds i in every column, so that a batch says which rows it holds."""
    return ArrayRows(torch.arange(float(rows)).unsqueeze(1).expand(rows, width).contiguous())


def ids(batches: ShuffledBatches, count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        batch_BW = next(batches)
        assert torch.equal(batch_BW[:, 0], batch_BW[:, -1])
        found += [round(value) for value in batch_BW[:, 0].tolist()]
    return found


@MODES
@pytest.mark.parametrize(
    ("rows", "batch", "bucket"),
    [
        (100, 7, "auto"),
        (100, 7, 30),
        (1, 4, "auto"),
        (3, 10, 2),
        (257, 64, 64),
        (50, 50, 50),
        (500, 33, 130),
        (9, 2, 1),
    ],
)
def test_every_row_comes_once_an_epoch_across_batch_borders(rows: int, batch: int, bucket: Any, prefetch: bool) -> None:
    epochs = 4
    with ShuffledBatches(numbered(rows), batch, seed=1, bucket_rows=bucket, prefetch=prefetch) as batches:
        found = ids(batches, -(-rows * epochs // batch))
    for epoch in range(epochs):
        assert Counter(found[epoch * rows : (epoch + 1) * rows]) == Counter(range(rows))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), batch=st.integers(1, 80), bucket=st.integers(1, 400), stop=st.integers(0, 30))
def test_restoring_anywhere_continues_exactly(rows: int, batch: int, bucket: int, stop: int) -> None:
    source = numbered(rows)
    with ShuffledBatches(source, batch, seed=5, bucket_rows=bucket, prefetch=False) as batches:
        ids(batches, stop)
        state = json.loads(json.dumps(batches.state()))
        expected = ids(batches, 12)
    assert state["batch"] == stop
    with ShuffledBatches(source, batch, seed=5, bucket_rows=bucket, prefetch=False) as fresh:
        fresh.restore(state)
        assert fresh.state() == state
        assert ids(fresh, 12) == expected


def test_restoring_with_the_thread_running_continues_exactly() -> None:
    source = numbered(1000)
    with ShuffledBatches(source, 48, seed=2, bucket_rows=300) as batches:
        states, seen = [], []
        for _ in range(60):
            states.append(batches.state())
            seen.append(ids(batches, 1))
        for place in (0, 7, 59, 21, 20):
            batches.restore(states[place])
            assert [ids(batches, 1) for _ in range(60 - place)] == seen[place:]


def test_prefetching_does_not_change_the_order() -> None:
    results = []
    for prefetch in (True, False):
        with ShuffledBatches(numbered(700), 31, seed=3, bucket_rows=200, prefetch=prefetch) as batches:
            results.append(ids(batches, 80))
    assert results[0] == results[1]


def test_another_process_gives_the_same_order() -> None:
    code = (
        "import torch, sys\n"
        "from neuronmap.activations import ArrayRows, ShuffledBatches\n"
        "torch.manual_seed(99)\n"
        "x = torch.arange(500.).unsqueeze(1).expand(500, 2).contiguous()\n"
        "with ShuffledBatches(ArrayRows(x), 37, seed=11, bucket_rows=128) as b:\n"
        "    print([int(v) for _ in range(30) for v in next(b)[:, 0]])\n"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with ShuffledBatches(numbered(500), 37, seed=11, bucket_rows=128) as batches:
        assert json.loads(other) == ids(batches, 30)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with ShuffledBatches(numbered(50), 8, seed=0, bucket_rows=20, prefetch=False) as batches:
        ids(batches, 20)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bucket", ["auto", 300])
def test_seeds_and_epochs_give_different_orders_that_mix_the_whole(bucket: Any) -> None:
    rows = 1200
    orders = []
    for seed in (0, 1):
        with ShuffledBatches(numbered(rows), rows, seed=seed, bucket_rows=bucket) as batches:
            orders += [ids(batches, 1), ids(batches, 1)]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        first_quarter = torch.tensor(order[: rows // 4]).float()
        # 300 of 0..1199: the mean of a fair draw has a standard deviation of about 17; blocks widen it
        assert abs(float(first_quarter.mean()) - 599.5) < 150
        neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(order))
        assert neighbours < 60


def test_blocks_are_spread_over_the_source_when_it_does_not_fit() -> None:
    plan = make_plan(RowBlocks(numbered(100_000, 1)), 10_000, seed=0, threaded=True)
    blocks = plan.blocks(0, 0)
    assert plan.bucket_units <= 10_000
    assert len(blocks) >= 64
    assert blocks == sorted(blocks)
    assert plan.blocks(1, 0) != blocks != plan.blocks(0, 1)  # an epoch groups them anew
    assert blocks[0][0] < 10_000
    assert blocks[-1][1] > 90_000
    covered = sorted(block for bucket in range(plan.num_buckets) for block in plan.blocks(3, bucket))
    assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]


def test_auto_bucket_is_bounded_by_a_quarter_of_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Free:
        available = 8_000_000

    source = RowBlocks(numbered(300_000, 2))  # 8 bytes of values and 8 of order a row
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free)
    plan = make_plan(source, "auto", 0, threaded=True)
    assert plan.bucket_units == 1 << 15  # two buckets of 16 B x 32,768 <= 2,000,000 B / 2 < two of the next power
    Free.available = 10**9
    assert make_plan(source, "auto", 0, threaded=True).num_buckets == 1


class Counted(ArrayRows):
    reads = 0

    def read(self, start: int, stop: int, out: Any = None) -> torch.Tensor:
        self.reads += 1
        return super().read(start, stop, out)


def test_the_memory_of_the_buffers_is_known_beforehand() -> None:
    source = numbered(1000, 4)  # 16 bytes of values and 8 of order a row
    alone = ShuffledBatches(source, 10, seed=0, prefetch=False)
    assert alone.nbytes == 1000 * 24 + 10 * 16 + 2 * 10 * 16
    ahead = ShuffledBatches(source, 10, seed=0, bucket_rows=100)
    assert ahead.nbytes == 2 * 100 * 24 + 10 * 16 + 4 * 10 * 16


def test_what_fits_in_one_bucket_is_read_once_for_all_epochs() -> None:
    source = Counted(torch.randn(500, 3))
    with ShuffledBatches(source, 100, seed=0, prefetch=False) as batches:
        for _ in range(5):
            next(batches)
        reads = source.reads
        for _ in range(50):
            next(batches)
    assert source.reads == reads


@MODES
@pytest.mark.parametrize("width", [4, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_arrive_exactly_in_float32_and_scaled(dtype: torch.dtype, width: int, prefetch: bool) -> None:
    x = torch.randn(64, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    with ShuffledBatches(ArrayRows(x), 64, seed=0, scale=0.3, prefetch=prefetch) as batches:
        got = next(batches)
    assert got.dtype == torch.float32
    expected = x.float() * 0.3
    assert torch.equal(got[got[:, 0].argsort()], expected[expected[:, 0].argsort()])


@MODES
def test_a_batch_stays_valid_until_the_next_but_one(prefetch: bool) -> None:
    with ShuffledBatches(numbered(400), 16, seed=0, bucket_rows=100, prefetch=prefetch) as batches:
        before = next(batches)
        pointers = {before.data_ptr()}
        for _ in range(100):
            copy = before.clone()
            after = next(batches)
            pointers.add(after.data_ptr())
            assert torch.equal(before, copy)
            before = after
    assert len(pointers) <= 4  # a ring: no new tensor for each batch


def test_state_of_other_data_or_settings_is_refused_with_every_difference() -> None:
    with ShuffledBatches(numbered(50), 8, seed=0) as batches:
        next(batches)
        state = batches.state()
    others = [
        (ShuffledBatches(numbered(51), 8, seed=0), "source is .*num_units is 51"),
        (ShuffledBatches(numbered(50), 9, seed=1), "seed is 1, the state has 0; batch_rows is 9"),
        (ShuffledBatches(numbered(50), 8, seed=0, bucket_rows=10), "blocks_in_bucket"),
    ]
    for other, reason in others:
        with pytest.raises(MismatchError, match=reason):
            other.restore(state)
    with pytest.raises(MismatchError, match="not a shuffle state"):
        others[0][0].restore({"epoch": 0})


def test_restore_takes_over_an_automatic_bucket_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Free:
        available = 16_000

    source = numbered(300)
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: Free)
        small = ShuffledBatches(source, 20, seed=0)
    assert small.bucket_rows < 300
    ids(small, 7)
    state = small.state()
    expected = ids(small, 30)
    small.close()
    with ShuffledBatches(source, 20, seed=0) as large:
        large.restore(state)
        assert large.bucket_rows == small.bucket_rows
        assert ids(large, 30) == expected


class Failing(ArrayRows):
    fail = True

    def read(self, start: int, stop: int, out: Any = None) -> torch.Tensor:
        if start >= 60 and self.fail:
            raise OSError("the disk went away")
        return super().read(start, stop, out)


@MODES
def test_an_error_while_reading_reaches_the_consumer_and_can_be_survived(prefetch: bool) -> None:
    source = Failing(torch.arange(100.0).unsqueeze(1))
    batches = ShuffledBatches(source, 10, seed=0, bucket_rows=20, prefetch=prefetch)
    found: list[int] = []
    with pytest.raises(OSError, match="went away"):  # noqa: PT012 (how many come before it depends on the order)
        for _ in range(10):
            found += ids(batches, 1)
    with pytest.raises(OSError, match="went away"):
        next(batches)
    source.fail = False
    batches.close()
    found += ids(batches, 10 - len(found) // 10)
    assert sorted(found) == list(range(100))
    batches.close()


class Ending(ArrayRows):
    """A source that goes away after 60 reads."""

    reads = 0

    def read(self, start: int, stop: int, out: Any = None) -> torch.Tensor:
        self.reads += 1
        if self.reads > 60:
            raise OSError("the disk went away")
        return super().read(start, stop, out)


def test_an_error_while_reading_ahead_is_told_when_a_batch_needs_what_could_not_be_read() -> None:
    """As many batches are given before it as without a thread, however far that was ahead."""
    given = []
    for prefetch in (True, False):
        source = Ending(torch.arange(100.0).unsqueeze(1))
        batches = ShuffledBatches(source, 10, seed=3, bucket_rows=40, prefetch=prefetch)
        found: list[int] = []
        with pytest.raises(OSError, match="went away"):  # noqa: PT012 (as many as come)
            for _ in range(10):
                time.sleep(0.01)  # the thread reads on meanwhile
                found += ids(batches, 1)
        given.append(found)
        batches.close()
    assert given[0] == given[1]
    assert len(given[0]) == 40  # the first bucket


class Following(RowBlocks):
    """Notes each block that is read, and those that were said to follow it."""

    def __init__(self, rows: int) -> None:
        super().__init__(numbered(rows))
        self.seen: list[tuple[tuple[int, int], list[tuple[int, int]]]] = []

    def reader(self) -> Any:
        plain = super().reader()
        read = plain.read_block

        def read_block(start: int, stop: int, out: torch.Tensor, following: Any) -> int:
            self.seen.append(((start, stop), list(itertools.islice(following, 6))))
            return read(start, stop, out, ())

        plain.read_block = read_block
        return plain


@pytest.mark.parametrize("spare", [True, False])
def test_a_source_is_told_which_blocks_follow_also_in_later_buckets_and_epochs(spare: bool) -> None:
    source = Following(50)
    plan = make_plan(source, 12, seed=2, threaded=spare)
    assert plan.num_buckets == 5
    shuffler = Shuffler(source, plan, 7, 1.0, spare=spare)
    for _ in range(30):
        shuffler.next_batch(torch.empty(7, 2))
        while shuffler.prepare_ahead():
            pass
    blocks = [block for block, _ in source.seen]
    assert len(blocks) > 200
    for at, (_, following) in enumerate(source.seen[:-6]):
        assert following == blocks[at + 1 : at + 7]


def test_after_a_single_bucket_nothing_follows() -> None:
    source = Following(50)
    shuffler = Shuffler(source, make_plan(source, 50, seed=2, threaded=True), 7, 1.0, spare=True)
    for _ in range(30):
        shuffler.next_batch(torch.empty(7, 2))
    assert [len(following) for _, following in source.seen] == [min(6, 49 - at) for at in range(50)]


def prefetch_threads() -> int:
    return sum(thread.name == "neuronmap-prefetch" for thread in threading.enumerate())


def test_closing_or_dropping_ends_the_thread() -> None:
    batches = ShuffledBatches(numbered(1000), 10, seed=0, bucket_rows=100)
    assert prefetch_threads() == 0
    next(batches)
    assert prefetch_threads() == 1
    batches.close()
    batches.close()
    assert prefetch_threads() == 0
    next(batches)
    assert prefetch_threads() == 1
    del batches
    gc.collect()
    assert prefetch_threads() == 0


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_rows = 0"):
        ShuffledBatches(numbered(5), 0, seed=0)
    for bad in (0, -3, "big", 2.5, True):
        with pytest.raises(ConfigError, match="bucket_rows"):
            ShuffledBatches(numbered(5), 1, seed=0, bucket_rows=bad)  # type: ignore[arg-type]
