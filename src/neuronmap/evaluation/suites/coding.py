"""Codes of rows, in pieces of bounded memory, how many features fire on a row (L0), and rows of evenly spread contexts.

Shapes: N rows, D = d_in, F = width of a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from neuronmap.activations import MaskConfig
from neuronmap.activations.extract import RowExtractor, contexts_per_batch
from neuronmap.activations.mask import nothing_left
from neuronmap.corpora import TokenSet
from neuronmap.evaluation.parts import added, context_parts, row_count
from neuronmap.evaluation.rows import Autoencoder, SpreadContexts
from neuronmap.hashing import digest_parts
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress, Task

__all__ = [
    "RowCapture",
    "decoder_bias",
    "device_of",
    "dtype_of",
    "encoded",
    "l0_of",
    "pieces",
    "tensors_digest",
]

_PIECE_VALUES = 16 << 20


def device_of(sae: Autoencoder) -> torch.device:
    """Where its decoder lies."""
    decoder = getattr(sae, "W_dec", None)
    return decoder.device if isinstance(decoder, Tensor) else torch.device("cpu")


def dtype_of(sae: Autoencoder) -> torch.dtype:
    """The precision of its decoder."""
    decoder = getattr(sae, "W_dec", None)
    return decoder.dtype if isinstance(decoder, Tensor) else torch.float32


@torch.inference_mode()
def encoded(sae: Autoencoder, rows_ND: Tensor) -> Tensor:
    """Code [N, F] of rows, float32 on the CPU."""
    piece = max(1, _PIECE_VALUES // sae.d_sae)
    device, dtype = device_of(sae), dtype_of(sae)
    codes = [sae.encode(x_nD.to(device=device, dtype=dtype)).float().cpu() for x_nD in pieces(rows_ND, piece)]
    return torch.cat(codes)


def pieces(rows: Tensor, size: int) -> list[Tensor]:
    """Views of so many rows each; the last may have fewer."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def decoder_bias(sae: Autoencoder) -> Tensor:
    """What the decoder adds whatever fires [D]; zero without a ``b_dec``."""
    bias = getattr(sae, "b_dec", None)
    return bias.detach().float().cpu() if isinstance(bias, Tensor) else torch.zeros(sae.d_in)


def l0_of(sae: Autoencoder, parts: Sequence[Tensor]) -> float:
    """Mean number of active features over all rows of some tensors [N, D]."""
    active = sum(int((encoded(sae, part_ND) != 0).sum()) for part_ND in parts)
    return active / sum(len(part_ND) for part_ND in parts)


class RowCapture:
    """Rows of about ``most`` evenly spread tokens of a text, at a hook; all of them, or those of a part of the contexts.

    Args:
        model, tokens, hook, mask, outlier_threshold: as for :func:`neuronmap.evaluation.evaluate_sae`.
        most: about how many rows.
        batch_tokens: tokens in a forward pass.

    Attributes:
        chosen: the contexts.
        parts: runs of them, see :func:`neuronmap.evaluation.parts.context_parts`.
        tokens: in the contexts, masked ones included.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hook: HookPoint,
        mask: MaskConfig,
        outlier_threshold: float | None,
        most: int,
        batch_tokens: int,
    ) -> None:
        self.chosen = SpreadContexts(tokens, row_count(tokens, most))
        self._batch = contexts_per_batch(tokens, batch_tokens)
        self.parts = context_parts(self.chosen.num_contexts, self._batch)
        self.tokens = self.chosen.num_contexts * self.chosen.context_length
        self._hook, self._threshold = hook, outlier_threshold
        # The extractor asks a token set for its size and its contexts only, which this view has.
        self._extractor = RowExtractor(model, cast(TokenSet, self.chosen), [hook], mask, self._batch)

    def rows(self, start: int, stop: int, dropped: dict[str, int], bar: Task) -> Iterator[Tensor]:
        """Rows [n, D] of contexts ``start`` to ``stop``, a forward pass at a time: float32 on the CPU, valid until the next is asked for.

        Args:
            start, stop: one of ``parts``.
            dropped: positions left out are added to it, by reason.
            bar: advanced by tokens.
        """
        for low in range(start, stop, self._batch):
            high = min(low + self._batch, stop)
            for _, found in self._extractor.extract(low, high, [self._hook], {self._hook.name: self._threshold}):
                dropped.update(added(dropped, found.dropped))
                if len(found.rows_NW):
                    yield found.rows_NW.float().cpu()
            bar.advance((high - low) * self.chosen.context_length)

    def all(self, title: str, progress: Progress) -> Tensor:
        """All rows [N, D].

        Raises:
            EmptyCorpusError: if the mask leaves nothing.
        """
        dropped: dict[str, int] = {}
        with progress.task(title, self.tokens, "tokens") as bar:
            found = [rows_nD.clone() for part in self.parts for rows_nD in self.rows(*part, dropped, bar)]
        if not found:
            raise nothing_left(cast(TokenSet, self.chosen), dropped)
        return torch.cat(found)


def tensors_digest(sae: Any) -> str:
    """Digest of an SAE's tensors, by name."""
    state = sae.state_dict() if isinstance(sae, torch.nn.Module) else vars(sae)
    parts: list[bytes] = [getattr(sae, "architecture", type(sae).__name__).encode()]
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            stored = value.detach().float().cpu().contiguous()
            parts += [name.encode(), str(tuple(stored.shape)).encode(), stored.numpy().tobytes()]
    return digest_parts(parts)
