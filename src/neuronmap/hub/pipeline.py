"""From a configuration to a stored, evaluated SAE: the one path that the command line, the demo and jobs take.

train (or resume) -> evaluate on held-out text with the model -> into the library
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neuronmap import progress as progress_module
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.evaluation import CoreMetrics
    from neuronmap.saes import SparseAutoencoder
    from neuronmap.training import SAEConfig, TrainingResult

__all__ = ["StoredSAE", "metrics_document", "store_result", "train_into_library"]


class StoredSAE(NamedTuple):
    """What a finished pipeline leaves.

    Attributes:
        entry: the library's entry.
        result: the training result, with run folder and history.
        metrics: the evaluation; None when it was not asked for.
    """

    entry: LibraryEntry
    result: TrainingResult
    metrics: CoreMetrics | None


def train_into_library(
    config: SAEConfig | None,
    source: Any = None,
    *,
    hub: SAEModelHub | None = None,
    resume: str | Path | None = None,
    init_from: SparseAutoencoder | str | Path | None = None,
    evaluate: bool = True,
    evaluation: dict[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> StoredSAE:
    """Train, evaluate and store.

    Args:
        config: what to train; None when resuming.
        source: what to train on; see :meth:`neuronmap.SAETrainer.train`.
        hub: the library; this machine's when left out.
        resume: a run to continue instead.
        init_from: an SAE, or a bundle's folder, to start from.
        evaluate: whether to measure the SAE in the model afterwards.
        evaluation: further arguments for :func:`neuronmap.evaluation.evaluate_sae`.
        replace: let the new SAE, once it is finished, take the place of one with the same name.
        progress: where notes and bars go.

    Raises:
        AlreadyExistsError: before anything is trained, when the name is taken and ``replace`` is off.
        NeuronMapError: whatever training, evaluation or storing raises. A finished training is never lost: its
            bundle stays in the run's folder.
    """
    from neuronmap.training import SAETrainer

    hub = hub or SAEModelHub()
    progress = progress or progress_module.default()
    if config is not None and config.name is not None and not replace:
        _refuse_taken(hub, config.name)
    if resume is not None:
        result = SAETrainer.resume(resume, source, progress=progress)
    elif config is not None:
        result = SAETrainer(config, progress=progress).train(source, init_from=init_from)
    else:
        raise ConfigError("There is neither a configuration to train nor a run to resume.")
    return store_result(result, hub=hub, evaluate=evaluate, evaluation=evaluation, replace=replace, progress=progress)


def store_result(
    result: TrainingResult,
    *,
    hub: SAEModelHub | None = None,
    evaluate: bool = True,
    evaluation: dict[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> StoredSAE:
    """Evaluate a finished training on its held-out text (or rows) and put it into the library."""
    from neuronmap.evaluation import evaluate_sae
    from neuronmap.saes import attach_file

    hub = hub or SAEModelHub()
    progress = progress or progress_module.default()
    metrics = None
    if evaluate:
        data = result.data
        if data.language_model is not None and data.heldout_tokens is not None:
            metrics = evaluate_sae(
                result.sae,
                data.heldout_tokens,
                model=data.language_model,
                hook=data.hook_point,
                mask=data.mask,
                progress=progress,
                **(evaluation or {}),
            )
        else:
            metrics = evaluate_sae(result.sae, data.heldout, progress=progress, **(evaluation or {}))
        attach_file(result.bundle, "metrics.json", metrics_document(metrics, result.metrics))
    if replace and result.config.name is not None:
        hub.delete(result.config.name, missing_ok=True)
    entry = hub.register(result.bundle, name=result.config.name)
    return StoredSAE(entry, result, metrics)


def _refuse_taken(hub: SAEModelHub, name: str) -> None:
    if any(entry.id == name for entry in hub.list()):
        raise AlreadyExistsError(
            f"The library already has an SAE called '{name}'.",
            hint="Choose another name, or replace it (replace=True, --replace).",
        )


def metrics_document(metrics: CoreMetrics, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Content of a bundle's ``metrics.json``: every figure by name under ``summary``, the whole record under ``core``."""
    summary = dict((known or {}).get("summary", {}))
    return {**(known or {}), "summary": {**summary, **metrics.summary()}, "core": metrics.to_dict()}


def evaluate_entry(
    hub: SAEModelHub,
    entry: LibraryEntry,
    *,
    text: Any = None,
    model: str | None = None,
    tokens: int = 16_384,
    ce_tokens: int = 8_192,
    force: bool = False,
    progress: Progress | None = None,
) -> CoreMetrics:
    """Measure an SAE of the library in its language model and keep the result with it.

    Args:
        hub: the library.
        entry: the SAE.
        text: what to evaluate on; the held-out part of the training text when left out.
        model: the language model; the one it was trained on when left out.
        tokens: tokens for reconstruction and sparsity.
        ce_tokens: tokens run through the whole model.
        force: go on although model, revision or tokenizer differ.
        progress: where notes and bars go.

    Raises:
        MismatchError: when the SAE does not fit the model; lists every difference.
        InputError: when the training text cannot be opened again and no other is given.
    """
    from neuronmap.activations import MaskConfig
    from neuronmap.corpora import open_corpus, tokenize
    from neuronmap.evaluation import evaluate_sae
    from neuronmap.models import load_model, resolve_hook
    from neuronmap.saes import attach_file
    from neuronmap.training import SAEConfig

    progress = progress or progress_module.default()
    name = model or entry.model
    if name is None or entry.hook is None:
        raise InputError(f"{entry.id} does not say which language model and hook it belongs to.", hint="Give --model.")
    config = SAEConfig.from_dict(entry.training) if entry.training else None
    source = text if text is not None else (config.corpus if config else None)
    if source is None:
        raise InputError(f"{entry.id} was not trained on text that can be opened by name.", hint="Give --text.")
    language_model = load_model(name, revision=config.revision if config and model is None else None, progress=progress)
    sae = hub.load(entry.id, model=language_model, force=force, progress=progress)
    length = config.context_length if config else 128
    found = tokenize(
        open_corpus(source, **(config.corpus_fields() if config and text is None else {})),
        language_model.tokenizer,
        context_length=length,
        part="heldout" if text is None else "all",
        heldout_fraction=config.heldout_fraction if config else 0.05,
        max_tokens=tokens,
        tokenizer_digest=language_model.identity.tokenizer_digest,
        progress=progress,
    )
    metrics = evaluate_sae(
        sae,
        found,
        model=language_model,
        hook=resolve_hook(language_model, component=entry.hook),
        mask=MaskConfig(**config.mask_fields()) if config else MaskConfig(),
        max_ce_tokens=ce_tokens,
        progress=progress,
    )
    attach_file(entry.path, "metrics.json", metrics_document(metrics))
    return metrics
