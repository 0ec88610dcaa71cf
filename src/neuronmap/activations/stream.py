"""Activations without a store: the model runs while training asks for rows.

For one pass over much text, where storing would cost more disk than computing costs time. Rows, mask and outlier
threshold are those of a store harvested from the same inputs.

Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from neuronmap.activations.blocks import BlockReader, PlainReader
from neuronmap.activations.extract import Calibration
from neuronmap.activations.harvest import store_key
from neuronmap.activations.mask import MaskConfig
from neuronmap.activations.passes import ModelPass
from neuronmap.activations.rows import RowStatistics
from neuronmap.activations.turns import Turns
from neuronmap.hashing import digest_json
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.activations.together import Crew
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["ActivationStream"]


class ActivationStream:
    """Rows of one hook point computed on demand; give it to ``ShuffledBatches`` in place of a store.

    A bucket is filled by running the model over blocks of contexts drawn over the whole token set, so restoring a
    state computes one bucket again and nothing more. Several processes that shuffle alike may share the work (``activations.turns``).

    Args:
        model: the language model.
        tokens: packed contexts.
        hook: a hook point of this model.
        mask: positions to drop; default :class:`MaskConfig`.
        batch_tokens: tokens per forward pass; as measured by ``neuronmap doctor --tune``, else 2,048, when None.
        progress: where notes go.
        crew: the processes that each make a stream of the same inputs and draw the same rows from it, so that each runs the model
            over a share of the blocks; this one alone when None.

    Raises:
        InputError: if the contexts are longer than the model can take.
        EmptyCorpusError: if the mask leaves no row.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hook: HookPoint,
        *,
        mask: MaskConfig | None = None,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
        crew: Crew | None = None,
    ) -> None:
        self._hook = hook
        self._pass = ModelPass(
            model, tokens, [hook], mask=mask, batch_tokens=batch_tokens, progress=progress, crew=crew
        )

    @classmethod
    def of_hooks(
        cls,
        model: LanguageModel,
        tokens: TokenSet,
        hooks: Sequence[HookPoint],
        *,
        mask: MaskConfig | None = None,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
        crew: Crew | None = None,
    ) -> dict[str, Self]:
        """Streams of several hooks, by name, from one pass of the model: it runs once over a block for all of them.

        Each gives the rows that a stream of its hook alone gives. Shuffle them with the same seed, so that they want the same blocks.
        """
        hooks = list({hook.name: hook for hook in hooks}.values())
        shared = ModelPass(model, tokens, hooks, mask=mask, batch_tokens=batch_tokens, progress=progress, crew=crew)
        streams = {}
        for hook in hooks:
            stream = streams[hook.name] = cls.__new__(cls)
            stream._hook, stream._pass = hook, shared
        return streams

    @property
    def num_rows(self) -> int:
        """Rows that pass the mask by their tokens (outliers are known only when the model has run)."""
        return self._pass.num_rows

    @property
    def block_units(self) -> int:
        """Contexts that go through the model together."""
        return self._pass.block_units

    @property
    def in_background(self) -> bool:
        """Whether the model runs in a thread of its own, ahead of the training: on an accelerator, which works while Python
        waits. On a CPU model and training each fill all cores, so they take turns (docs/experiments.md).
        The model can be used elsewhere meanwhile: forward passes take turns (``LanguageModel.running``)."""
        return self._pass.model.device.type != "cpu"

    @property
    def width(self) -> int:
        """W, the length of a row."""
        return self._hook.width

    @property
    def dtype(self) -> torch.dtype:
        """The model's compute dtype."""
        return self._pass.model.dtype

    @property
    def hook(self) -> HookPoint:
        """The hook point."""
        return self._hook

    @property
    def model(self) -> dict[str, Any]:
        """The model's identity, as a dictionary."""
        return self._pass.model.identity.to_dict()

    @property
    def num_units(self) -> int:
        """Contexts."""
        return self._pass.tokens.num_contexts

    @property
    def rows_per_unit(self) -> int:
        """Most rows a context can give."""
        return self._pass.rows_per_unit

    @cached_property
    def digest(self) -> str:
        """Digest of model, tokens, hook and mask. How many contexts go through the model at once is not in it: a shuffle's
        state keeps that, so that it can be restored after the measured settings have changed."""
        shared = self._pass
        return digest_json({"stream": store_key(shared.model, shared.tokens, self._hook, mask=shared.mask)})

    @property
    def calibration(self) -> Calibration:
        """Outlier threshold and value range, from the first contexts (as in a store)."""
        return self._pass.calibrations[self._hook.name]

    @property
    def statistics(self) -> RowStatistics:
        """Mean, variance and mean square norm of the first 65,536 rows (all, if there are fewer)."""
        return self._pass.statistics[self._hook.name]

    @property
    def contexts_run(self) -> int:
        """Contexts that went through this process's model for batches so far, for this stream and those of the same pass."""
        return self._pass.contexts_run

    def read_block(self, start: int, stop: int, out: Tensor) -> int:
        """Run the model over contexts ``start`` to ``stop`` and write the kept rows to the front of ``out``.

        Returns:
            The number of rows written.

        Raises:
            InputError: if the model gives NaN or infinity.
        """
        return self._pass.read(self._hook, start, stop, out)

    def reader(self) -> BlockReader:
        """What reads the blocks of one shuffle; every process of a crew asks for it at the same place."""
        crew = self._pass.crew
        if crew is None:
            return PlainReader(self.read_block)
        _ = self.calibration  # asked of the first here, and not by a thread

        def room(contexts: int) -> Tensor:
            return torch.empty(contexts * self.rows_per_unit, self.width, dtype=self.dtype)

        return Turns(self.read_block, room, crew)

    def close(self) -> None:
        """Nobody reads this stream any more: the model runs no further than the other streams of its pass need."""
        self._pass.leave(self._hook)
