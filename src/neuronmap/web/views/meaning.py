"""Searching features by meaning: the question and every feature's text as vectors of the sentence encoder, the nearest first.

The encoder runs in the process that runs models. Here are only stored vectors and one matrix product.

Shapes: F features.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from starlette.concurrency import run_in_threadpool

from neuronmap.errors import NeuronMapError
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.web.asking import PATIENCE_S, Asked, ask, checked, problem_of
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.live.requests import EmbedRequest, MeaningRequest
from neuronmap.web.views.browser import FoundExample, shown_example
from neuronmap.web.views.found import Found, FoundGroup, Hit, found_nothing, hit_of, searched
from neuronmap.web.views.names import feature_names
from neuronmap.web.views.semantic_index import SemanticIndex, encoder_digest

__all__ = ["search_meaning"]

_ABOUT = (
    f"features by the cosine between your words and a text made of each feature's label, its most typical tokens and the words "
    f"around the peaks of its three strongest examples, both as vectors of the sentence encoder {SENTENCE_ENCODER.name}; "
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
    if query_D is not None:
        await _make(explorer, found, analysed, indexes, ends)
    made = [(one, index) for one, index in zip(analysed, indexes, strict=True) if index.made]
    found.building = [one.entry.id for one, index in zip(analysed, indexes, strict=True) if not index.made]
    if query_D is not None:
        for one, index in made:
            total, hits = await run_in_threadpool(_nearest, one, index, query_D, limit)
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


def _nearest(
    one: Analysed, index: SemanticIndex, query_D: npt.NDArray[np.float32], limit: int
) -> tuple[int, list[Hit]]:
    """How many features have a text, and the nearest of them."""
    cosine_F = index.cosines(query_D)
    known = np.flatnonzero(np.isfinite(cosine_F))
    if not len(known):
        return 0, []
    nearest = known[np.lexsort((known, -cosine_F[known]))][:limit].tolist()
    middle = float(np.median(cosine_F[known]))
    hits = []
    for feature in nearest:
        why = f"cosine {cosine_F[feature]:.2f}, middle of all {middle:.2f}"
        value = round(float(cosine_F[feature]), 4)  # float16 vectors give no more
        hits.append(hit_of(one, feature, why, value, _strongest(one, feature)))
    return len(known), hits


def _strongest(one: Analysed, feature: int) -> FoundExample | None:
    example = next(iter(one.store.examples(feature, "top")), None)
    if example is None:
        return None
    return shown_example(one.entry.id, one.analysis.name, example, feature_names(one.store, [feature])[0])
