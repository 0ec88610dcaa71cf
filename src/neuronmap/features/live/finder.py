"""``MaxActivatingExamplesFinder``: examples of features, found by number, by a text they fire on, or by their labels.

Everything but the search by text reads the store only. Shapes: W tokens of an example's window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuronmap.errors import ConfigError, InputError
from neuronmap.features.live.analysis import By, FeatureOnText, TextAnalysis
from neuronmap.features.live.found import FoundExamples, FoundFeature
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.storage.store import Example, FeatureRecord, FeatureStore
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.features.live.attached import AttachedSAE
    from neuronmap.features.live.extractor import SAEFeatureExtractor
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["MaxActivatingExamplesFinder"]

_NEGATIVES = ("hard", "random")


class MaxActivatingExamplesFinder:
    """Finds features and shows where they fire.

    Args:
        store: a feature store, or its folder.
        sae: the SAE it is of; needed for the search by text only.
        model: its language model, for the same; what the SAE knows when left out.
        hook: where it reads, likewise.
        extractor: an extractor to use instead of the three above.
        progress: where notes and bars go.

    Example:
        >>> finder = MaxActivatingExamplesFinder("analysis", sae=result.sae)                          # doctest: +SKIP
        >>> finder.find([17, 42], max_examples=5, contrast=True)                                      # doctest: +SKIP
        >>> finder.find_by_text("Peace and prosperity.")                                              # doctest: +SKIP
    """

    def __init__(
        self,
        store: FeatureStore | str | Path,
        sae: SparseAutoencoder | str | Path | AttachedSAE | None = None,
        *,
        model: LanguageModel | str | Path | Any | None = None,
        hook: HookPoint | str | None = None,
        extractor: SAEFeatureExtractor | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
        self._live = (sae, model, hook)
        self._extractor = extractor
        self._progress = progress

    @property
    def extractor(self) -> SAEFeatureExtractor:
        """What runs text through the SAE; made on first use.

        Raises:
            InputError: no SAE was given.
            MismatchError: SAE, model and store do not belong together.
        """
        if self._extractor is None:
            from neuronmap.features.live.extractor import SAEFeatureExtractor

            sae, model, hook = self._live
            if sae is None:
                raise InputError(
                    "The search by text needs the SAE.", hint="Give sae= (and model= if the SAE does not know it)."
                )
            self._extractor = SAEFeatureExtractor(
                sae, model=model, hook=hook, store=self.store, progress=self._progress
            )
        return self._extractor

    def find(
        self,
        features: int | Sequence[int],
        *,
        kind: str = "top",
        min_activation: float = 0.0,
        quantile: int | None = None,
        context: int | tuple[int, int] | None = None,
        max_examples: int = 10,
        contrast: bool = False,
    ) -> FoundExamples:
        """Examples of features by their numbers.

        Args:
            features: one or several.
            kind: ``top`` (by the largest activation of their context), ``quantile``, ``bin``, ``random`` or ``hard``.
            min_activation: leave out weaker examples.
            quantile: only this group of equally many firings, 0 the weakest; sets ``kind``.
            context: tokens before and after the peak, one number for both; the stored window when left out. Activations are known
                within the stored window only.
            max_examples: of each feature, the strongest first (groups take turns).
            contrast: beside them, examples without firing: the feature's own top tokens first, then random places.

        Raises:
            InputError: unknown features or quantile.
            ConfigError: an option is out of range.
        """
        chosen = [features] if isinstance(features, int) else list(features)
        if not chosen:
            raise InputError("No feature was given.")
        options = self._options(kind, min_activation, quantile, context, max_examples)
        return self._found([(self.store.feature(feature), None) for feature in chosen], options, contrast, None, "")

    def find_by_text(
        self,
        text: str | Sequence[str],
        *,
        top: int = 10,
        by: By = "relative",
        min_activation: float = 0.0,
        context: int | tuple[int, int] | None = None,
        max_examples: int = 3,
        contrast: bool = False,
        max_tokens: int | None = None,
    ) -> FoundExamples:
        """The features that fire on a text, and where else they do.

        Args:
            text: one text or several.
            top: features shown.
            by: ``relative``: by activation over the feature's largest in the store, so that features that are always strong do
                not win; or ``activation``.
            min_activation: leave out features that stay below it on the text.
            context, max_examples, contrast: as for :meth:`find`.
            max_tokens: most tokens of a text.

        Raises:
            InputError: no SAE was given, an empty text, or no feature fires.
        """
        options = self._options("top", 0.0, None, context, max_examples)
        if top < 1:
            raise ConfigError(f"top = {top}: at least 1 feature is shown.")
        analysis = self.extractor.analyze_features(text, max_tokens=max_tokens, by=by)
        ranking = analysis.ranking(top, by, min_activation)
        if not ranking:
            raise InputError(
                f"No feature reaches {min_activation:g} on this text."
                if min_activation
                else "No feature fires on this text."
            )
        pairs = [(self.store.feature(found.feature), found) for found in ranking]
        return self._found(pairs, options, contrast, analysis, f"features on this text, by {by} activation")

    def find_by_label(
        self,
        query: str,
        *,
        top: int = 10,
        kind: str = "top",
        min_activation: float = 0.0,
        context: int | tuple[int, int] | None = None,
        max_examples: int = 3,
        contrast: bool = False,
    ) -> FoundExamples:
        """Features whose labels or top tokens hold every word of a query.

        Args:
            query: the words.
            top: features shown.
            kind, min_activation, context, max_examples, contrast: as for :meth:`find`.

        Raises:
            InputError: the query is empty, or nothing is found.
        """
        options = self._options(kind, min_activation, None, context, max_examples)
        if top < 1:
            raise ConfigError(f"top = {top}: at least 1 feature is shown.")
        numbers = self.store.queries.search_labels(query, top).features
        if not numbers:
            raise InputError(
                f"No label or top token of {self.store.num_features:,} features holds {query!r}.",
                hint="Try fewer or shorter words.",
            )
        pairs = [(self.store.feature(feature), None) for feature in numbers]
        return self._found(pairs, options, contrast, None, f"labels with {query!r}")

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _options(
        self,
        kind: str,
        min_activation: float,
        quantile: int | None,
        context: int | tuple[int, int] | None,
        max_examples: int,
    ) -> dict[str, Any]:
        if quantile is not None:
            groups = self.store.config.quantiles
            if not 0 <= quantile < groups:
                raise InputError(f"There is no quantile {quantile}: groups are 0 (weakest) to {groups - 1}.")
            kind = "quantile"
        if kind not in EXAMPLE_KINDS:
            raise InputError(f"There are no examples of kind {kind!r}. Kinds: {', '.join(EXAMPLE_KINDS)}.")
        if max_examples < 1:
            raise ConfigError(f"max_examples = {max_examples}: at least 1 is shown.")
        around = (context, context) if isinstance(context, int) else context
        if around is not None and (len(around) != 2 or min(around) < 0):
            raise ConfigError(f"context = {context}: numbers of tokens before and after, 0 or more.")
        return {
            "kind": kind, "min_activation": min_activation, "quantile": quantile, "around": around, "most": max_examples,
        }  # fmt: skip

    def _found(
        self,
        pairs: Sequence[tuple[FeatureRecord, FeatureOnText | None]],
        options: dict[str, Any],
        contrast: bool,
        analysis: TextAnalysis | None,
        said: str,
    ) -> FoundExamples:
        found = []
        for record, on_text in pairs:
            everything = self.store.examples(record.feature)
            examples = self._chosen(everything, options)
            negatives: list[Example] = []
            if contrast:
                silent = [example for kind in _NEGATIVES for example in everything if example.kind == kind]
                negatives = [self._widened(example, options["around"]) for example in silent[: options["most"]]]
            found.append(FoundFeature(record, tuple(examples), tuple(negatives), on_text))
        notes = list(analysis.notes) if analysis is not None else []
        notes += [_nothing_of(one.record, options) for one in found if not one.examples]
        if options["around"] is not None:
            notes.append("Activations are known within the stored window of each example only.")
        return FoundExamples(tuple(found), said, analysis, tuple(notes))

    def _chosen(self, everything: Sequence[Example], options: dict[str, Any]) -> list[Example]:
        """Of one feature: the kind asked for, strong enough, groups taking turns from the strongest down."""
        left = [
            example
            for example in everything
            if example.kind == options["kind"]
            and example.activation >= options["min_activation"]
            and options["quantile"] in (None, example.group)
        ]
        left.sort(key=lambda example: (example.rank, -example.group))
        return [self._widened(example, options["around"]) for example in left[: options["most"]]]

    def _widened(self, example: Example, around: tuple[int, int] | None) -> Example:
        """The example with another window; outside the stored one activations count as 0."""
        if around is None:
            return example
        ids_T = self.store.context(example.sequence)
        start, stop = max(0, example.position - around[0]), min(len(ids_T), example.position + around[1] + 1)
        activation_T = np.zeros(len(ids_T), np.float32)
        activation_T[example.start : example.start + len(example.activations)] = example.activations
        return replace(example, start=start, token_ids=ids_T[start:stop], activations=activation_T[start:stop])


def _nothing_of(record: FeatureRecord, options: dict[str, Any]) -> str:
    """Why a feature is shown without examples."""
    if not record.row["firings"]:
        return f"#{record.feature} never fired on the {record.store.manifest['rows']:,} analysed tokens."
    of_what = f"in quantile {options['quantile']}" if options["quantile"] is not None else f"of kind {options['kind']}"
    least = options["min_activation"]
    return f"#{record.feature} has no stored example {of_what}{f' that reaches {least:g}' if least > 0 else ''}."
