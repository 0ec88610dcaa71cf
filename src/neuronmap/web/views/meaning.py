"""Searching features by meaning: the question and every feature's text as vectors of the sentence encoder, the nearest first.

The encoder runs in the process that runs models. Here are only stored vectors and one matrix product.

Shapes: F features.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from starlette.concurrency import run_in_threadpool

from neuronmap.errors import NeuronMapError
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.web.asking import PATIENCE_S, Asked, ask, checked, problem_of
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.live.requests import EmbedRequest, LabelMeaningRequest, MeaningRequest
from neuronmap.web.views.browser import FoundExample, shown_example
from neuronmap.web.views.found import Found, FoundGroup, Hit, found_nothing, hit_of, searched
from neuronmap.web.views.label_vectors import LabelVectors
from neuronmap.web.views.names import feature_names
from neuronmap.web.views.semantic_index import SemanticIndex, encoder_digest

if TYPE_CHECKING:
    from neuronmap.interpretation.labels.book import LabelBook

__all__ = ["search_meaning"]

_ABOUT = (
    f"features by the cosine between your words and a text made of each feature's label, its most typical tokens and the words "
    f"around the peaks of its three strongest examples, or a label that somebody gave it, as vectors of the sentence encoder "
    f"{SENTENCE_ENCODER.name}; "
    "English, and as good as those texts"
)


async def search_meaning(
    explorer: Explorer, query: str, *, sae: str = "", limit: int = 8, patience: float = PATIENCE_S
) -> Found:
    """Search one SAE or all by meaning, in the newest analysis of each.

    Args:
        explorer: the server's.
        query: words, a sentence.
        sae: id; all when empty.
        limit: most results for each SAE.
        patience: seconds to wait for the encoder.

    Returns:
        Nothing found where the encoder is not installed (``encoder.installed``). Where it is at work or failed, ``asked`` says so.

    Raises:
        NotInLibraryError: no such SAE, or it has no analysis.
        DamagedError: stored vectors cannot be read.
    """
    group = FoundGroup(name="meaning", title="By meaning", about=_ABOUT, total=0, totals={}, hits=[])
    found = found_nothing(query.strip(), [group], "meaning")
    analysed = await run_in_threadpool(searched, explorer, sae, found)
    digest = await run_in_threadpool(encoder_digest)
    found.encoder.installed, found.encoder.digest = digest is not None, digest or ""
    if digest is None or not found.query or not analysed:
        return found
    indexes = [SemanticIndex.of(one.store, digest) for one in analysed]
    ends = time.monotonic() + patience
    query_D = await _vector(explorer, found, digest, patience)
    called: dict[str, dict[int, _Called]] = {}
    if query_D is not None:
        await _make(explorer, found, analysed, indexes, ends)
        for one in analysed:
            called[one.entry.id] = await _called(explorer, found, one, query_D, ends)
    made = [(one, index) for one, index in zip(analysed, indexes, strict=True) if index.made]
    found.building = [one.entry.id for one, index in zip(analysed, indexes, strict=True) if not index.made]
    if query_D is not None:
        for one, index in made:
            total, hits = await run_in_threadpool(_nearest, one, index, query_D, limit, called.get(one.entry.id, {}))
            group.total += total
            group.totals |= {one.entry.id: total} if total else {}
            group.hits += hits
        group.hits.sort(key=lambda hit: -(hit.value or 0.0))  # one encoder, so that SAEs compare
    elif found.asked is not None and found.asked.problem is None:
        found.building = list(found.searched)
    found.total = len(group.hits)
    return found


async def _vector(explorer: Explorer, found: Found, digest: str, patience: float) -> npt.NDArray[np.float32] | None:
    """The question as a unit vector; None while it is not there."""
    try:
        question = checked(EmbedRequest, {"text": found.query, "encoder": digest})
    except NeuronMapError as error:
        found.asked = Asked(state="failed", problem=problem_of(error))
        return None
    asked = await ask(explorer, question, patience)
    found.asked = asked.model_copy(update={"answer": None})
    return None if asked.answer is None else np.array(asked.answer["vector"], np.float32)


async def _make(
    explorer: Explorer, found: Found, analysed: list[Analysed], indexes: list[SemanticIndex], ends: float
) -> None:
    """Have vectors made that are not there, one analysis after the other, for as long as the page waits."""
    for one, index in zip(analysed, indexes, strict=True):
        while not index.made:
            request = MeaningRequest(
                sae=one.entry.id, analysis=one.analysis.name, index=index.name, encoder=found.encoder.digest
            )
            asked = await ask(explorer, request, max(ends - time.monotonic(), 0.0), remember=False)
            found.asked = asked.model_copy(update={"answer": None})
            if asked.answer is None or time.monotonic() >= ends:
                return


class _Called(NamedTuple):
    """The label of a feature, among those that people and models gave, that is nearest to the question.

    Attributes:
        cosine: how near.
        text, author: of the label.
    """

    cosine: float
    text: str
    author: str


async def _called(
    explorer: Explorer, found: Found, one: Analysed, query_D: npt.NDArray[np.float32], ends: float
) -> dict[int, _Called]:
    """The nearest label of each feature, by its number; labels that are not read yet are left out."""
    book = await run_in_threadpool(explorer.books.reading)
    every = await run_in_threadpool(book.every_label, one.weights) if book is not None and one.weights else []
    if book is None or not every:
        return {}
    vectors = LabelVectors(one.weights, tuple(text for _, text in every), found.encoder.digest)
    while await run_in_threadpool(vectors.missing):
        request = LabelMeaningRequest(sae=one.weights, texts=vectors.texts, encoder=found.encoder.digest)
        asked = await ask(explorer, request, max(ends - time.monotonic(), 0.0), remember=False)
        if asked.answer is None or time.monotonic() >= ends:
            break
    return await run_in_threadpool(_nearest_labels, book, one, vectors, [label for label, _ in every], query_D)


def _nearest_labels(
    book: LabelBook, one: Analysed, vectors: LabelVectors, labels: list[str], query_D: npt.NDArray[np.float32]
) -> dict[int, _Called]:
    cosine = dict(zip(labels, vectors.cosines(query_D).tolist(), strict=True))
    best: dict[int, _Called] = {}
    for held in book.labels(one.weights, limit=100_000):
        near, feature = cosine.get(held.id, math.nan), held.label.feature
        if near == near and feature < one.store.num_features and (feature not in best or near > best[feature].cosine):
            best[feature] = _Called(near, held.label.text, held.label.author.name)
    return best


def _nearest(
    one: Analysed, index: SemanticIndex, query_D: npt.NDArray[np.float32], limit: int, called: dict[int, _Called]
) -> tuple[int, list[Hit]]:
    """How many features have a text, and the nearest of them, by that text or by a label that somebody gave."""
    cosine_F = index.cosines(query_D)
    middle = float(np.nanmedian(cosine_F)) if np.isfinite(cosine_F).any() else math.nan
    for feature, label in called.items():
        cosine_F[feature] = np.fmax(cosine_F[feature], label.cosine)
    known = np.flatnonzero(np.isfinite(cosine_F))
    if not len(known):
        return 0, []
    nearest = known[np.lexsort((known, -cosine_F[known]))][:limit].tolist()
    hits = []
    for feature in nearest:
        why = f"cosine {cosine_F[feature]:.2f}, middle of all {middle:.2f}"
        named = called.get(feature)
        if named is not None and named.cosine >= cosine_F[feature] - 1e-6:
            why += f"; called “{named.text}” by {named.author}"
        value = round(float(cosine_F[feature]), 4)  # float16 vectors give no more
        hits.append(hit_of(one, feature, why, value, _strongest(one, feature)))
    return len(known), hits


def _strongest(one: Analysed, feature: int) -> FoundExample | None:
    example = next(iter(one.store.examples(feature, "top")), None)
    if example is None:
        return None
    return shown_example(one.entry.id, one.analysis.name, example, feature_names(one.store, [feature])[0])
