"""Exchanges between threads of several processes that must not wait for a thread that never comes.

A collective of gloo cannot be left: a thread that has called it waits until every process has. So the processes first note in their store
who has come, and call only when all have. The note is one value, changed by compare-and-set alone; therefore it is decided once for all
whether an exchange takes place, also when one leaves while another comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as distributed
from torch import Tensor

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["GlooExchange", "Meeting"]

_FIRST_PAUSE, _LONGEST_PAUSE = 1e-4, 5e-3
"""Seconds between looks at the note: more with each look, and the longest in proportion to the processes that look."""


class _Note(NamedTuple):
    """Who has come to which exchange.

    Attributes:
        number: of the newest exchange that somebody has come to.
        come: bit r is set when process r has come to it.
        left: whether somebody has left; nobody comes any more then.
    """

    number: int = 0
    come: int = 0
    left: bool = False

    @classmethod
    def parsed(cls, written: bytes) -> _Note:
        number, come, left = (int(part) for part in written.split())
        return cls(number, come, bool(left))

    def __str__(self) -> str:
        return f"{self.number} {self.come} {int(self.left)}"


class Meeting:
    """Where several processes meet again and again, until one of them leaves.

    Args:
        store: what all of them reach.
        key: of the note; the same on all, and new.
        rank: place of this process, from 0.
        count: how many there are.
    """

    def __init__(self, store: Store, key: str, rank: int, count: int) -> None:
        self._store, self._key, self._rank = store, key, rank
        self._all = (1 << count) - 1
        self._longest_pause = _LONGEST_PAUSE * max(1.0, count / 16)
        self._number = 0  # of the next exchange; the note begins with it, and with nobody there
        self._note = _Note()
        self._store.compare_set(key, "", str(self._note))

    def all_come(self, leaving: Callable[[], bool]) -> bool:
        """Come, and wait for the others; False if somebody left before all had come.

        Args:
            leaving: asked while waiting: whether this process leaves.
        """
        while True:
            note = self._note
            if note.left:
                return False
            come = note.come if note.number == self._number else 0
            if self._changed_to(_Note(self._number, come | 1 << self._rank)):  # its bit makes it this process's change
                break
        pause = _FIRST_PAUSE
        while not self._complete:
            if self._note.left:
                return False
            if leaving():
                self._changed_to(self._note._replace(left=True))
                continue
            time.sleep(pause)
            pause = min(2 * pause, self._longest_pause)
            self._note = _Note.parsed(self._store.get(self._key))
        self._number += 1
        return True

    def leave(self) -> None:
        """Come to no exchange any more, and let the others know."""
        while not self._note.left:
            self._changed_to(self._note._replace(left=True))

    @property
    def _complete(self) -> bool:
        """Whether all have come to the exchange that this process has come to; a later one has begun only after that."""
        return self._note.number > self._number or self._note.come == self._all

    def _changed_to(self, wanted: _Note) -> bool:
        """Write the note if it is what this process saw last; see what it is now."""
        self._note = _Note.parsed(self._store.compare_set(self._key, str(self._note), str(wanted)))
        return self._note == wanted


class GlooExchange:
    """Answers :class:`~neuronmap.activations.together.Exchange` over a group of gloo of its own, between all processes.

    Every process makes one at the same place.

    Args:
        rank: place of this process, from 0.
        count: how many there are.
        patience: how long one waits in an exchange that has begun.
    """

    def __init__(self, rank: int, count: int, patience: timedelta) -> None:
        self._group: distributed.ProcessGroup | None = distributed.new_group(backend="gloo", timeout=patience)
        from torch.distributed.distributed_c10d import _get_default_store  # not in every build of torch

        store = _get_default_store()
        if hasattr(store, "clone"):  # not in every torch
            store = store.clone()  # a connection of its own, which no call of another thread keeps waiting
        self._meeting = Meeting(store, f"neuronmap exchange {self._group.group_name}", rank, count)

    def all_come(self, leaving: Callable[[], bool]) -> bool:
        """As :meth:`Meeting.all_come`."""
        return self._meeting.all_come(leaving)

    def tell(self, value: Any, sender: int) -> Any:
        """A small picklable value of one process, on all."""
        told = [value]
        distributed.broadcast_object_list(told, sender, group=self._group)
        return told[0]

    def spread_(self, tensor: Tensor, sender: int) -> None:
        """Overwrite a contiguous tensor in main memory with that of one process."""
        distributed.broadcast(tensor.view(torch.uint8), sender, group=self._group)  # bytes: of any format

    def close(self) -> None:
        """Leave; no thread of gloo is left of it."""
        group, self._group = self._group, None
        if group is None:
            return
        with suppress(RuntimeError):  # of a store that is gone with its process
            self._meeting.leave()
        with suppress(ValueError):  # the team was closed before
            distributed.destroy_process_group(group)
