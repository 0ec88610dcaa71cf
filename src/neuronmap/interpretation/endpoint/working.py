"""Many questions at once, so that nothing that was paid for is lost.

Workers take items in their order. When the budget is used up, the endpoint fails, or Ctrl-C (or SIGTERM) comes, no item is begun any more
and those under way are waited for: their answers are paid. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from neuronmap.errors import BudgetError, Interrupted, NeuronMapError

__all__ = ["run", "work"]

T = TypeVar("T")
Result = TypeVar("Result")


async def work(items: Iterable[T] | AsyncIterable[T], do: Callable[[T], Awaitable[None]], workers: int) -> str:
    """Do something with every item, some at once.

    Args:
        items: taken one after the other, as workers are free; what takes long to make comes as an asynchronous iterable.
        do: what is done with one; what it raises ends the work.
        workers: how many at once.

    Returns:
        Why it ended early, where that is the budget; empty otherwise.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came.
        NeuronMapError: the first error of an item, once the others under way are done.
    """
    queue, faults, stop = _in_turn(items), list[BaseException](), asyncio.Event()

    async def worker() -> None:
        while not stop.is_set():
            try:
                item = await queue()
                if isinstance(item, _End) or stop.is_set():
                    return
                await do(item)
            except NeuronMapError as error:
                faults.append(error)
                stop.set()
            await asyncio.sleep(0)

    with _signals(stop) as signalled:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    other = next((fault for fault in faults if not isinstance(fault, BudgetError)), None)
    if other is not None:
        raise other
    if signalled:
        raise Interrupted(
            "Stopped.", hint="What was finished is kept. Run the same command again; it goes on from there."
        )
    return str(faults[0].args[0]) if faults else ""


class _End:
    """There is no item any more."""


async def _slowly(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def _in_turn(items: Iterable[T] | AsyncIterable[T]) -> Callable[[], Awaitable[T | _End]]:
    """The next item, for one worker at a time."""
    lock = asyncio.Lock()
    source = _slowly(items) if isinstance(items, Iterable) else aiter(items)

    async def following() -> T | _End:
        async with lock:
            return await anext(source, _End())

    return following


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM sets ``stop``; the second does what it always does. Only where signals can be had: the main thread."""
    came: list[int] = []
    loop = asyncio.get_running_loop()
    handled = []

    def on(number: signal.Signals) -> None:
        came.append(number)
        stop.set()
        loop.remove_signal_handler(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, on, number)
                handled.append(number)
    try:
        yield came
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run to the end from plain code, also where a loop runs already (a notebook): then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    found: list[Result] = []
    faults: list[BaseException] = []

    def inside() -> None:
        try:
            found.append(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            faults.append(error)

    thread = threading.Thread(target=inside, name="neuronmap-endpoint")
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return found[0]
