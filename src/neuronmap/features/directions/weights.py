"""What an SAE's weights alone tell of its features: lengths, biases, nearest decoder directions and, with the model, the logit lens.

Shapes: F features, D width of the activation, N entries of a list, B rows of a block, C columns of a chunk.

Neighbours are exact. The cosines are taken B rows against C columns at a time, and only the N best of each row are carried on, so
that F x F is never there: 256 MB of scratch for any F. The cost is 2 D F^2 operations; past 262,144 features the first block is
timed and a note says how long the rest will take.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.errors import InputError
from neuronmap.features.directions.lens import LensFacts, lens_or_reason
from neuronmap.features.directions.ranking import largest
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress, default
from neuronmap.saes.base import SparseAutoencoder
from neuronmap.saes.uses import require_use

__all__ = ["LONG_NEIGHBOURS", "WeightFacts", "nearest_rows", "weight_facts"]

LONG_NEIGHBOURS = 262_144
"""Features above which the time that exact neighbours take is announced."""
_ROWS, _COLUMNS = 1024, 32_768
"""Cosines handled at once: 128 MB in float32."""
_CHUNK_VALUES = 16 << 20
"""Values of the rows that they are taken with: 64 MB."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WeightFacts:
    """Facts that need no text.

    Attributes:
        decoder_norm_F: float32, Euclidean norms of the decoder's rows.
        encoder_norm_F: float32, of the encoder's columns.
        encoder_decoder_cosine_F: float32, between the two; 0 where one of them is zero, NaN for a transcoder, whose two are
            directions at different hooks.
        encoder_bias_F: float32, bias of the pre-activation that decides whether the feature fires; None for architectures
            without one.
        threshold_F: float32, what the pre-activation has to exceed, by feature (BatchTopK: the same for all); None for
            architectures without a threshold of their own.
        neighbours_FN: int32 [F, N], other features by decoder cosine, descending, ties to the lower feature.
        neighbour_cosines_FN: float32 [F, N], those cosines; 0 with a row of zeros.
        lens: direct logits; None without a model, or where the direction has none.
        lens_note: why ``lens`` is None; empty when it is there.
    """

    decoder_norm_F: _Floats
    encoder_norm_F: _Floats
    encoder_decoder_cosine_F: _Floats
    encoder_bias_F: _Floats | None
    threshold_F: _Floats | None
    neighbours_FN: npt.NDArray[np.int32]
    neighbour_cosines_FN: _Floats
    lens: LensFacts | None
    lens_note: str = ""


def weight_facts(
    sae: SparseAutoencoder,
    *,
    neighbours: int,
    model: LanguageModel | None = None,
    hook: HookPoint | None = None,
    lens_tokens: int | None = None,
    progress: Progress | None = None,
) -> WeightFacts:
    """Everything that follows from the weights.

    Args:
        sae: the SAE, folded to raw activations.
        neighbours: N, decoder neighbours of each feature; 0 for none. At most F - 1 are there.
        model: the language model the SAE is of, with its head; None for no logit lens.
        hook: where in the model the SAE reads; needed with ``model``. The lens of a transcoder is that of the hook it reconstructs.
        lens_tokens: tokens of each list of the lens; as many as ``neighbours`` when None.
        progress: where bars and notes go.

    Returns:
        The facts, on the CPU.

    Raises:
        InputError: if a weight is NaN or infinite, a number is negative, or ``model`` comes without ``hook``.
        MismatchError: if the SAE's width is not the hook's, or it reads more than rows of one hook.

    Example:
        >>> from neuronmap.saes import get_architecture
        >>> sae = get_architecture("topk")(d_in=8, d_sae=32)
        >>> sae.initialise(torch.zeros(8), torch.Generator().manual_seed(0))
        >>> weight_facts(sae, neighbours=5).neighbours_FN.shape
        (32, 5)
    """
    if sae.reads != "rows":
        require_use(sae, "features", "A table of features")
    progress = progress or default()
    entries = neighbours if lens_tokens is None else lens_tokens
    if neighbours < 0 or entries < 0:
        raise InputError(f"neighbours = {neighbours} and lens_tokens = {lens_tokens}: neither may be below 0.")
    if model is not None and hook is None:
        raise InputError("A logit lens needs the hook the SAE reads at, got a model without one.")
    with torch.inference_mode():
        decoder_norm_F, encoder_norm_F, cosine_F = _lengths(sae)
        near_FN, near_cosine_FN = nearest_rows(sae.W_dec, neighbours, progress=progress)
        lens, note = None, "No model was given."
        if model is not None and hook is not None:
            lens, note = lens_or_reason(sae, model, hook, entries=entries, progress=progress)
        return WeightFacts(
            decoder_norm_F=decoder_norm_F,
            encoder_norm_F=encoder_norm_F,
            encoder_decoder_cosine_F=cosine_F,
            encoder_bias_F=_by_feature(sae, "b_enc", "b_gate"),
            threshold_F=_by_feature(sae, "threshold"),
            neighbours_FN=near_FN,
            neighbour_cosines_FN=near_cosine_FN,
            lens=lens,
            lens_note=note,
        )


