"""From a configuration to a stored, evaluated SAE: the one path that the command line, the demo and jobs take.

train (or resume) -> into the library -> evaluate on held-out text with the model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neuronmap import progress as progress_module
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError, Interrupted, ModelError
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.evaluating import suite_figures
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import hook_of, language_model_of, tokenized, training_config, training_text
from neuronmap.progress import Progress
from neuronmap.saes.metadata import read_bundle_info

if TYPE_CHECKING:
    from neuronmap.evaluation import CoreMetrics
    from neuronmap.saes import SparseAutoencoder
    from neuronmap.training import SAEConfig, TrainingResult, TrainingRun

__all__ = ["StoredSAE", "evaluate_entry", "metrics_document", "store_result", "train_into_library"]


class StoredSAE(NamedTuple):
    """What a finished pipeline leaves.

    Attributes:
        entry: the library's entry.
        run: the training run, with its history.
        result: the training result; None when the run had been finished before.
        metrics: the evaluation; None when it was not asked for, or model and text cannot be opened again.
    """

    entry: LibraryEntry
    run: TrainingRun
    result: TrainingResult | None
    metrics: CoreMetrics | None


def train_into_library(
    config: SAEConfig | None,
    source: Any = None,
    *,
    hub: SAEModelHub | None = None,
    name: str | None = None,
    resume: str | Path | None = None,
    feature_ranks: int | None = None,
    init_from: SparseAutoencoder | str | Path | None = None,
    evaluate: bool = True,
    evaluation: dict[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    run_folder: Path | None = None,
    fence: Callable[[], None] | None = None,
) -> StoredSAE:
    """Train, store and evaluate. Under torchrun all processes train, and rank 0 stores and evaluates.

    Args:
        config: what to train; None when resuming.
        source: what to train on; see :meth:`neuronmap.SAETrainer.train`.
        hub: the library; this machine's when left out.
        name: id in the library, instead of the configuration's name.
        resume: a run to continue instead. One that is finished but not in the library is stored and evaluated.
        feature_ranks: how many processes share the features of the resumed run from now on; as before when left out.
        init_from: an SAE, or a bundle's folder, to start from.
        evaluate: whether to measure the SAE in the model afterwards.
        evaluation: further arguments for :func:`neuronmap.evaluation.evaluate_sae`.
        replace: let the new SAE, once it is finished, take the place of one with the same name.
        progress: where notes and bars go.
        run_folder: where a new run's files go; a new folder under ``<home>/runs`` when left out.
        fence: called right before anything is put into the library; what it raises keeps that from happening.

    Raises:
        ConfigError, AlreadyExistsError: before anything is loaded, when the name cannot be one or is taken.
        InputError: when the run to resume is finished and its SAE is in the library.
        NeuronMapError: whatever training, storing or evaluation raises. A finished training is never lost: its
            bundle stays in the run's folder, and resuming the run stores it.
    """
    from neuronmap.training import SAETrainer, TrainingRun
    from neuronmap.training.parallel.team import open_team

    hub = hub or SAEModelHub()
    progress = progress or progress_module.default()
    run = TrainingRun.open(resume) if resume is not None else None
    if run is not None:
        config = run.config()
    if config is None:
        raise ConfigError("There is neither a configuration to train nor a run to resume.")
    chosen = name if name is not None else config.name
    finished = run is not None and run.read()["status"] == "finished"
    if run is not None and finished:
        _refuse_stored(hub, run, name)
    if chosen is not None:
        hub.require_free(chosen, replace=replace)
    team, result = open_team(), None
    if run is not None and finished:
        team.wait()  # until every process has looked whether it is stored already
        found = run
    elif run is not None:
        result, found = SAETrainer.resume(run, source, progress=progress, feature_ranks=feature_ranks), run
    else:
        result = SAETrainer(config, progress=progress, run_folder=run_folder).train(source, init_from=init_from)
        found = result.run

    def store() -> StoredSAE:
        if result is None:
            return _store_finished(hub, found, chosen, evaluate, evaluation, replace, progress, fence)
        return store_result(
            result,
            hub=hub,
            name=name,
            evaluate=evaluate,
            evaluation=evaluation,
            replace=replace,
            progress=progress,
            fence=fence,
        )

    stored = team.first_then(store, lambda: None)
    identity = team.from_first(lambda: stored.entry.id if stored is not None else "")
    return stored if stored is not None else StoredSAE(hub.get(identity), found, result, None)


def store_result(
    result: TrainingResult,
    *,
    hub: SAEModelHub | None = None,
    name: str | None = None,
    evaluate: bool = True,
    evaluation: dict[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    fence: Callable[[], None] | None = None,
) -> StoredSAE:
    """Put a finished training into the library, then evaluate it on its held-out text (or rows)."""
    from neuronmap.evaluation import evaluate_sae
    from neuronmap.saes import attach_file

    hub = hub or SAEModelHub()
    progress = progress or progress_module.default()
    entry = _register(hub, result.run, name if name is not None else result.config.name, replace, fence)
    if not evaluate:
        return StoredSAE(entry, result.run, result, None)
    data = result.data
    with _stored_already(entry, progress):
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
        if fence is not None:
            fence()
        attach_file(entry.path, "metrics.json", metrics_document(metrics, result.metrics))
    return StoredSAE(hub.get(entry.id), result.run, result, metrics)


def _refuse_stored(hub: SAEModelHub, run: TrainingRun, name: str | None) -> None:
    """A finished run has nothing to go on with once its SAE is in the library (under the name asked for, if any)."""
    metadata = read_bundle_info(run.bundle).metadata
    digest = metadata.weights_digest if metadata is not None else None
    for entry in hub.list():
        if entry.weights_digest == digest and name in (None, entry.id):
            raise InputError(
                f"The run {run.folder.name} is finished: its SAE is in the library as '{entry.id}'.",
                hint=f"neuronmap sae evaluate {entry.id} measures it. To train it further with a fresh schedule, use "
                "init_from (--init-from).",
            )


def _store_finished(
    hub: SAEModelHub,
    run: TrainingRun,
    name: str | None,
    evaluate: bool,
    evaluation: dict[str, Any] | None,
    replace: bool,
    progress: Progress,
    fence: Callable[[], None] | None,
) -> StoredSAE:
    """Bring in the SAE of a run that finished without reaching the library."""
    progress.note(f"The run {run.folder.name} is finished; its SAE goes into the library.")
    entry = _register(hub, run, name, replace, fence)
    metrics = None
    if evaluate:
        with _stored_already(entry, progress):
            try:
                metrics = evaluate_entry(hub, entry, evaluation=evaluation, progress=progress, fence=fence)
            except (InputError, ModelError) as error:  # its text or model may be long gone
                progress.note(f"Not evaluated: {error}")
    return StoredSAE(hub.get(entry.id), run, None, metrics)


def _register(
    hub: SAEModelHub, run: TrainingRun, name: str | None, replace: bool, fence: Callable[[], None] | None
) -> LibraryEntry:
    if fence is not None:
        fence()
    try:
        return hub.register(run.bundle, name=name, replace=replace)
    except AlreadyExistsError as error:  # the name was taken while we trained
        raise AlreadyExistsError(
            error.message,
            hint=f"The SAE is kept. neuronmap sae train --resume {run.folder.name} --name OTHER stores it.",
        ) from error


@contextmanager
def _stored_already(entry: LibraryEntry, progress: Progress) -> Iterator[None]:
    """Say, whatever ends an evaluation, that the SAE itself is safe."""
    again = f"neuronmap sae evaluate {entry.id}"
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped while evaluating; the SAE is in the library as '{entry.id}'.", hint=f"Evaluate it with: {again}"
        ) from None
    except Exception:
        progress.note(f"The SAE is in the library as '{entry.id}'; its evaluation failed. To try again: {again}")
        raise


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
    device: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    evaluation: dict[str, Any] | None = None,
    progress: Progress | None = None,
    fence: Callable[[], None] | None = None,
) -> CoreMetrics:
    """Measure an SAE of the library in its language model and keep the result with it.

    Args:
        hub: the library.
        entry: the SAE.
        text: what to evaluate on; the part of the training text that training held out when left out.
        model: the language model; the one it was trained on when left out.
        tokens: tokens for reconstruction and sparsity.
        ce_tokens: tokens run through the whole model.
        device: where to compute; as in training when left out.
        dtype: of the language model; as in training when left out.
        force: go on although model, revision or tokenizer differ.
        evaluation: further arguments for :func:`neuronmap.evaluation.evaluate_sae`.
        progress: where notes and bars go.
        fence: called right before the result is kept; what it raises keeps that from happening.

    Raises:
        MismatchError: when the SAE does not fit the model; lists every difference.
        InputError: when the training text cannot be opened again and no other is given.
    """
    from neuronmap.activations import MaskConfig
    from neuronmap.evaluation import evaluate_sae
    from neuronmap.saes import attach_file
    from neuronmap.training.data import split_tokens

    progress = progress or progress_module.default()
    config = training_config(entry)
    source = text if text is not None else training_text(entry)
    language_model = language_model_of(entry, model=model, device=device, dtype=dtype, progress=progress)
    hook = hook_of(entry, language_model)
    sae = hub.load(entry.id, model=language_model, device=str(language_model.device), force=force, progress=progress)
    known: dict[str, Any] = {}
    if text is None and config is not None:
        _, found, in_sample = split_tokens(config, source, language_model, progress)
        known["heldout_is_training"] = in_sample
    else:
        found = tokenized(language_model, source, config=config, most=tokens, progress=progress)
    metrics = evaluate_sae(
        sae,
        found,
        model=language_model,
        hook=hook,
        mask=MaskConfig(**config.mask_fields()) if config else MaskConfig(),
        progress=progress,
        **{"max_tokens": tokens, "max_ce_tokens": ce_tokens, **(evaluation or {})},
    )
    if fence is not None:
        fence()
    known["summary"] = suite_figures(entry)  # figures of suites stay
    attach_file(entry.path, "metrics.json", metrics_document(metrics, known))
    return metrics
