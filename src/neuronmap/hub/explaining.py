"""From an SAE of the library to labels and scores in this machine's book: the one path that the command line and jobs take."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neuronmap.errors import ConfigError, InputError
from neuronmap.features.export.choice import chosen_features
from neuronmap.interpretation.endpoint import AnswerCache, EndpointConfig, Limit
from neuronmap.interpretation.explaining.making import (
    Estimate,
    ExplainReport,
    estimate_explaining,
    explain_features,
    sae_digest,
)
from neuronmap.interpretation.judging.baselines import BASELINES
from neuronmap.interpretation.judging.scorers import Encoder
from neuronmap.interpretation.judging.scoring import ScoreReport, estimate_scoring, score_labels
from neuronmap.interpretation.labels.acts import Author, Label, Score, stamp

if TYPE_CHECKING:
    from neuronmap.features.live.attached import AttachedSAE
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub.entry import LibraryEntry
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.progress import Progress

__all__ = [
    "HINTS",
    "LiveActivations",
    "alive_features",
    "explain_estimate",
    "explain_into_book",
    "hint_labels",
    "labels_to_score",
    "score_estimate",
    "score_into_book",
]

HINTS = Author(kind="rule", name="hints")
"""Whose labels the hints of an analysis are, where they are scored."""
_BATCH_TOKENS = 2048
_PAGE = 5000


class LiveActivations:
    """Reads activations anew: contexts of an analysis through the language model and the SAE, which are loaded when first needed.

    Args:
        entry: the SAE.
        store: its analysis.
        model, device: as for :func:`neuronmap.hub.opening.language_model_of`.
        progress: where notes go.
    """

    def __init__(
        self,
        entry: LibraryEntry,
        store: FeatureStore,
        *,
        model: str | None = None,
        device: str | None = None,
        progress: Progress,
    ) -> None:
        self.entry, self.store, self.progress = entry, store, progress
        self._model, self._device = model, device
        self._attached: AttachedSAE | None = None

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.float32]]:
        """float32 [T] for each (feature, context); 0 at positions that the analysis or training left out.

        Raises:
            ModelError, MismatchError, InputError: the language model cannot be loaded, or is not the SAE's.
        """
        from neuronmap.features.live.reading import as_contexts

        if not wanted:
            return []
        attached = self._open()
        features: dict[int, list[int]] = {}
        for feature, sequence in wanted:
            features.setdefault(sequence, []).append(feature)
        sequences = list(features)
        contexts = as_contexts(attached.model, [self.store.context(sequence) for sequence in sequences])
        found: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
        for captured in attached.captured(contexts, _BATCH_TOKENS):
            for row, number in enumerate(captured.batch.numbers):
                sequence, length = sequences[number], len(contexts[number])
                f_TF = attached.encode(captured.x_BTD[row, :length])[:, features[sequence]].float().cpu().numpy()
                kept_T = captured.rows[row, :length].cpu().numpy() & self.store.kept(sequence)
                for column, feature in enumerate(features[sequence]):
                    found[feature, sequence] = np.where(kept_T, f_TF[:, column], 0.0).astype(np.float32)
        return [found[pair] for pair in wanted]

    def _open(self) -> AttachedSAE:
        from neuronmap.features.live.attached import attach
        from neuronmap.hub.opening import hook_of, language_model_of

        if self._attached is None:
            self.progress.note(
                f"Reading where neighbours fire in {self._model or self.entry.model} (leave out with --no-read)"
            )
            model = language_model_of(self.entry, model=self._model, device=self._device, progress=self.progress)
            self._attached = attach(
                self.entry.path, model=model, hook=hook_of(self.entry, model), progress=self.progress
            )
        return self._attached


def alive_features(
    store: FeatureStore,
    *,
    features: str | None = None,
    top: int | None = None,
    by: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    everything: bool = False,
) -> list[int]:
    """The features that were asked for, in one of four ways.

    Args:
        store: the analysis.
        features: numbers and ranges, such as ``1,2,5-9``.
        top, by: so many, the first by max, density or score.
        sample, seed: so many of those alive, drawn at random; the same for the same seed.
        everything: all that are alive.

    Raises:
        ConfigError: none of these, or several.
        InputError: there is no such feature, or none is alive.
    """
    given = [
        option
        for option, there in (
            ("--features", features is not None), ("--top", top is not None), ("--sample", sample is not None), ("--all", everything),
        )
        if there
    ]  # fmt: skip
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'Nothing'} {'were' if len(given) > 1 else 'was'} given; exactly one of --features, --top, --sample "
            "and --all is needed.",
            hint="For example --sample 50, or --features 1,2,5-9.",
        )
    if sample is not None:
        if sample < 1:
            raise ConfigError(f"--sample {sample}: at least 1 feature is needed.")
        found = store.queries.sample_alive(sample, seed)
    elif everything:
        found = [int(feature) for feature in np.flatnonzero(store.alive)]
    else:
        return chosen_features(store, features, top, by)
    if not found:
        raise InputError("No feature is alive in this analysis.", hint="Analyse more text.")
    return found


def explain_into_book(
    store: FeatureStore,
    features: Sequence[int],
    endpoint: EndpointConfig,
    book: LabelBook,
    *,
    methods: Sequence[str] = ("quantiles",),
    limit: Limit | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> ExplainReport:
    """Label features and write each label into the book as it is made; those that the book has are not made again.

    Args and errors: as of :func:`neuronmap.interpretation.explain_features`.
    """
    return explain_features(
        store,
        features,
        endpoint,
        methods=methods,
        limit=limit,
        known=_labels_by(book, store, endpoint),
        keep=lambda label: _add(book, label),
        cache=AnswerCache() if cache else None,
        progress=progress,
    )


def explain_estimate(
    store: FeatureStore, features: Sequence[int], endpoint: EndpointConfig, book: LabelBook, methods: Sequence[str]
) -> Estimate:
    """What :func:`explain_into_book` would take; nothing is asked."""
    return estimate_explaining(store, features, endpoint, methods=methods, known=_labels_by(book, store, endpoint))


def labels_to_score(
    store: FeatureStore, book: LabelBook, whose: str = "models", features: Sequence[int] | None = None
) -> list[Label]:
    """The labels of the input side that are to be scored.

    Args:
        store: the analysis.
        book: where labels are.
        whose: ``models``, ``people``, ``hints`` (of this analysis; they are written into the book), ``all`` (of the book), or the name of
            an author.
        features: only of these.

    Raises:
        InputError: there is none.
    """
    if whose == "hints":
        found = hint_labels(store, features)
        book.add(found)
    else:
        kinds = {"models": "model", "people": "person"}
        asked: dict[str, Any] = {"author_kind": kinds[whose]} if whose in kinds else {}
        if whose not in ("all", *kinds):
            asked = {"author": whose}
        wanted = None if features is None else set(features)
        held = _held(book, store, side="input", **asked)
        found = [label for label in held if wanted is None or label.feature in wanted]
        found = [label for label in found if label.feature < store.num_features]
    if not found:
        raise InputError(
            f"There is no label to score (--labels {whose}).",
            hint="Make some with `neuronmap sae explain`, or score the hints: --labels hints",
        )
    return found


def hint_labels(store: FeatureStore, features: Sequence[int] | None = None) -> list[Label]:
    """The hints of an analysis as labels; of features that have one.

    They carry the time of the analysis, so that the same hint is the same act however often it is taken.
    """
    if "hints" not in store.tables.names:
        return []
    sae, wanted = sae_digest(store), None if features is None else set(features)
    at = stamp(datetime.datetime.fromisoformat(str(store.manifest["created"])))
    rows = store.tables.read("hints", ["feature", "label", "rule", "rule_json", "f1"]).to_pylist()
    return [
        Label(
            sae=sae,
            feature=row["feature"],
            author=HINTS,
            at=at,
            text=row["label"],
            explanation=f"Predicted by a rule: {row['rule']}."[:5000] if row["rule"] else "",
            method="hints",
            evidence={"analysis": store.key, "rule": row["rule_json"], "f1": row["f1"]},
        )
        for row in rows
        if row["label"] and row["label"].isprintable() and (wanted is None or row["feature"] in wanted)
    ]


def score_into_book(
    store: FeatureStore,
    labels: Sequence[Label],
    book: LabelBook,
    *,
    scorers: Sequence[str],
    endpoint: EndpointConfig | None = None,
    reader: LiveActivations | None = None,
    baselines: Sequence[str] = BASELINES,
    batch: int = 15,
    seed: int = 0,
    limit: Limit | None = None,
    cache: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> ScoreReport:
    """Score labels and write each score into the book as it is made; those that the book has are not made again.

    Args and errors: as of :func:`neuronmap.interpretation.score_labels`; the sentence encoder is loaded where it is needed, on ``device``.
    """
    encoder: Encoder | None = None
    if "embedding" in scorers:
        from neuronmap.models.sentences import SentenceEncoder

        encoder = SentenceEncoder.load(device)
    return score_labels(
        store,
        labels,
        scorers=scorers,
        endpoint=endpoint,
        encoder=encoder,
        reader=reader,
        baselines=baselines,
        batch=batch,
        seed=seed,
        limit=limit,
        known=_scores(book, store),
        keep=lambda score: _add(book, score),
        cache=AnswerCache() if cache else None,
        progress=progress,
    )


def score_estimate(
    store: FeatureStore,
    labels: Sequence[Label],
    book: LabelBook,
    endpoint: EndpointConfig,
    *,
    scorers: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    batch: int = 15,
    seed: int = 0,
) -> Estimate:
    """What :func:`score_into_book` would take; nothing is asked."""
    return estimate_scoring(
        store,
        labels,
        endpoint,
        scorers=scorers,
        baselines=baselines,
        batch=batch,
        seed=seed,
        known=_scores(book, store),
    )


def _labels_by(book: LabelBook, store: FeatureStore, endpoint: EndpointConfig) -> list[Label]:
    return list(_held(book, store, author_kind="model", author=endpoint.model))


def _held(book: LabelBook, store: FeatureStore, **asked: Any) -> Iterator[Label]:
    """All labels of the SAE that hold, page by page."""
    last: str | None = None
    while True:
        page = book.labels(sae_digest(store), limit=_PAGE, after=last, **asked)
        yield from (one.label for one in page)
        if len(page) < _PAGE:
            return
        last = page[-1].id


def _scores(book: LabelBook, store: FeatureStore) -> list[Score]:
    return [act for act in book.acts(sae_digest(store), ("score",)) if isinstance(act, Score)]


def _add(book: LabelBook, act: Label | Score) -> None:
    book.add([act])
