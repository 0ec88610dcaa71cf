"""Codes of rows, in pieces of bounded memory, the rows that baselines are fitted on, and how many features fire on a row (L0).

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
from neuronmap.evaluation.rows import Autoencoder, SpreadContexts
from neuronmap.hashing import digest_parts
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress

__all__ = [
    "captured_l0",
    "captured_rows",
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


def captured_rows(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    mask: MaskConfig,
    outlier_threshold: float | None,
    most: int,
    batch_tokens: int,
    progress: Progress,
) -> Tensor:
    """About ``most`` rows [N, D] (float32, on the CPU) of evenly spread contexts.

    Raises:
        EmptyCorpusError: if the mask leaves nothing.
    """
    return torch.cat([
        rows_nD.clone()
        for rows_nD in _captured(
            model, tokens, hook, mask, outlier_threshold, most, batch_tokens, progress, "Rows to fit baselines on"
        )
    ])  # fmt: skip


def captured_l0(
    sae: Autoencoder,
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    mask: MaskConfig,
    outlier_threshold: float | None,
    most: int,
    batch_tokens: int,
    progress: Progress,
) -> float:
    """Mean number of active features on the rows that :func:`neuronmap.evaluation.evaluate_sae` takes for so many tokens; none is kept.

    Raises:
        EmptyCorpusError: if the mask leaves nothing.
    """
    active = count = 0
    for rows_nD in _captured(
        model, tokens, hook, mask, outlier_threshold, most, batch_tokens, progress, "Active features on the scored text"
    ):
        active += int((encoded(sae, rows_nD) != 0).sum())
        count += len(rows_nD)
    return active / count


def _captured(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    mask: MaskConfig,
    outlier_threshold: float | None,
    most: int,
    batch_tokens: int,
    progress: Progress,
    title: str,
) -> Iterator[Tensor]:
    """Rows [n, D] of evenly spread contexts, batch by batch: float32 on the CPU, valid until the next is asked for."""
    chosen = cast(TokenSet, SpreadContexts(tokens, -(-most // tokens.context_length)))
    batch = contexts_per_batch(tokens, batch_tokens)
    extractor = RowExtractor(model, chosen, [hook], mask, batch)
    dropped: dict[str, int] = {}
    found_any = False
    with progress.task(title, chosen.num_contexts * tokens.context_length, "tokens") as bar:
        for start in range(0, chosen.num_contexts, batch):
            stop = min(start + batch, chosen.num_contexts)
            for _, found in extractor.extract(start, stop, [hook], {hook.name: outlier_threshold}):
                for reason, count in found.dropped.items():
                    dropped[reason] = dropped.get(reason, 0) + count
                if len(found.rows_NW):
                    found_any = True
                    yield found.rows_NW.float().cpu()
            bar.advance((stop - start) * tokens.context_length)
    if not found_any:
        raise nothing_left(chosen, dropped)


def tensors_digest(sae: Any) -> str:
    """Digest of an SAE's tensors, by name."""
    state = sae.state_dict() if isinstance(sae, torch.nn.Module) else vars(sae)
    parts: list[bytes] = [getattr(sae, "architecture", type(sae).__name__).encode()]
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            stored = value.detach().float().cpu().contiguous()
            parts += [name.encode(), str(tuple(stored.shape)).encode(), stored.numpy().tobytes()]
    return digest_parts(parts)
