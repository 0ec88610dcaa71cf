"""Meaning in the child: a question as a vector, and the vectors of an analysis's features, made a piece at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from neuronmap.errors import MismatchError
from neuronmap.features.storage.feature_texts import FeatureTexts
from neuronmap.progress import Progress
from neuronmap.web.live.answers import EmbedAnswer, MeaningAnswer
from neuronmap.web.live.loaded import Loaded
from neuronmap.web.live.plain import numbers
from neuronmap.web.live.requests import EmbedRequest, LabelMeaningRequest, MeaningRequest
from neuronmap.web.views.label_vectors import LabelVectors
from neuronmap.web.views.semantic_index import SemanticIndex

__all__ = ["embed", "make_label_vectors", "make_vectors"]


def embed(request: EmbedRequest, loaded: Loaded, running: Callable[[], None]) -> EmbedAnswer:
    """A text as a unit vector.

    Raises:
        ModelNotFoundError: the encoder is not installed.
        MismatchError: it is not the one that was asked for.
    """
    encoder = loaded.encoder(request.encoder)
    running()
    vector_D = encoder.embed([request.text])[0]
    return EmbedAnswer(vector=[value or 0.0 for value in numbers(vector_D)])


def make_vectors(
    request: MeaningRequest, loaded: Loaded, progress: Progress, running: Callable[[], None]
) -> MeaningAnswer:
    """Embed features block by block until all are there or the time is over; what is done is kept, so that others get their turn.

    Raises:
        NotInLibraryError: no such SAE or analysis.
        ModelNotFoundError: the encoder is not installed.
        MismatchError: analysis or encoder are not those that were asked for.
    """
    encoder = loaded.encoder(request.encoder)
    store = loaded.store(request.sae, request.analysis)
    index = SemanticIndex.of(store, request.encoder)
    if index.name != request.index:
        raise MismatchError(f"The analysis {request.analysis} of {request.sae} has changed.", hint="Search again.")
    running()
    missing = index.missing
    ends = time.monotonic() + request.seconds
    with progress.task("Reading features for their meaning", store.num_features, "features") as task:
        task.advance(store.num_features - sum(map(len, missing)))
        texts = FeatureTexts(store) if missing else None
        for done, block in enumerate(missing):
            if texts is None or (done and time.monotonic() >= ends):
                break
            index.write(block, encoder.embed(texts.of(block), task.advance))
            running()  # a block is the step that has a time limit
    left = sum(map(len, index.missing))
    if not left:
        index.join()
    return MeaningAnswer(done=store.num_features - left, total=store.num_features)


def make_label_vectors(
    request: LabelMeaningRequest, loaded: Loaded, progress: Progress, running: Callable[[], None]
) -> MeaningAnswer:
    """Embed labels block by block until all are there or the time is over; what is done is kept.

    Raises:
        ModelNotFoundError: the encoder is not installed.
        MismatchError: it is not the one that was asked for.
    """
    encoder = loaded.encoder(request.encoder)
    vectors = LabelVectors(request.sae, request.texts, request.encoder)
    running()
    ends = time.monotonic() + request.seconds
    total = len(request.texts)
    with progress.task("Reading labels for their meaning", total, "labels") as task:
        for done, block in enumerate(vectors.missing()):
            if done and time.monotonic() >= ends:
                break
            vectors.write(block, encoder.embed(list(block), task.advance))
            running()
    return MeaningAnswer(done=total - sum(map(len, vectors.missing())), total=total)