def nearest_rows(
    rows_FD: Tensor, n: int, *, of: Tensor | None = None, progress: Progress | None = None
) -> tuple[npt.NDArray[np.int32], _Floats]:
    """The n rows with the highest cosine to each row, itself left out.

    Args:
        rows_FD: [F, D], on any device; a row of zeros has cosine 0 with every other.
        n: N, cut to F - 1.
        of: int64 [M], rows whose neighbours are wanted; None for all.
        progress: where the bar and the note on long runs go.

    Returns:
        int32 [M, N] rows and float32 [M, N] cosines, descending, equal cosines by ascending row.
    """
    progress = progress or default()
    F = len(rows_FD)
    n = max(0, min(n, F - 1))
    wanted_M = torch.arange(F, device=rows_FD.device) if of is None else of.to(rows_FD.device)
    M = len(wanted_M)
    near_MN, cosine_MN = np.empty((M, n), np.int32), np.empty((M, n), np.float32)
    if n == 0 or M == 0:
        return near_MN, cosine_MN
    with torch.inference_mode(), progress.task("decoder neighbours", M, "features") as task:
        started = time.monotonic()
        for start in range(0, M, _ROWS):
            block_B = wanted_M[start : start + _ROWS]
            value_BN, row_BN = _nearest_of_block(rows_FD, block_B, n)
            near_MN[start : start + _ROWS] = row_BN.cpu().numpy()
            cosine_MN[start : start + _ROWS] = value_BN.cpu().numpy()
            task.advance(len(block_B))
            if start == 0 and F > LONG_NEIGHBOURS:
                left = (time.monotonic() - started) * (M / len(block_B) - 1)
                progress.note(
                    f"Exact neighbours of {M:,} features cost {F:,} cosines each: about {left / 60:,.0f} minutes from here. "
                    "neighbours=0 leaves them out."
                )
    return near_MN, cosine_MN


def _nearest_of_block(rows_FD: Tensor, block_B: Tensor, n: int) -> tuple[Tensor, Tensor]:
    unit_BD = _unit(rows_FD[block_B])
    columns = max(_ROWS, min(_COLUMNS, _CHUNK_VALUES // rows_FD.shape[1]))
    best_BN = unit_BD.new_empty(len(block_B), 0)
    best_row_BN = block_B.new_empty(len(block_B), 0)
    for first in range(0, len(rows_FD), columns):
        cosine_BC = unit_BD @ _unit(rows_FD[first : first + columns]).T
        own_B = block_B - first
        here_B = (own_B >= 0) & (own_B < cosine_BC.shape[1])
        cosine_BC[torch.nonzero(here_B).view(-1), own_B[here_B]] = -torch.inf
        value_BN, row_BN = largest(cosine_BC, min(n, cosine_BC.shape[1]))
        # Those before are of lower rows, so equal values stay in the order of rows.
        both_BM = torch.cat([best_BN, value_BN], dim=1)
        best_BN, order_BN = largest(both_BM, min(n, both_BM.shape[1]))
        best_row_BN = torch.cat([best_row_BN, row_BN + first], dim=1).gather(1, order_BN)
    return best_BN.clamp(-1.0, 1.0), best_row_BN


def _unit(rows_BD: Tensor) -> Tensor:
    """Rows of length 1 in float32; zero stays zero."""
    rows_BD = rows_BD.float()
    unit_BD: Tensor = rows_BD / torch.linalg.vector_norm(rows_BD, dim=1, keepdim=True).clamp_min(1e-30)
    return unit_BD


def _lengths(sae: SparseAutoencoder) -> tuple[_Floats, _Floats, _Floats]:
    """Norms of decoder rows and encoder columns, and the cosine between them."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, sae.d_sae, _ROWS):
        decoder_BD = sae.W_dec[start : start + _ROWS].double()
        encoder_BD = sae.W_enc.T[start : start + _ROWS].double()
        decoder_B, encoder_B = (torch.linalg.vector_norm(rows, dim=1) for rows in (decoder_BD, encoder_BD))
        if sae.reconstructs_input:
            cosine_B = torch.linalg.vecdot(decoder_BD, encoder_BD) / (decoder_B * encoder_B).clamp_min(1e-60)
        else:
            cosine_B = torch.full_like(decoder_B, torch.nan)
        parts.append((decoder_B, encoder_B, cosine_B.clamp(-1.0, 1.0)))
    decoder_F, encoder_F, cosine_F = (torch.cat(column) for column in zip(*parts, strict=True))
    broken_F = ~(torch.isfinite(decoder_F) & torch.isfinite(encoder_F))
    if bool(broken_F.any()):
        first = int(torch.nonzero(broken_F)[0])
        raise InputError(
            f"{int(broken_F.sum())} of {sae.d_sae} features have weights that are NaN or infinite; the first is feature {first}."
        )
    return _to_numpy(decoder_F), _to_numpy(encoder_F), _to_numpy(cosine_F)


def _by_feature(sae: SparseAutoencoder, *names: str) -> _Floats | None:
    """The first of these tensors that the architecture has, one number a feature."""
    for name in names:
        value = getattr(sae, name, None)
        if isinstance(value, Tensor):
            return _to_numpy(value.detach().expand(sae.d_sae))
    return None


def _to_numpy(values: Tensor) -> _Floats:
    array: _Floats = values.to(device="cpu", dtype=torch.float32).numpy().copy()
    return array
