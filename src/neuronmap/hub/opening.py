"""What an SAE of the library works on, opened again: its language model as in training, and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from neuronmap.errors import InputError
from neuronmap.hub.entry import LibraryEntry
from neuronmap.progress import Progress
from neuronmap.saes.metadata import read_bundle_info

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.training import SAEConfig

__all__ = [
    "ModelSettings",
    "hook_of",
    "language_model_of",
    "model_settings",
    "tokenized",
    "training_config",
    "training_text",
]

_CONTEXT_LENGTH = 128
"""Of text for an SAE that does not say how long its contexts were."""


def training_config(entry: LibraryEntry) -> SAEConfig | None:
    """The settings it was trained with; None for SAEs from elsewhere."""
    from neuronmap.training import SAEConfig

    return SAEConfig.from_dict(entry.training) if entry.training else None


def training_text(entry: LibraryEntry) -> Any:
    """The text it was trained on, as a name that can be opened.

    Raises:
        InputError: there is none.
    """
    config = training_config(entry)
    if config is None or config.corpus is None:
        raise InputError(f"{entry.id} was not trained on text that can be opened by name.", hint="Give --text.")
    return config.corpus


class ModelSettings(NamedTuple):
    """What a language model is loaded with. SAEs with equal settings can share one model in memory.

    Attributes:
        name: sample name, folder, file or hub id.
        revision: on the hub; None for the newest, and off the hub.
        dtype: precision, or ``auto``.
        device: where to, or ``auto``.
    """

    name: str
    revision: str | None
    dtype: str
    device: str


def model_settings(
    entry: LibraryEntry, *, model: str | None = None, device: str | None = None, dtype: str | None = None
) -> ModelSettings:
    """What the language model of an SAE is loaded with: revision, precision and device of its training.

    Args:
        entry: the SAE.
        model: another model's name, to take its place.
        device: where to; as in training when left out.
        dtype: precision; as in training when left out, ``auto`` for another model.

    Raises:
        InputError: the SAE names no model, and none is given.
    """
    name = model or entry.model
    if name is None:
        raise InputError(f"{entry.id} does not say which language model it belongs to.", hint="Give --model.")
    training = entry.training or {}
    own = model is None
    return ModelSettings(
        name=name,
        revision=training.get("revision") if own else None,
        dtype=dtype or (_precision_of_training(entry) if own else "auto"),
        device=device or training.get("device") or "auto",
    )


def language_model_of(
    entry: LibraryEntry,
    *,
    model: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress,
) -> LanguageModel:
    """Load the language model of an SAE, or another one in its place.

    Args:
        entry, model, device, dtype: as for :func:`model_settings`.
        progress: where notes go.

    Raises:
        InputError: the SAE names no model, and none is given.
    """
    from neuronmap.models import load_model

    settings = model_settings(entry, model=model, device=device, dtype=dtype)
    return load_model(
        settings.name, revision=settings.revision, dtype=settings.dtype, device=settings.device, progress=progress
    )


def _precision_of_training(entry: LibraryEntry) -> str:
    """What the language model computed in while the SAE was trained; ``auto`` where the bundle does not say."""
    metadata = read_bundle_info(entry.path).metadata
    recorded = (metadata.model or {}).get("dtype") if metadata is not None else None
    return str(recorded or "auto")


def hook_of(entry: LibraryEntry, model: LanguageModel) -> HookPoint:
    """Where the SAE reads, on a loaded model.

    Raises:
        InputError: it does not say where.
        HookPointError: the model has no such place.
    """
    from neuronmap.models import resolve_hook

    if entry.hook is not None:
        return resolve_hook(model, component=entry.hook)
    if entry.layer is None or entry.component is None:
        raise InputError(f"{entry.id} does not say at which hook point of the model it reads.")
    return resolve_hook(model, layer=entry.layer, component=entry.component)


def tokenized(
    model: LanguageModel, source: Any, *, config: SAEConfig | None, most: int | None, progress: Progress
) -> TokenSet:
    """All of a text as contexts, as long as those of training.

    Args:
        model: for its tokenizer.
        source: corpus name, file, folder, ...
        config: of the training; its text is opened with its own settings (column, format).
        most: tokens at most; None for all.
        progress: where notes and bars go.
    """
    from neuronmap.corpora import open_corpus, tokenize

    fields = config.corpus_fields() if config is not None and source == config.corpus else {}
    length = config.context_length if config is not None else min(_CONTEXT_LENGTH, model.max_length or _CONTEXT_LENGTH)
    return tokenize(
        open_corpus(source, **fields),
        model.tokenizer,
        context_length=length,
        part="all",
        max_tokens=most,
        tokenizer_digest=model.identity.tokenizer_digest,
        progress=progress,
    )
