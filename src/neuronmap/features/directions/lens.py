"""The logit lens of features: what each decoder row does to the logits by the direct path, and which tokens its encoder reads.

Shapes: F features, B features of a block, S features of a slice, W width of the hook, D width of the residual stream, E width that
the head reads, V vocabulary, C tokens of a chunk, N entries of a list.

**Direct logits.** The decoder row d, as if it were the whole residual stream: through the final norm (RMSNorm: d / rms(d) * gamma;
LayerNorm: centred, over its standard deviation, * gamma) and the unembedding, biases left out. They are on the scale of logits, the
same for d and 2 d, and say nothing of what later blocks make of d. See :mod:`neuronmap.models.unembedding` for how the final norm is
found and why the model's own module is called. Blocks that normalise the stream itself after each addition (GPT-1) are not followed.

**Which hooks.** ``residual``, ``residual_pre``, ``attention`` and ``mlp`` write to the stream as they are. For ``attention_heads`` and
``mlp_hidden`` the row goes through the projection after it first, and the norm behind that where there is one (Gemma 2). Any other
place has no direct path that can be known, and gets a reason instead.

**Input tokens.** The embedding row of each token, scaled to length 1 (or as the SAE normalises its input), times the encoder's column:
the direct path again, through no block. Only for the stream itself (``residual``, ``residual_pre``), and only where embedding and stream
have the same width.

Cost: 2 D V F operations for each of the two, in blocks of B features; a block's logits take 128 MB, and nothing of size F x V is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from neuronmap.errors import HookPointError, InputError, MismatchError, ModelFormatError
from neuronmap.features.directions.ranking import largest
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.models.unembedding import DirectionMap, find_unembedding
from neuronmap.progress import Progress, default
from neuronmap.saes.base import SparseAutoencoder
from neuronmap.saes.places import output_hook
from neuronmap.saes.uses import require_use

__all__ = ["LENS_BINS", "LENS_LIMIT", "LensFacts", "lens_facts", "lens_or_reason"]

LENS_BINS = 64
LENS_LIMIT = 8.0
"""The histogram goes from -8 to 8 standard deviations; its first and last bin hold what is beyond."""
_BLOCK_VALUES = 32 << 20
"""Logits of a block: 128 MB."""
_CHUNK_VALUES = 8 << 20
"""Values of the unembedding that are turned to float32 at a time: 32 MB."""
_SLICE_VALUES = 1 << 20
"""Logits of which the figures are taken at a time: 4 MB, so that they stay in the processor's cache."""
_STREAM = ("residual", "residual_pre", "attention", "mlp")
_HIDDEN = {"attention_heads": "attention", "mlp_hidden": "mlp"}

_Floats = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LensFacts:
    """Direct logits of every feature, and the tokens its encoder reads.

    Attributes:
        vocabulary: V, tokens that the figures are of: the rows of the unembedding that the tokenizer has tokens for.
        mean_F: float32, mean over the vocabulary of the feature's direct logits.
        std_F: float32, their standard deviation (population).
        skew_F: float32, their skewness; NaN where all are the same.
        kurtosis_F: float32, their excess kurtosis; NaN where all are the same.
        promoted_FN: int32 [F, N], tokens with the largest direct logits, descending, ties to the lower token.
        promoted_logit_FN: float32 [F, N], those logits.
        suppressed_FN: int32 [F, N], tokens with the smallest, ascending, ties to the lower token.
        suppressed_logit_FN: float32 [F, N], those logits.
        histogram_F64: uint32 [F, 64], tokens by (logit - mean) / std in bins of 1/4 from -8 to 8, ends open.
        input_tokens_FN: int32 [F, N], tokens whose embedding scores highest at the encoder; [F, 0] where there is no such score.
        input_scores_FN: float32 [F, N], those scores, in units of the pre-activation for an embedding of length 1; for an SAE
            with an ``input_norm``, of the embedding as it normalises it.
    """

    vocabulary: int
    mean_F: _Floats
    std_F: _Floats
    skew_F: _Floats
    kurtosis_F: _Floats
    promoted_FN: _Ids
    promoted_logit_FN: _Floats
    suppressed_FN: _Ids
    suppressed_logit_FN: _Floats
    histogram_F64: npt.NDArray[np.uint32]
    input_tokens_FN: _Ids
    input_scores_FN: _Floats


