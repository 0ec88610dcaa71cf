"""``evaluate_sae``: the core metrics of one SAE, from rows of activations, or with its language model, or both.

``beside`` makes what measures others (baselines) on the same rows and in the same contexts.

Shapes: N rows, D = d_in, F = d_sae, T tokens in a context, W = D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.activations import ArrayRows, MaskConfig, RowSource
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError
from neuronmap.evaluation.measuring import MEASURED, Evaluation
from neuronmap.evaluation.metrics import CoreMetrics
from neuronmap.evaluation.parts import Ablation, EvaluationSize
from neuronmap.evaluation.rows import Autoencoder
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress

__all__ = ["Ablation", "beside", "evaluate_sae"]


def evaluate_sae(
    sae: Autoencoder,
    source: RowSource | TokenSet | Tensor | np.ndarray[Any, Any] | None = None,
    *,
    model: LanguageModel | None = None,
    hook: HookPoint | str | None = None,
    hook_out: HookPoint | str | None = None,
    tokens: TokenSet | None = None,
    mask: MaskConfig | None = None,
    outlier_threshold: float | None = None,
    max_tokens: int | None = None,
    max_ce_tokens: int = 4096,
    batch_tokens: int = 1024,
    ablations: Sequence[Ablation] = ("zero", "mean"),
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CoreMetrics:
    """Measure reconstruction, sparsity and, with a language model, what the SAE does to its behaviour.

    - From rows (a store, an array): reconstruction and sparsity of those rows.
    - From a model and its tokens: the same, of rows captured at the hook; then every scored position of a smaller
      sample of contexts is replaced by the reconstruction, by zero and by the mean, and loss and KL are compared
      with the clean model. The mask of the scores is the mask of the replacement: masked positions (special,
      padding, first, norm outliers) are neither replaced nor scored, so ablations do not profit from breaking an
      attention sink.
    - From rows and a model with tokens: rows for the first part, the model for the second.

    A transcoder is measured by the hook that it reconstructs: rows of both hooks come from the same forward pass (so a model is
    needed), and its output takes the place of that hook's activation.

    Sums are float64, every quotient is one of totals, and every error comes from resampling whole contexts.
    Definitions and the reasons for them: docs/explanation/metrics.md.

    Args:
        sae: the SAE for raw activations (anything with ``d_in``, ``d_sae``, ``encode`` and ``decode``).
        source: rows [N, D], already masked, such as an ``ActivationStore`` of held-out text; or a token set.
        model: the language model the activations come from.
        hook: where; a hook point or its name. Left out, it is the store's.
        hook_out: for a transcoder: what it reconstructs. Left out, what the SAE knows.
        tokens: contexts of held-out text, tokenised for ``model``.
        mask: positions to leave out; the store's own, else the default mask. Not for rows that are masked already.
        outlier_threshold: norm above which a position is left out, if it is known (from the rows the SAE was trained
            on). Left out, it is the store's, else calibrated on 8,192 tokens as a harvest does.
        max_tokens: most tokens (rows) for reconstruction and sparsity, evenly spread; 131,072 rows or 16,384
            tokens through the model when left out.
        max_ce_tokens: most tokens for loss and KL, evenly spread; 0 leaves that part out. Each costs one full
            forward pass, one for the SAE and one for each ablation.
        batch_tokens: tokens in one forward pass; memory is V logits a token, twice.
        ablations: baselines to run: ``zero``, ``mean``.
        bootstrap: resamples for the errors; 0 for none.
        seed: seed of the resampling, the only random part.
        progress: where notes and bars go.

    Returns:
        The record: figures with errors, and the protocol they were measured by. Undefined figures are null with
        the reason, never NaN.

    Raises:
        ConfigError: for arguments that do not go together.
        MismatchError: if SAE, hook, model and store do not belong together, or the SAE reads more than rows of one hook.
        EmptyCorpusError: if the mask leaves nothing to score.
        InputError: if SAE or model give NaN or infinity.

    Example:
        >>> metrics = evaluate_sae(sae, store)                                             # doctest: +SKIP
        >>> metrics.reconstruction.explained_variance.value                                # doctest: +SKIP
        0.81
    """
    if isinstance(source, TokenSet):
        tokens, source = _only(tokens, source), None
    if isinstance(source, Tensor | np.ndarray):
        source = ArrayRows(source)
    size = EvaluationSize(max_tokens, max_ce_tokens, batch_tokens, tuple(dict.fromkeys(ablations)), bootstrap, seed)
    shown = progress or progress_module.default()
    task = Evaluation(sae, source, model, (hook, hook_out), tokens, mask, outlier_threshold, size, shown)
    return task.run()[MEASURED]


def beside(
    sae: Autoencoder,
    others: Mapping[str, Autoencoder],
    tokens: TokenSet,
    model: LanguageModel,
    hook: HookPoint | str,
    mask: MaskConfig | None,
    outlier_threshold: float | None,
    size: EvaluationSize,
    progress: Progress,
) -> Evaluation:
    """An SAE and others, such as baselines, on the same rows and in the same contexts of the same forward passes, to be done part by part.

    Each of them costs one more forward pass a token for loss and KL; rows are captured, and the clean and ablated model run, once for
    all. Resamples are the same, so differences between records are paired.

    Args:
        sae: the SAE; its record has the name ``sae``.
        others: what is measured beside it, by name; all must read and write the hook's width.
        tokens, model, hook, mask, outlier_threshold, progress: as for :func:`evaluate_sae`.
        size: how much is measured.

    Raises:
        ConfigError: a name is taken (``sae``, ``clean``, ``zero``, ``mean``), or the SAE is a transcoder.
        MismatchError: as :func:`evaluate_sae`.
    """
    taken = sorted({MEASURED, "clean", "zero", "mean"} & set(others))
    if taken:
        raise ConfigError(f"Something beside the SAE is named {taken}; these names are taken.")
    task = Evaluation(sae, None, model, (hook, None), tokens, mask, outlier_threshold, size, progress, others)
    if others and task.written is not None:
        raise ConfigError("Nothing can be measured beside a transcoder: it writes another hook than it reads.")
    return task


def _only(tokens: TokenSet | None, source: TokenSet) -> TokenSet:
    if tokens is not None:
        raise ConfigError("Two token sets were given, as source and as tokens=; one is enough.")
    return source
