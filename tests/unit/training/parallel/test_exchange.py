"""Meetings of threads that may leave: whether an exchange takes place is decided once for all."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as distributed

from neuronmap.training.parallel.exchange import Meeting

COUNT = 3


def meetings(count: int = COUNT) -> list[Meeting]:
    store = distributed.HashStore()
    return [Meeting(store, "here", rank, count) for rank in range(count)]


def never() -> bool:
    return False


def test_nobody_goes_on_before_all_have_come():
    come, passed = [0] * COUNT, []

    def work(rank: int, meeting: Meeting) -> None:
        for number in range(20):
            time.sleep(0.001 * ((rank + number) % 3))
            come[rank] += 1
            assert meeting.all_come(never)
            passed.append((number, min(come)))

    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(work, range(COUNT), meetings()))
    assert len(passed) == 20 * COUNT
    assert all(least > number for number, least in passed)


@pytest.mark.parametrize("waits", [True, False])
def test_one_that_leaves_waits_for_nobody_and_nobody_for_it(waits):
    """Whether it waits for the others at the time or has not come."""
    first, second, third = meetings()
    leaving = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(second.all_come, never)
        if waits:
            told = pool.submit(first.all_come, leaving.is_set)
            time.sleep(0.02)
            assert not told.done()
            leaving.set()
            assert not told.result(timeout=30)
        else:
            first.leave()
        assert not other.result(timeout=30)
    assert not third.all_come(never)


def test_one_that_has_met_all_and_leaves_then_does_not_undo_it():
    one, other = meetings(2)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(other.all_come, never)
        assert one.all_come(never)
        one.leave()
        assert late.result(timeout=30)
    assert not other.all_come(never)


def test_all_have_made_as_many_exchanges_whenever_they_leave():
    drawn = random.Random(0)
    for _ in range(60):
        until = [drawn.uniform(0, 0.01) for _ in range(COUNT)]

        def work(meeting: Meeting, seconds: float) -> int:
            end, made = time.monotonic() + seconds, 0
            while meeting.all_come(lambda: time.monotonic() > end):
                made += 1
            meeting.leave()
            return made

        with ThreadPoolExecutor(COUNT) as pool:
            assert len(set(pool.map(work, meetings(), until))) == 1
