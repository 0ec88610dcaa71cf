"""Two SAEs of the library compared: their models loaded once, a text run through them where firing is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_module
from neuronmap.errors import InputError
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import hook_of, language_model_of, tokenized
from neuronmap.progress import Progress
from neuronmap.saes.metadata import read_bundle_info

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.features.collect.rows import ModelRows
    from neuronmap.features.comparing.compare import CompareConfig
    from neuronmap.features.comparing.comparison import SAEComparison
    from neuronmap.models import LanguageModel

__all__ = ["compare_entries"]


def compare_entries(
    hub: SAEModelHub,
    entries: tuple[LibraryEntry, LibraryEntry],
    *,
    text: str | None = None,
    tokens: int = 65_536,
    config: CompareConfig | None = None,
    progress: Progress | None = None,
) -> SAEComparison:
    """Compare two SAEs by their decoders, and with a text also by where they fire.

    Args:
        hub: the library.
        entries: the two.
        text: corpus, file or folder that both models read; None for the decoders alone.
        tokens: most tokens of it.
        config: thresholds and null.
        progress: where notes and bars go.

    Raises:
        MismatchError: there is nothing to compare them by; lists every difference.
        InputError: an SAE does not say which model or hook it belongs to, and a text was given.
    """
    from neuronmap.features.comparing.compare import compare_saes

    progress = progress or progress_module.default()
    a, b = (hub.load(entry.id, progress=progress) for entry in entries)
    metadata = [read_bundle_info(entry.path).metadata for entry in entries]
    given: dict[str, Any] = {}
    if text is not None:
        given = _rows(entries, text, tokens, progress)
    return compare_saes(
        a,
        b,
        metadata_a=metadata[0],
        metadata_b=metadata[1],
        names=(entries[0].id, entries[1].id),
        config=config,
        progress=progress,
        **given,
    )


def _rows(entries: tuple[LibraryEntry, LibraryEntry], text: str, tokens: int, progress: Progress) -> dict[str, Any]:
    """Rows of both, from one run of the model where it is the same; the shared text where tokenizers differ."""
    from neuronmap.corpora import open_corpus
    from neuronmap.features.collect.rows import ModelRows
    from neuronmap.features.comparing.crossmodel import SharedText

    models: dict[str, LanguageModel] = {}
    for entry in entries:
        if entry.model is None:
            raise InputError(
                f"{entry.id} does not say which language model it belongs to, so no text can be run for it.",
                hint="Compare the decoders alone, without --text.",
            )
        if entry.model not in models:
            models[entry.model] = language_model_of(entry, progress=progress)
    sides = [models[str(entry.model)] for entry in entries]
    hooks = [hook_of(entry, model) for model, entry in zip(sides, entries, strict=True)]

    def read(model: LanguageModel, points: list[Any], found: TokenSet) -> ModelRows:
        return ModelRows(model, found, points, progress=progress)

    first = tokenized(sides[0], text, config=None, most=tokens, progress=progress)
    if sides[0] is sides[1]:
        return {"rows": read(sides[0], hooks, first)}
    second = tokenized(sides[1], text, config=None, most=tokens, progress=progress)
    rows = {"rows": read(sides[0], hooks[:1], first), "rows_b": read(sides[1], hooks[1:], second)}
    if first.digest == second.digest:
        return rows
    shared = SharedText(open_corpus(text), first, second, sides[0].tokenizer, sides[1].tokenizer)
    return {**rows, "text": shared}
