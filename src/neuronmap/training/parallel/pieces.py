"""The state of a run that lies on several processes, as one: which part of each tensor is where, and how rank 0 brings the parts together.

Shapes: D = d_in, F = d_sae; T processes hold F / T features each, and R processes the moments of a share of those.

A checkpoint is the one that a single process writes. Tensors have its names and shapes: ``sae.W_enc`` [D, F], ``adam.W_enc.first`` [D, F],
``dead.since_fired`` [F]. The whole of a tensor lies in no process's memory: rank 0 receives parts and puts each in its place of the file,
and each process reads from it what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.slices import FeatureSlice, feature_axis
from neuronmap.training.parallel.team import Team

__all__ = ["Part", "Place", "Placing", "bring_together", "whole_sae"]

_FEATURE_COUNTERS = ("dead.since_fired", "order.frequency")


@dataclass(frozen=True)
class Place:
    """Where a part lies in its whole tensor: ``start`` to before ``stop`` along an axis, or, without an axis, everywhere."""

    axis: int | None = None
    start: int = 0
    stop: int = 0

    @property
    def index(self) -> tuple[slice, ...]:
        """For indexing the whole."""
        return () if self.axis is None else (*(slice(None),) * self.axis, slice(self.start, self.stop))


@dataclass(frozen=True)
class Part:
    """What a process gives of a tensor."""

    tensor: Tensor
    place: Place = Place()


class Placing:
    """Where the tensors of a checkpoint lie among the processes.

    Args:
        sae: this process's.
        shares: first and one past the last of its features whose moments of a parameter this process keeps, by the parameter's name;
            those of others are kept by every process that holds the feature.
        team: the processes.
    """

    def __init__(self, sae: SparseAutoencoder, shares: Mapping[str, tuple[int, int]], team: Team) -> None:
        self._team, self._shares = team, shares
        self._slice = sae.slice or FeatureSlice(0, sae.d_sae, sae.d_sae)
        tensors = {**dict(sae.named_parameters()), **dict(sae.named_buffers())}
        self._axes = {f"sae.{name}": feature_axis(sae, tensor) for name, tensor in tensors.items()}
        self._axes |= dict.fromkeys(_FEATURE_COUNTERS, 0)

    def place(self, name: str) -> Place:
        """Which part of a tensor this process holds."""
        parameter = name.removeprefix("adam.").rpartition(".")[0] if name.startswith("adam.") else None
        axis = self._axes.get(name if parameter is None else f"sae.{parameter}")
        held = self._slice
        start, stop = self._shares.get(parameter or "", (0, held.width))
        if axis is None or stop - start == held.whole:
            return Place()
        return Place(axis, held.start + start, held.start + stop)

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Part]:
        """What this process gives of its tensors: each part of the whole is given by one process."""
        given = {}
        for name, tensor in tensors.items():
            place, team = self.place(name), self._team
            kept_by_one = name.startswith("adam.") and name.removeprefix("adam.").rpartition(".")[0] in self._shares
            if team.leads or kept_by_one or (place.axis is not None and team.rows.rank == 0):
                given[name] = Part(tensor, place)
        return given


def bring_together(
    team: Team, parts: Mapping[str, Part], begin: Callable[[dict[str, tuple[torch.dtype, tuple[int, ...]]]], None]
) -> Iterator[tuple[str, Place, Tensor]]:
    """On rank 0, every part of every tensor, name by name; the others send theirs, and nothing comes of the iterator there.

    Args:
        team: the processes; each of them runs the iterator to its end.
        parts: what this process gives.
        begin: is told, on rank 0, which tensors there are, before anything is sent. What it raises is an error on all.

    Raises:
        NeuronMapError: on the others, when ``begin`` raised.
    """
    told = team.gather(
        {name: (part.tensor.dtype, tuple(part.tensor.shape), part.place) for name, part in parts.items()}
    )
    names = sorted({name for one in told for name in one})

    def whole(name: str) -> tuple[torch.dtype, tuple[int, ...]]:
        owners = [one[name] for one in told if name in one]
        dtype, shape, place = owners[0]
        if place.axis is not None:
            last = max(other.stop for _, _, other in owners)
            shape = tuple(last if at == place.axis else size for at, size in enumerate(shape))
        return dtype, shape

    team.from_first(lambda: begin({name: whole(name) for name in names}))
    device = next(iter(parts.values())).tensor.device if parts else torch.device("cpu")
    for name in names:
        for rank, one in enumerate(told):
            if name not in one:
                continue
            dtype, shape, place = one[name]
            if rank == team.rank:
                tensor = parts[name].tensor.detach().contiguous()
                if team.leads:
                    yield name, place, tensor
                else:
                    team.to_first(tensor)
            elif team.leads:
                yield name, place, team.received(torch.empty(shape, dtype=dtype, device=device), rank)


def whole_sae(sae: SparseAutoencoder, team: Team) -> SparseAutoencoder | None:
    """On rank 0, the SAE of which every process holds a slice, whole, in main memory; None on the others."""
    found: dict[str, Tensor] = {}

    def begin(_: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        made = get_architecture(sae.architecture)(sae.d_in, sae.whole_d_sae, sae.options, dtype=sae.dtype)
        wholes.append(made)
        found.update(made.state_dict())

    wholes: list[SparseAutoencoder] = []
    tensors = {f"sae.{name}": tensor for name, tensor in sae.state_dict().items()}
    placing = Placing(sae, {}, team)
    with torch.no_grad():
        for name, place, tensor in bring_together(team, placing.parts(tensors), begin):
            found[name.removeprefix("sae.")][place.index or ...].copy_(tensor)
    return wholes[0] if wholes else None
