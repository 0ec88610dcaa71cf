"""The processes that torchrun started, as training sees them.

Shapes: W = R x T processes; F features, of which T share, and R times the rows of a batch.

One process is a team of one, and every call on it returns at once. Between several, tensors go over NCCL on CUDA and over gloo on a CPU.
Every member makes the same calls in the same order. A team may be laid out as a mesh: processes T by T hold the same rows and different
features, and R of them, T apart, the same features and different rows.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from neuronmap.errors import NeuronMapError
from neuronmap.training.interrupts import stop_requested
from neuronmap.training.parallel.exchange import GlooExchange

__all__ = ["Group", "Team", "open_team"]

T = TypeVar("T")
U = TypeVar("U")

_PATIENCE = timedelta(days=2)
"""How long members wait for each other: rank 0 may harvest for hours. One that fails is noticed by torchrun, which ends the others."""


class Group:
    """Processes that exchange tensors; answers :class:`~neuronmap.saes.ranks.Ranks`.

    Attributes:
        rank: place of this process in the group, from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: distributed.ProcessGroup | None = None) -> None:
        self.rank, self.count, self._group = rank, count, group

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the members, in place."""
        if self.count > 1:
            distributed.all_reduce(_contiguous(tensor), group=self._group)
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """The mean over the members, in place."""
        return self.sum_(tensor).div_(self.count) if self.count > 1 else tensor

    def gathered(self, tensor: Tensor) -> Tensor:
        """[count, ...], the tensor of each member, all of one shape."""
        found = [torch.empty_like(tensor) for _ in range(self.count)] if self.count > 1 else [tensor]
        if self.count > 1:
            distributed.all_gather(found, tensor, group=self._group)
        return torch.stack(found)

    def copy_first_(self, tensor: Tensor) -> None:
        """Overwrite a tensor with that of the group's first."""
        if self.count > 1:
            distributed.broadcast(_contiguous(tensor), group=self._group, group_src=0)

    # --- matrices by rows: each member keeps some up to date for all -------------------------------------------------

    def share_of(self, rows: int) -> tuple[int, int]:
        """First and one past the last of this member's rows of a matrix."""
        return self._share_of(self.rank, rows)

    def _share_of(self, rank: int, rows: int) -> tuple[int, int]:
        each = -(-rows // self.count)
        return min(rank * each, rows), min((rank + 1) * each, rows)

    def mean_of_share_(self, matrix: Tensor) -> None:
        """Overwrite this member's rows of a contiguous matrix with their mean over the members; the others become undefined."""
        if self.count == 1:
            return
        start, stop = self.share_of(len(matrix))
        if len(matrix) % self.count:  # members would take different numbers of rows
            distributed.all_reduce(matrix, group=self._group)
        else:
            _REDUCE_SCATTER(matrix[start:stop], matrix, group=self._group)
        matrix[start:stop].div_(self.count)

    def spread_shares_(self, matrix: Tensor) -> None:
        """Give every member the rows that each has of a contiguous matrix, in place."""
        if self.count == 1:
            return
        if len(matrix) % self.count == 0:
            start, stop = self.share_of(len(matrix))
            _ALL_GATHER(matrix, matrix[start:stop], group=self._group)
            return
        for rank in range(self.count):
            start, stop = self._share_of(rank, len(matrix))
            if start < stop:
                distributed.broadcast(matrix[start:stop], group=self._group, group_src=rank)


class Team(Group):
    """This process among those that train together.

    Attributes:
        rank: place of this process, from 0.
        count: how many there are.
        beside: how many of the others run on this machine.
        rows: those that hold the same features, and share the rows of a batch; all of them unless the team is laid out otherwise.
        features: those that hold the same rows, and share the features.
    """

    def __init__(self, rank: int = 0, count: int = 1, beside: int = 0) -> None:
        super().__init__(rank, count)
        self.beside = beside
        self.rows: Group = self
        self.features: Group = _SINGLE

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes files and speaks."""
        return self.rank == 0

    def laid_out(self, feature_ranks: int, device: str) -> Team:
        """The same processes as a mesh in which ``feature_ranks`` share the features and the rest the rows.

        Args:
            feature_ranks: T; ``count`` is a multiple of it.
            device: type of the device that tensors lie on, ``cpu`` or ``cuda``.
        """
        if feature_ranks == 1:
            return self
        from torch.distributed.device_mesh import init_device_mesh

        shape = (self.count // feature_ranks, feature_ranks)
        mesh = init_device_mesh(device, shape, mesh_dim_names=("rows", "features"))
        made = Team(self.rank, self.count, self.beside)
        made.rows = Group(mesh.get_local_rank("rows"), shape[0], mesh.get_group("rows"))
        made.features = Group(mesh.get_local_rank("features"), shape[1], mesh.get_group("features"))
        return made

    def share(self, batch_BD: Tensor) -> Tensor:
        """This member's rows of a batch: one of equal runs."""
        rows = len(batch_BD) // self.rows.count
        return batch_BD[self.rows.rank * rows : (self.rows.rank + 1) * rows]

    def to_first(self, tensor: Tensor) -> None:
        """Send a contiguous tensor to rank 0, which calls :meth:`received` for it."""
        distributed.send(tensor, 0)

    def received(self, out: Tensor, sender: int) -> Tensor:
        """On rank 0: the tensor that another member sends, in ``out``."""
        distributed.recv(out, sender)
        return out

    def hand(self, value: Any, to: int) -> None:
        """Send a picklable value to another member, which calls :meth:`take`."""
        distributed.send_object_list([value], to)

    def take(self, sender: int) -> Any:
        """The value that another member sends."""
        found: list[Any] = [None]
        distributed.recv_object_list(found, sender)
        return found[0]

    @property
    def stopping(self) -> bool:
        """Whether this member was asked to stop."""
        return stop_requested()

    def exchange(self) -> GlooExchange:
        """A line of its own between all members, for a thread beside the training; it is to be closed."""
        return GlooExchange(self.rank, self.count, _PATIENCE)

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


_SINGLE = Group()
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
        # A thread of gloo that lets go of a tensor while Python ends aborts the process, so none may be left then. This module
        # has the group of all as a default argument; first read while there is one (transformers reads it), it would keep it.
        importlib.import_module("torch.distributed.nn.functional")
        distributed.init_process_group(backend, timeout=_PATIENCE)
        atexit.register(_close)
    count = distributed.get_world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    return Team(distributed.get_rank(), count, local - 1) if count > 1 else _ALONE


def _close() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()  # groups of a mesh that a cycle holds have threads, too


def _named(new: str, old: str) -> Callable[..., Any]:
    """A function of ``torch.distributed`` by the newer of its names that there is."""
    found: Callable[..., Any] = getattr(distributed, new if hasattr(distributed, new) else old, _unavailable)
    return found


def _unavailable(*_: Any, **__: Any) -> None:
    raise NeuronMapError("This build of torch has no torch.distributed.")


_REDUCE_SCATTER = _named("reduce_scatter_single", "reduce_scatter_tensor")
_ALL_GATHER = _named("all_gather_single", "all_gather_into_tensor")


def _contiguous(tensor: Tensor) -> Tensor:
    """The same memory as a contiguous tensor: W_enc lies by feature."""
    tensor = tensor.detach()
    return tensor if tensor.is_contiguous() else tensor.T
