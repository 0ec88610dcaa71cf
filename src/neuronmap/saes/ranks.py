"""The processes that share one training step, as the step sees them.

Shapes: B rows of the whole batch, F features. W = R x T processes (ranks): the rows are shared by R, each with B / R of them, the first
rank the first; the features by T, each with F / T of them, likewise. The ranks that hold the same features are ``Workspace.ranks``, those
that hold the same rows ``Workspace.features``, all of them ``Workspace.everyone``.

A step computes the mean over its own rows of what is a mean over rows; means of equal shares are the mean of all, and the trainer takes
it. What is not a mean over rows (which entries are the largest of the batch, the variance that AuxK divides by, the L0 that is steered to
a target) asks ``ranks``, and what is a sum over features (a reconstruction, a sparsity term) asks ``features``, at the same places on every
rank. One process alone is :data:`ALONE`, which answers without work.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["ALONE", "Alone", "Ranks"]


class Ranks(Protocol):
    """What a step asks of the other processes. Every rank makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Place of this process, from 0."""

    @property
    def count(self) -> int:
        """How many processes there are."""

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""

    def mean_(self, tensor: Tensor) -> Tensor:
        """The mean over the ranks, in place."""

    def gathered(self, tensor: Tensor) -> Tensor:
        """[count, ...], the tensor of each rank, all of one shape."""


class Alone:
    """One process: every answer is the tensor that was given."""

    rank = 0
    count = 1

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        return tensor

    def gathered(self, tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(0)


ALONE = Alone()
