"""The processes that torchrun started, as training sees them.

One process is a team of one, and every call on it returns at once. Between several, tensors go over NCCL on CUDA and over gloo on a CPU.
Every member makes the same calls in the same order.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from neuronmap.errors import NeuronMapError

__all__ = ["Team", "open_team"]

T = TypeVar("T")
U = TypeVar("U")

_PATIENCE = timedelta(days=2)
"""How long members wait for each other: rank 0 may harvest for hours. One that fails is noticed by torchrun, which ends the others."""


class Team:
    """This process among those that train together; answers :class:`~neuronmap.saes.ranks.Ranks` as well.

    Attributes:
        rank: place of this process, from 0.
        count: how many there are.
        beside: how many of the others run on this machine.
    """

    def __init__(self, rank: int = 0, count: int = 1, beside: int = 0) -> None:
        self.rank, self.count, self.beside = rank, count, beside

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes files and speaks."""
        return self.rank == 0

    # --- tensors -------------------------------------------------------------------------------------------------

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the members, in place."""
        if self.count > 1:
            distributed.all_reduce(_contiguous(tensor))
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """The mean over the members, in place."""
        return self.sum_(tensor).div_(self.count) if self.count > 1 else tensor

    def gathered(self, tensor: Tensor) -> Tensor:
        """[W, ...], the tensor of each member, all of one shape."""
        found = [torch.empty_like(tensor) for _ in range(self.count)] if self.count > 1 else [tensor]
        if self.count > 1:
            distributed.all_gather(found, tensor)
        return torch.stack(found)

    def copy_first_(self, tensor: Tensor) -> None:
        """Overwrite a tensor with that of rank 0."""
        if self.count > 1:
            distributed.broadcast(_contiguous(tensor), 0)

    def share(self, batch_BD: Tensor) -> Tensor:
        """This member's rows of a batch: the rank-th of equal runs."""
        rows = len(batch_BD) // self.count
        return batch_BD[self.rank * rows : (self.rank + 1) * rows]

    # --- decisions -----------------------------------------------------------------------------------------------

    def any(self, flag: bool) -> bool:
        """Whether a member says so."""
        if self.count == 1:
            return flag
        return bool(self.sum_(torch.tensor(int(flag))))

    def gather(self, value: Any) -> list[Any]:
        """A small picklable value of each member."""
        found = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        self.any(False)

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on rank 0, on all; only rank 0 calls it, and the value is picklable.

        Raises:
            NeuronMapError: on the others, when it raised on rank 0.
        """
        if self.count == 1:
            return make()
        told: list[Any] = [None, False]
        if not self.leads:
            distributed.broadcast_object_list(told, 0)
            if not told[1]:
                raise NeuronMapError("Process 0 failed, and this one has nothing to go on with.")
            value: T = told[0]
            return value
        try:
            value = make()
            told = [value, True]
        finally:
            distributed.broadcast_object_list(told, 0)
        return value

    def first_then(self, first: Callable[[], T], others: Callable[[], U]) -> T | U:
        """Rank 0 does ``first``; when that has succeeded, the others do ``others``.

        Raises:
            NeuronMapError: on the others, when ``first`` raised.
        """
        found: list[T] = []
        self.from_first(lambda: found.append(first()))
        return found[0] if self.leads else others()


_ALONE = Team()


def open_team() -> Team:
    """The processes that torchrun started (or a process group that is open already); a team of one elsewhere.

    On CUDA each takes the device of its local rank.
    """
    if not distributed.is_available():
        return _ALONE
    if not distributed.is_initialized():
        asked = int(os.environ.get("WORLD_SIZE", "1"))
        if asked < 2 or "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
            return _ALONE
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            if (local := int(os.environ.get("LOCAL_RANK", "0"))) < torch.cuda.device_count():
                torch.cuda.set_device(
                    local
                )  # fewer GPUs than processes is refused once it is known that GPUs are wanted
        distributed.init_process_group(backend, timeout=_PATIENCE)
        atexit.register(_close)
    count = distributed.get_world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    return Team(distributed.get_rank(), count, local - 1) if count > 1 else _ALONE


def _close() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _contiguous(tensor: Tensor) -> Tensor:
    """The same memory as a contiguous tensor: W_enc lies by feature."""
    tensor = tensor.detach()
    return tensor if tensor.is_contiguous() else tensor.T
