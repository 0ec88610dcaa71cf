"""Synthetic text, and a feature state made from where features fire by plain loops over the contract's definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuronmap.features.collect.layout import SAMPLE, draw, per_feature
from neuronmap.features.collect.state import CodedSample, FeatureState
from neuronmap.features.config import AnalysisConfig


class Words:
    """A vocabulary given as a list of texts; those in angle brackets are special."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.size = len(self.texts)
        self.id = {text: index for index, text in enumerate(self.texts)}

    def text_of(self, token: int) -> str:
        return self.texts[token]

    def bytes_of(self, token: int) -> bytes:
        return self.texts[token].encode()

    def is_special(self, token: int) -> bool:
        return self.texts[token].startswith("<|")


@dataclass
class Contexts:
    input_ids: Any
    document: Any
    position: Any


class Text:
    """Documents packed into contexts, special token 0 between two; as :class:`neuronmap.corpora.TokenSet`."""

    digest = "sha256:text"

    def __init__(self, documents: Sequence[Sequence[int]], context_length: int) -> None:
        ids, document, position = [], [], []
        for number, content in enumerate(documents):
            ids += [*content, 0]
            document += [number] * len(content) + [-1]
            position += [*range(len(content)), -1]
        self.num_contexts, self.context_length = len(ids) // context_length, context_length
        shape = (self.num_contexts, context_length)
        take = self.num_contexts * context_length
        self.ids_CT = np.array(ids[:take]).reshape(shape)
        self.document_CT = np.array(document[:take], np.int32).reshape(shape)
        self.position_CT = np.array(position[:take], np.int32).reshape(shape)

    def contexts(self, start: int, stop: int) -> Contexts:
        return Contexts(self.ids_CT[start:stop], self.document_CT[start:stop], self.position_CT[start:stop])

    def document_id(self, index: int) -> str:
        return f"text.jsonl:{index}"


def state_of(
    fires_FCT: np.ndarray, text: Text, vocabulary: int, *, sampled_contexts: int, firing_sample: int = 256
) -> FeatureState:
    """A state in which feature f fires with 1.0 where ``fires_FCT`` says. Rows are all positions but those of special token 0."""
    config = AnalysisConfig(firing_sample=firing_sample)
    features, contexts, length = fires_FCT.shape
    kept_CT = text.ids_CT != 0
    fires_FCT = fires_FCT & kept_CT
    arrays = {
        name: np.zeros((features, *shape), dtype)
        for name, (shape, dtype) in per_feature(config).items()
        if name in WANTED
    }
    for f in range(features):
        sequence, position = np.nonzero(fires_FCT[f])
        drawn = np.zeros(len(sequence), SAMPLE)
        drawn["hash"], drawn["value"] = draw(0, f, sequence, position), 1.0
        drawn["sequence"], drawn["position"] = sequence, position
        drawn = np.sort(drawn, order=["hash", "sequence", "position"])[:firing_sample]
        arrays["firings"][f], arrays["sample_count"][f] = len(sequence), len(drawn)
        arrays["sample"][f, : len(drawn)] = drawn
    chosen = np.sort(np.argsort(draw(0, -1, np.arange(contexts), 0))[:sampled_contexts])
    sequence, position = np.nonzero(kept_CT[chosen])
    sequence = chosen[sequence]
    row, feature = np.nonzero(fires_FCT[:, sequence, position].T)
    empty = np.zeros(0)
    facts = {
        "features": features,
        "contexts": contexts,
        "context_length": length,
        "vocabulary": vocabulary,
        "tokens_digest": text.digest,
    }
    return FeatureState(
        config=config,
        facts=facts,
        features=arrays,
        rows=int(kept_CT.sum()),
        l0_histogram=empty.astype(np.int64),
        l0_sum_T=fires_FCT.sum((0, 1)),
        rows_T=kept_CT.sum(0),
        token_count_V=np.bincount(text.ids_CT[kept_CT], minlength=vocabulary),
        kept=np.packbits(kept_CT, axis=1),
        done_G=np.ones(1, bool),
        sample=CodedSample(
            sequence_N=sequence.astype(np.uint32),
            position_N=position.astype(np.uint16),
            offset_N=np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(sequence)))]),
            feature_E=feature.astype(np.int32),
            value_E=np.ones(len(row), np.float16),
            error_N=np.zeros(len(sequence), np.float32),
            energy_N=np.ones(len(sequence), np.float32),
        ),
    )


WANTED = ("firings", "sample_count", "sample")
