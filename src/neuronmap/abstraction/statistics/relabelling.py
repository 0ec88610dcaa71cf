"""Other labels for the same items: permutations under "the model does not hold it", and random concepts.

What is exchangeable is the cluster: all items of a lemma share whatever the model knows of it. A cluster that has items of several
classes gets its classes exchanged as a whole (with two classes: flipped or not); clusters of one class exchange their class among each
other, within one split and one condition. Flipping single pairs or items instead would count every sentence of a lemma as new evidence, and
give a null that is too narrow.

Legend: P labelings, N items, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.concepts.items import Item

__all__ = ["Labels", "permuted_labels", "random_labels", "targets_of"]


@dataclass(frozen=True)
class Labels:
    """Labels of a concept's items as numbers.

    Attributes:
        label_N: int64 [N], class of each item.
        classes: K.
    """

    label_N: Tensor
    classes: int

    @property
    def columns(self) -> int:
        """1 for two classes, else K: one column against the rest."""
        return 1 if self.classes == 2 else self.classes

    def targets(self) -> Tensor:
        """float64 [N, columns]: +1 for the column's class, -1 for the rest."""
        return targets_of(self.label_N, self.classes)


def targets_of(label_N: Tensor, classes: int) -> Tensor:
    """+1 and -1 of class indices [..., N] -> float64 [..., N, columns]."""
    wanted = torch.tensor([1]) if classes == 2 else torch.arange(classes)
    return (label_N[..., None] == wanted).to(torch.float64) * 2 - 1


def permuted_labels(items: Sequence[Item], labels: Labels, count: int, seed: int) -> Tensor:
    """Labelings that are as likely as the real one if the label means nothing.

    Args:
        items: the N items.
        labels: their real labels.
        count: P.
        seed: of the draws.

    Returns:
        int64 [P, N].
    """
    generator = np.random.default_rng(seed)
    real_N = labels.label_N.numpy()
    result_PN = np.repeat(real_N[None], count, axis=0)
    members: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        members[item.cluster].append(index)
    single: dict[tuple[str, str], list[list[int]]] = defaultdict(list)
    for indices in members.values():
        if len({int(real_N[index]) for index in indices}) > 1:
            orders_PK = generator.permuted(np.tile(np.arange(labels.classes), (count, 1)), axis=1)
            result_PN[:, indices] = np.take_along_axis(orders_PK, result_PN[:, indices], axis=1)
        else:
            first = items[indices[0]]
            single[first.split, first.condition].append(indices)
    for groups in single.values():
        classes_G = np.asarray([real_N[indices[0]] for indices in groups])
        drawn_PG = generator.permuted(np.tile(classes_G, (count, 1)), axis=1)
        for group, indices in enumerate(groups):
            result_PN[:, indices] = drawn_PG[:, group, None]
    return torch.from_numpy(result_PN)


def random_labels(items: Sequence[Item], classes: int, count: int, seed: int) -> Tensor:
    """Random concepts on the same texts: each cluster gets a class of its own, drawn at random.

    Returns:
        int64 [P, N].
    """
    generator = np.random.default_rng(seed)
    names = list(dict.fromkeys(item.cluster for item in items))
    place = {name: index for index, name in enumerate(names)}
    drawn_PG = generator.integers(0, classes, size=(count, len(names)))
    return torch.from_numpy(drawn_PG[:, [place[item.cluster] for item in items]])
