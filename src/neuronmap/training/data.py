"""From whatever the user has to shuffled training rows and a held-out set.

    text -> corpus -> tokens (train, held out) -> activations (stored or streamed) -> TrainingData
    stored activations, arrays ---------------------------------------------------> TrainingData

Shapes: N rows, D = width of the activation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import (
    ActivationStore,
    ActivationStream,
    ArrayRows,
    MaskConfig,
    RowSource,
    RowStatistics,
)
from neuronmap.activations.together import harvest_together
from neuronmap.corpora import TokenSet, open_corpus, tokenize
from neuronmap.errors import ConfigError, EmptyCorpusError, MismatchError
from neuronmap.models import HookPoint, LanguageModel, load_model, resolve_hook, wrap_model
from neuronmap.progress import Progress
from neuronmap.training.config import SAEConfig
from neuronmap.training.parallel.team import Team

__all__ = ["RowRange", "TrainingData", "prepare", "prepare_many", "split_tokens"]

_EVALUATION_ROWS = 4096
_STRETCH_ROWS = 256
"""Rows read at a place when only some of the held-out rows are looked at."""


@dataclass(frozen=True)
class RowRange:
    """Rows ``start`` to ``stop`` of another source, as a source of its own."""

    source: RowSource
    start: int
    stop: int

    @property
    def width(self) -> int:
        return self.source.width

    @property
    def num_rows(self) -> int:
        return self.stop - self.start

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    @property
    def digest(self) -> str:
        return f"{self.source.digest}[{self.start}:{self.stop}]"

    @property
    def statistics(self) -> RowStatistics:
        """Those of the whole source: the share left out is small and drawn from the same text."""
        return self.source.statistics

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return self.source.read(self.start + start, self.start + stop, out)


@dataclass(frozen=True)
class TrainingData:
    """Everything the loop needs to know about its data.

    Attributes:
        rows: training rows: a source that can be read anywhere, or a stream.
        heldout: rows that are never trained on.
        heldout_is_training: True when there was too little text to keep any apart; every held-out figure is then in-sample.
        model: identity of the language model, when known.
        hook: the hook point as it is written into bundles, when known.
        corpus: where the text came from, for the record.
        mask: which positions were left out, when the activations were harvested here.
        language_model: the loaded model, when one was needed.
        heldout_tokens: the text of the held-out rows, when they were harvested here.
        hook_point: the hook in ``language_model``.
    """

    rows: RowSource | ActivationStream
    heldout: RowSource
    heldout_is_training: bool = False
    model: dict[str, Any] | None = None
    hook: dict[str, Any] | None = None
    corpus: dict[str, Any] = field(default_factory=dict)
    mask: MaskConfig | None = None
    language_model: LanguageModel | None = None
    heldout_tokens: TokenSet | None = None
    hook_point: HookPoint | None = None

    @property
    def width(self) -> int:
        return self.rows.width

    @property
    def num_rows(self) -> int:
        """Training rows; for a stream, those that pass the mask by their tokens (outliers are known only later)."""
        return self.rows.num_rows

    def heldout_stretches(self, most: int | None = None) -> list[tuple[int, int]]:
        """First row and one past the last of each stretch that :meth:`heldout_batches` reads, in its order."""
        rows = self.heldout.num_rows
        if most is None or most >= rows:
            return [(start, min(start + _EVALUATION_ROWS, rows)) for start in range(0, rows, _EVALUATION_ROWS)]
        count = max(1, most // _STRETCH_ROWS)
        length = min(_STRETCH_ROWS, most)
        return [(start, start + length) for start in (i * (rows - length) // count for i in range(count))]

    def heldout_batches(self, scale: float, device: torch.device, most: int | None = None) -> Iterator[Tensor]:
        """Held-out rows times ``scale``, in float32 pieces [up to 4096, D], always in the same order.

        Args:
            scale: factor.
            device: where the pieces go.
            most: read about that many rows only, in short stretches evenly spread over all; None for all.
        """
        stretches = self.heldout_stretches(most)
        parts: list[Tensor] = []
        for index, (start, stop) in enumerate(stretches):
            parts.append(self.heldout.read(start, stop).to(device=device, dtype=torch.float32) * scale)
            last = index + 1 == len(stretches)
            if last or sum(map(len, parts)) + stretches[index + 1][1] - stretches[index + 1][0] > _EVALUATION_ROWS:
                yield torch.cat(parts) if len(parts) > 1 else parts[0]
                parts = []


def prepare(
    config: SAEConfig,
    source: Any,
    *,
    heldout: Any = None,
    model: LanguageModel | Any | None = None,
    progress: Progress,
    team: Team | None = None,
) -> TrainingData:
    """Open, tokenise, harvest (or reuse) and split.

    Args:
        config: the run's configuration.
        source: texts, a path, a corpus name, a data set; or an activation store, an array [N, D], any RowSource.
            None takes ``config.corpus``.
        heldout: rows kept apart, for sources that are rows already; the last part of the rows when left out.
        model: a loaded LanguageModel or Hugging Face model to use instead of ``config.model_name``.
        progress: where notes and bars go.
        team: the processes that train together, each of which calls this; they share the forward passes.

    Raises:
        ConfigError, CorpusNotFoundError, EmptyCorpusError, ModelError, MismatchError: each says which input is at fault.
    """
    return prepare_many([config], source, heldout=heldout, model=model, progress=progress, team=team)[0]


def prepare_many(
    configs: Sequence[SAEConfig],
    source: Any,
    *,
    heldout: Any = None,
    model: LanguageModel | Any | None = None,
    progress: Progress,
    team: Team | None = None,
) -> list[TrainingData]:
    """The data of several trainings that differ in what they train, and in the hook, from one pass of the model.

    Args:
        configs: the configurations; text, model, mask and number formats are those of the first.
        source, heldout, model, progress, team: as for :func:`prepare`. Rows of activations are those of one hook.

    Returns:
        One for each configuration; those of one hook are the same object.

    Raises:
        ConfigError, CorpusNotFoundError, EmptyCorpusError, ModelError, MismatchError: as :func:`prepare`.
    """
    if source is None:
        if configs[0].corpus is None:
            raise ConfigError("There is nothing to train on: no texts were given and SAEConfig.corpus is not set.")
        source = configs[0].corpus
    if isinstance(source, (torch.Tensor, np.ndarray)):
        source = ArrayRows(source)
    if hasattr(source, "read") and hasattr(source, "statistics"):
        places = {(config.layer, config.component) for config in configs}
        if len(places) > 1:
            raise ConfigError(
                f"The rows of activations that were given are those of one hook, but the SAEs have {len(places)}.",
                hint="Give text, which is harvested for all hooks in one pass; or train a hook at a time.",
            )
        found = _from_rows(configs[0], source, heldout, progress)
        for config in configs[1:]:
            _check_width(config, found.width, "the activations")
        return [found] * len(configs)
    if heldout is not None:
        raise ConfigError("heldout= goes with rows of activations; for text, set heldout_fraction.")
    return _from_text(configs, source, model, progress, team or Team())


def _from_rows(config: SAEConfig, source: RowSource, heldout: Any, progress: Progress) -> TrainingData:
    if isinstance(heldout, (torch.Tensor, np.ndarray)):
        heldout = ArrayRows(heldout)
    rows: RowSource = source
    if heldout is None:
        kept = source.num_rows - min(max(1, round(source.num_rows * config.heldout_fraction)), config.heldout_tokens)
        if kept < 1:
            raise EmptyCorpusError(
                f"{source.num_rows} rows of activations are too few to train on and to hold some out."
            )
        rows, heldout = RowRange(source, 0, kept), RowRange(source, kept, source.num_rows)
        progress.note(f"Held out: the last {heldout.num_rows:,} of {source.num_rows:,} rows.")
    if heldout.width != source.width:
        raise MismatchError(f"Held-out rows have width {heldout.width}, training rows {source.width}.")
    _check_width(config, source.width, "the activations")
    known: dict[str, Any] = {}
    if isinstance(source, ActivationStore):
        known = {"model": source.model, "hook": source.hook, "corpus": dict(source.manifest.get("tokens", {}))}
    return TrainingData(rows=rows, heldout=heldout, **known)


def _from_text(
    configs: Sequence[SAEConfig], source: Any, model: Any, progress: Progress, team: Team
) -> list[TrainingData]:
    config = configs[0]

    def loaded() -> LanguageModel:
        return _language_model(config, model, progress)

    def split() -> tuple[TokenSet, TokenSet, bool]:
        return split_tokens(config, source, language_model, progress)

    language_model = team.first_then(loaded, loaded)  # what rank 0 has fetched and tokenised, the others find
    hooks = [resolve_hook(language_model, one.layer, one.component) for one in configs]
    for one, hook in zip(configs, hooks, strict=True):
        _check_width(one, hook.width, f"{hook.name} of {language_model.identity.name}")
        one.sae_options(hook.width)  # before hours of harvesting
    train, heldout, in_sample = team.first_then(split, split)
    mask = MaskConfig(**config.mask_fields())
    corpus = {
        "name": _corpus_name(source),
        "train": train.digest,
        "heldout": heldout.digest,
        "tokens": train.num_tokens,
    }

    def harvested(tokens: TokenSet) -> dict[str, ActivationStore]:
        return harvest_together(
            team, language_model, tokens, hooks, dtype=config.store_dtype, mask=mask, progress=progress
        )

    rows: Mapping[str, RowSource | ActivationStream]
    if config.stream:
        rows = ActivationStream.of_hooks(language_model, train, hooks, mask=mask, progress=progress, crew=team)
    else:
        rows = harvested(train)
    kept: Mapping[str, Any] = rows
    if not in_sample or config.stream:
        kept = harvested(heldout)
    found = {
        hook.name: TrainingData(
            rows=rows[hook.name],
            heldout=kept[hook.name],
            heldout_is_training=in_sample,
            model=language_model.identity.to_dict(),
            hook=hook_record(hook),
            corpus=corpus,
            mask=mask,
            language_model=language_model,
            heldout_tokens=heldout,
            hook_point=hook,
        )
        for hook in hooks
    }
    return [found[hook.name] for hook in hooks]


def hook_record(hook: HookPoint) -> dict[str, Any]:
    """The hook point as it is written into manifests and bundles."""
    return {
        "name": hook.name,
        "layer": hook.layer,
        "component": hook.component,
        "module_path": hook.module_path,
        "side": hook.side,
        "width": hook.width,
    }


def _language_model(config: SAEConfig, model: Any, progress: Progress) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if model is not None:
        return wrap_model(model)
    if config.model_name is None:
        raise ConfigError(
            "SAEConfig.model_name is not set: training on text needs a language model.",
            hint="Give model_name (a hub id, a folder, a GGUF file or smollm2-135m), or train on stored activations.",
        )
    return load_model(
        config.model_name, revision=config.revision, dtype=config.model_dtype, device=config.device, progress=progress
    )


def split_tokens(
    config: SAEConfig, source: Any, language_model: LanguageModel, progress: Progress
) -> tuple[TokenSet, TokenSet, bool]:
    """Training and held-out tokens: split by document if possible, else by context, else the same for both.

    Returns:
        Training part, held-out part, and True when they are the same.
    """
    if language_model.tokenizer is None:
        raise ConfigError(f"{language_model.identity.name} was given without a tokenizer, which text needs.")
    if language_model.max_length is not None and config.context_length > language_model.max_length:
        raise ConfigError(
            f"SAEConfig.context_length = {config.context_length} is longer than {language_model.identity.name} can read "
            f"({language_model.max_length} tokens)."
        )
    corpus = open_corpus(source, **config.corpus_fields())

    def part(name: Literal["train", "heldout", "all"], most: int | None) -> TokenSet:
        return tokenize(
            corpus,
            language_model.tokenizer,
            context_length=config.context_length,
            part=name,
            heldout_fraction=config.heldout_fraction,
            max_tokens=most,
            tokenizer_digest=language_model.identity.tokenizer_digest,
            progress=progress,
        )

    try:
        heldout = part("heldout", config.heldout_tokens)
        return part("train", config.max_tokens), heldout, False
    except EmptyCorpusError:
        # Too few documents for one to fall into the held-out part: take whole contexts from the end instead.
        tokens = part("all", config.max_tokens)
        if tokens.num_contexts < 2:
            progress.note("Only one context of text: nothing can be held out, so every held-out figure is in-sample.")
            return tokens, tokens, True
        most = max(1, config.heldout_tokens // config.context_length)
        kept = min(max(1, round(tokens.num_contexts * config.heldout_fraction)), most)
        progress.note(
            f"Too few documents to hold some out: the last {kept} of {tokens.num_contexts} contexts are held out."
        )
        return (
            tokens.subset(0, tokens.num_contexts - kept),
            tokens.subset(tokens.num_contexts - kept, tokens.num_contexts),
            False,
        )


def _check_width(config: SAEConfig, width: int, where: str) -> None:
    if config.input_dim is not None and config.input_dim != width:
        raise ConfigError(
            f"SAEConfig.input_dim = {config.input_dim}, but {where} is {width} wide.",
            hint=f"Set input_dim = {width}, or leave it out.",
        )


def _corpus_name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else type(source).__name__