def lens_or_reason(
    sae: SparseAutoencoder, model: LanguageModel, hook: HookPoint, *, entries: int, progress: Progress | None = None
) -> tuple[LensFacts | None, str]:
    """:func:`lens_facts`, or None and a sentence that says why the features have no direct logits.

    Raises:
        MismatchError: if the SAE's width is not the hook's.
    """
    try:
        return lens_facts(sae, model, hook, entries=entries, progress=progress), ""
    except ModelFormatError as error:
        return None, error.message


def lens_facts(
    sae: SparseAutoencoder, model: LanguageModel, hook: HookPoint, *, entries: int, progress: Progress | None = None
) -> LensFacts:
    """The logit lens of every feature.

    Args:
        sae: the SAE, decoder rows [F, W].
        model: the model it was trained on, with its head.
        hook: where it reads; its width is the SAE's. Decoder rows lie there too, but for a transcoder: those are directions at the
            hook that its metadata say it reconstructs, and W is that one's width.
        entries: N, tokens of each list, at most V.
        progress: where bars go.

    Returns:
        The facts, on the CPU; computed on the device of the unembedding.

    Raises:
        MismatchError: if the SAE's width is not the hook's, or it reads more than rows of one hook.
        ModelFormatError: if the model has no head, the way to it is not linear behind a norm, what the hook reads does not
            reach the residual stream by a linear map, or a transcoder does not say what it reconstructs.
    """
    if sae.reads != "rows":
        require_use(sae, "features", "A logit lens")
    if sae.d_in != hook.width:
        raise MismatchError(f"The SAE reads {sae.d_in} dimensions, but {hook.name} has {hook.width}.")
    progress = progress or default()
    unembedding = find_unembedding(model)
    device = unembedding.weight_VE.device
    to_stream = _way_to_stream(model, _where_it_writes(sae, model, hook), device)
    V = len(unembedding.weight_VE) if model.tokenizer is None else min(len(unembedding.weight_VE), len(model.tokenizer))
    lens = _empty(sae.d_sae, V, min(entries, V))
    block = max(16, min(1024, _BLOCK_VALUES // V))
    with torch.inference_mode():
        logits_BV = torch.empty(min(block, sae.d_sae), V, device=device)
        with progress.task("logit lens", sae.d_sae, "features") as task:
            for start in range(0, sae.d_sae, block):
                d_BW = sae.W_dec[start : start + block].to(device=device, dtype=torch.float32)
                y_BE = unembedding.before_head(d_BW if to_stream is None else to_stream(d_BW))
                rows_BV = logits_BV[: len(y_BE)]
                _times_rows(y_BE, unembedding.weight_VE, rows_BV)
                _fill(lens, start, rows_BV)
                task.advance(len(y_BE))
        return _with_input_tokens(lens, sae, model, hook, logits_BV, min(entries, V), progress)


def _where_it_writes(sae: SparseAutoencoder, model: LanguageModel, hook: HookPoint) -> HookPoint:
    """:func:`output_hook`, where not knowing it is a reason to have no lens."""
    try:
        return output_hook(sae, model, hook)
    except (InputError, HookPointError) as error:
        raise ModelFormatError(f"The decoder's directions have no direct logits: {error.message}") from None


def _way_to_stream(model: LanguageModel, hook: HookPoint, device: torch.device) -> DirectionMap | None:
    """The map from the hook to the residual stream; None where the hook is part of the stream as it is."""
    if hook.component in _STREAM:
        return None
    if hook.layer is None:
        raise ModelFormatError(f"{hook.name} lies outside the model's blocks: its directions have no direct logits.")
    prefix = f"{model.blocks.prefix}.{hook.layer}."
    found = model.roles(hook.layer).found
    path = hook.module_path.removeprefix(prefix)
    for hidden, added in _HIDDEN.items():
        if hidden not in found or added not in found or found[hidden][0] != path:
            continue
        # The projection's input, or its output under its own name (mlp.down_proj:out is mlp:out).
        steps = [path] if hook.side == "in" else []
        norm = found[added][0]
        if not (path == norm or path.startswith(f"{norm}.")):
            steps.append(norm)
        block: nn.Module = model.blocks.modules[hook.layer]
        modules = {f"{prefix}{step}": block.get_submodule(step) for step in steps}
        return DirectionMap(modules, hook.width, device) if modules else None
    raise ModelFormatError(
        f"{hook.name} is neither added to the residual stream nor the input of the projection that is, so its directions have no "
        "direct logits."
    )


def _times_rows(y_BE: Tensor, rows_VE: Tensor, out_BV: Tensor) -> None:
    """out = y @ rows.T in float32, without a float32 copy of all rows."""
    V, E = out_BV.shape[1], rows_VE.shape[1]
    chunk = V if rows_VE.dtype == torch.float32 else max(1024, _CHUNK_VALUES // E)
    for first in range(0, V, chunk):
        last = min(first + chunk, V)
        if chunk == V:
            torch.mm(y_BE, rows_VE[:V].T, out=out_BV)
        else:
            out_BV[:, first:last] = y_BE @ rows_VE[first:last].float().T


def _empty(F: int, V: int, n: int) -> LensFacts:
    def floats(*shape: int) -> _Floats:
        return np.zeros((F, *shape), np.float32)

    return LensFacts(
        V, floats(), floats(), floats(), floats(), np.zeros((F, n), np.int32), floats(n), np.zeros((F, n), np.int32), floats(n),
        np.zeros((F, LENS_BINS), np.uint32), np.zeros((F, 0), np.int32), floats(0),
    )  # fmt: skip


def _fill(lens: LensFacts, start: int, logits_BV: Tensor) -> None:
    """Figures, lists and histograms of a block of features; overwrites the logits."""
    n = lens.promoted_FN.shape[1]
    V = logits_BV.shape[1]
    for first in range(0, len(logits_BV), max(1, _SLICE_VALUES // V)):
        logits_SV = logits_BV[first : first + max(1, _SLICE_VALUES // V)]
        here = slice(start + first, start + first + len(logits_SV))
        value_SN, token_SN = largest(logits_SV, n)
        lens.promoted_FN[here], lens.promoted_logit_FN[here] = token_SN.cpu().numpy(), value_SN.cpu().numpy()
        mean_S1 = logits_SV.mean(dim=1, keepdim=True)
        z_SV = logits_SV.neg_()
        value_SN, token_SN = largest(z_SV, n)
        lens.suppressed_FN[here], lens.suppressed_logit_FN[here] = token_SN.cpu().numpy(), -value_SN.cpu().numpy()
        z_SV.neg_().sub_(mean_S1)
        std_S = torch.linalg.vector_norm(z_SV, dim=1).div_(V**0.5)
        # All logits the same up to rounding: their shape would be that of the rounding.
        flat_S = std_S <= 1e-6 * mean_S1[:, 0].abs()
        z_SV.div_(std_S.masked_fill(flat_S, torch.inf)[:, None])
        square_SV = z_SV.square()
        skew_S = torch.linalg.vecdot(square_SV, z_SV).div_(V)
        kurtosis_S = torch.linalg.vecdot(square_SV, square_SV).div_(V).sub_(3.0)
        lens.mean_F[here], lens.std_F[here] = mean_S1[:, 0].cpu().numpy(), std_S.cpu().numpy()
        lens.skew_F[here] = skew_S.masked_fill_(flat_S, torch.nan).cpu().numpy()
        lens.kurtosis_F[here] = kurtosis_S.masked_fill_(flat_S, torch.nan).cpu().numpy()
        lens.histogram_F64[here] = _histogram(z_SV)


def _histogram(z_SV: Tensor) -> npt.NDArray[np.uint32]:
    """uint32 [S, 64]: values by bin, ends open; overwrites z.

    Bins are counted two at a time, as one number of 16 bits: half the counting.
    """
    per_unit = LENS_BINS / (2 * LENS_LIMIT)
    bin_SV = z_SV.add_(LENS_LIMIT).mul_(per_unit).clamp_(0, LENS_BINS - 1).to(torch.uint8).cpu().numpy()
    V = bin_SV.shape[1]
    counts = np.empty((len(bin_SV), LENS_BINS), np.uint32)
    for row, bin_V in enumerate(bin_SV):
        pairs = np.bincount(bin_V[: V - V % 2].view(np.uint16), minlength=256 * LENS_BINS).reshape(LENS_BINS, 256)
        counts[row] = pairs.sum(axis=1) + pairs.sum(axis=0)[:LENS_BINS]
        if V % 2:
            counts[row, bin_V[-1]] += 1
    return counts


def _with_input_tokens(
    lens: LensFacts,
    sae: SparseAutoencoder,
    model: LanguageModel,
    hook: HookPoint,
    scores_BV: Tensor,
    n: int,
    progress: Progress,
) -> LensFacts:
    """The same facts with the tokens that the encoder reads, where the hook is the stream and the widths match."""
    embedding_VD = getattr(model.module.get_input_embeddings(), "weight", None)
    if (
        hook.component not in ("residual", "residual_pre")
        or not isinstance(embedding_VD, Tensor)
        or embedding_VD.is_meta
        or embedding_VD.shape[1] != sae.d_in
        or len(embedding_VD) < lens.vocabulary
    ):
        return lens
    F, V, device = sae.d_sae, lens.vocabulary, scores_BV.device
    embedding_VD = embedding_VD.detach()[:V].to(device)
    seen_V = _seen(sae, embedding_VD)
    token_FN, score_FN = np.zeros((F, n), np.int32), np.zeros((F, n), np.float32)
    block = len(scores_BV)
    with progress.task("input tokens", F, "features") as task:
        for start in range(0, F, block):
            rows_BD = sae.W_enc.T[start : start + block].to(device=device, dtype=torch.float32)
            if sae.input_norm == "layer_norm":
                rows_BD = rows_BD - rows_BD.mean(dim=1, keepdim=True)  # as good as centring every embedding
            rows_BV = scores_BV[: len(rows_BD)]
            _times_rows(rows_BD, embedding_VD, rows_BV)
            rows_BV *= seen_V
            value_BN, token_BN = largest(rows_BV, n)
            token_FN[start : start + block], score_FN[start : start + block] = (
                token_BN.cpu().numpy(),
                value_BN.cpu().numpy(),
            )
            task.advance(len(rows_BD))
    return replace(lens, input_tokens_FN=token_FN, input_scores_FN=score_FN)


def _seen(sae: SparseAutoencoder, embedding_VD: Tensor) -> Tensor:
    """float32 [V], what embeddings are multiplied by: to length 1, or as the SAE's ``input_norm`` does it (once centred, if it centres)."""
    if sae.input_norm == "none":
        length_V = torch.linalg.vector_norm(embedding_VD, dim=1, dtype=torch.float32)
        return torch.where(length_V > 0, 1.0 / length_V, 0.0)
    parts = []
    rows = max(1, _CHUNK_VALUES // embedding_VD.shape[1])
    for start in range(0, len(embedding_VD), rows):
        x_CD = embedding_VD[start : start + rows].float()
        seen_C = torch.linalg.vector_norm(sae.normalised(x_CD), dim=1)
        if sae.input_norm == "layer_norm":
            x_CD = x_CD - x_CD.mean(dim=1, keepdim=True)
        length_C = torch.linalg.vector_norm(x_CD, dim=1)
        parts.append(torch.where(length_C > 0, seen_C / length_C, 0.0))
    return torch.cat(parts)
