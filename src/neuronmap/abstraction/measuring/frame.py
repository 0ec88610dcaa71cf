"""The items of one reading as index tensors: who is in which split, condition and cluster.

Legend: N items, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neuronmap.abstraction.reading import Reading
from neuronmap.abstraction.statistics.relabelling import Labels
from neuronmap.concepts.items import Split
from neuronmap.errors import InputError

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A reading with its items as numbers.

    Args:
        reading: what was read.
        crossed: whether the items' conditions are levels of a crossed nuisance.
    """

    reading: Reading
    crossed: bool

    @cached_property
    def labels(self) -> Labels:
        """Class of each item."""
        place = {name: index for index, name in enumerate(self.reading.data.classes)}
        label_N = torch.tensor([place[item.label] for item in self.reading.data.items])
        return Labels(label_N, len(place))

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """Names of the clusters, in order of first appearance."""
        return tuple(dict.fromkeys(item.cluster for item in self.reading.data.items))

    @cached_property
    def cluster_ids(self) -> Tensor:
        """Cluster of each item."""
        place = {name: index for index, name in enumerate(self.clusters)}
        return torch.tensor([place[item.cluster] for item in self.reading.data.items])

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Levels of the crossed nuisance that are in training and test, in order; empty without one."""
        return self.reading.data.conditions if self.crossed else ()

    @cached_property
    def condition_ids(self) -> Tensor:
        """Condition of each item."""
        place = {name: index for index, name in enumerate(self.reading.data.conditions)}
        return torch.tensor([place[item.condition] for item in self.reading.data.items])

    def rows(self, split: Split, condition: int | None = None, *, without: int | None = None) -> Tensor:
        """Indices of the items of a split: all, those of one condition, or those of every other."""
        chosen_N = torch.tensor([item.split == split for item in self.reading.data.items])
        if condition is not None:
            chosen_N &= self.condition_ids == condition
        if without is not None:
            chosen_N &= self.condition_ids != without
        return torch.nonzero(chosen_N).squeeze(1)

    def strata(self) -> list[str]:
        """Stratum of each cluster for resampling: its class where it has one only, and its split."""
        seen: dict[str, set[str]] = {}
        split: dict[str, str] = {}
        for item in self.reading.data.items:
            seen.setdefault(item.cluster, set()).add(item.label)
            split[item.cluster] = item.split
        return [f"{split[name]}/{next(iter(seen[name])) if len(seen[name]) == 1 else ''}" for name in self.clusters]

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            InputError: a split lacks a class, after what cannot be read was dropped.
        """
        for split in ("train", "calibration", "test"):
            here = set(self.labels.label_N[self.rows(split)].tolist())
            if len(here) < self.labels.classes:
                missing = [name for index, name in enumerate(self.reading.data.classes) if index not in here]
                raise InputError(
                    f"Concept {self.reading.data.name}: no item of class {', '.join(missing)} is in the {split} split, so it cannot "
                    "be measured.",
                    hint="Give more items, of more clusters.",
                )
