"""A feature state by plain definition, from all firings: what tests of what is made of a state start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuronmap.corpora.tokenset import TokenArrays, TokenReport, TokenSet
from neuronmap.features.collect.layout import EDGES, FRACTION_BITS, L0_BINS, draw, per_feature
from neuronmap.features.collect.state import CodedSample, FeatureState
from neuronmap.features.config import AnalysisConfig


class Documents:
    """Documents by where they start."""

    def __init__(self, starts: list[int]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def id(self, index: int) -> str:
        return f"file.jsonl:{index}"

    def start(self, index: int) -> int:
        return self.starts[index]


def token_set(ids_CT: np.ndarray, document_length: int = 21, padding: int = 0) -> TokenSet:
    """A token set of documents of ``document_length`` tokens with a separator (token 0) between."""
    num, length = ids_CT.shape
    flat = np.arange(ids_CT.size)
    separator = flat % (document_length + 1) == document_length
    document = np.where(separator, -1, flat // (document_length + 1)).astype(np.int32)
    position = np.where(separator, -1, flat % (document_length + 1)).astype(np.int32)
    ids = np.where(separator, 0, ids_CT.ravel()).astype(np.int64)
    if padding:
        document[-padding:] = position[-padding:] = -1
        ids[-padding:] = 0
    starts = [int(np.flatnonzero(document == index)[0]) for index in range(document.max() + 1)]
    report = TokenReport(
        *("random", "random", "all", "none", length, num, len(starts), len(starts)),
        *(ids.size - padding, 0, padding, {}, {}, None, None),
    )
    arrays = TokenArrays(ids, document, position, np.array([0]), padding, Documents(starts))
    return TokenSet(arrays, report, f"sha256:{num:064x}")


@dataclass
class World:
    """Everything: values of all features on all places, and what is a row.

    Attributes:
        value_CTF: float32, 0 where a feature is silent; only rows fire.
        row_CT: which places are rows.
        ids_CT: token ids.
        error_CT, energy_CT: squared lengths of each row.
    """

    config: AnalysisConfig
    unit: float
    tokens: TokenSet
    vocabulary: int
    value_CTF: np.ndarray
    row_CT: np.ndarray
    ids_CT: np.ndarray
    document_CT: np.ndarray
    sampled_C: np.ndarray
    error_CT: np.ndarray
    energy_CT: np.ndarray

    def firings(self, feature: int) -> list[tuple[int, int, float]]:
        """(sequence, position, value) of every firing."""
        sequence, position = np.nonzero(self.value_CTF[:, :, feature])
        return [(int(s), int(p), float(self.value_CTF[s, p, feature])) for s, p in zip(sequence, position, strict=True)]


def random_world(
    *, contexts: int = 24, length: int = 16, features: int = 12, vocabulary: int = 40, seed: int = 0, **settings: Any
) -> World:
    """Features from never to always firing; values are log-normal, and some features like some tokens."""
    rng = np.random.default_rng(seed)
    defaults = {"top_examples": 4, "bin_examples": 2, "firing_sample": 24, "before": 3, "after": 2, "neighbours": 5}
    config = AnalysisConfig(**{**defaults, "negatives": 3, "quantiles": 3, "quantile_examples": 2, **settings})
    weights = 1.0 / np.arange(1, vocabulary)
    ids_CT = rng.choice(np.arange(1, vocabulary), size=(contexts, length), p=weights / weights.sum())
    tokens = token_set(ids_CT, padding=3)
    batch = tokens.contexts(0, contexts)
    row_CT = ~batch.special & batch.attention
    row_CT[:, 0] = False
    density_F = np.concatenate([[0.0, 1.0], np.geomspace(0.6, 1.5 / row_CT.sum(), features - 2)])
    likes_FV = rng.gamma(0.3, size=(features, vocabulary)) + 0.05
    chance_CTF = density_F * likes_FV.T[batch.input_ids] / likes_FV.mean()
    chance_CTF[:, :, 1] = 1.0
    fires_CTF = (rng.random((contexts, length, features)) < chance_CTF) & row_CT[:, :, None]
    value_CTF = np.where(fires_CTF, rng.lognormal(0.0, 0.8, fires_CTF.shape), 0.0).astype(np.float32)
    energy_CT = rng.lognormal(2.0, 0.5, row_CT.shape).astype(np.float32)
    error_CT = (energy_CT * rng.uniform(0.1, 0.5, row_CT.shape)).astype(np.float32)
    sampled_C = draw(config.seed, -1, np.arange(contexts), 0) % 4 != 0
    return World(
        *(config, 8.0, tokens, vocabulary, value_CTF, row_CT, batch.input_ids),
        *(batch.document, sampled_C, error_CT, energy_CT),
    )


def state_of(world: World) -> FeatureState:
    """The state that a pass over the world leaves, firing by firing."""
    config, unit = world.config, world.unit
    contexts, length, num = world.value_CTF.shape
    features = {name: np.zeros((num, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()}
    for feature in range(num):
        _fill(world, feature, {name: array[feature : feature + 1] for name, array in features.items()})
    rows = int(world.row_CT.sum())
    l0_CT = (world.value_CTF > 0).sum(axis=2)
    facts = {
        "features": num,
        "contexts": contexts,
        "context_length": length,
        "vocabulary": world.vocabulary,
        "unit": unit,
        "blocks": 1,
        "contexts_per_block": contexts,
        "rows_digest": "sha256:1",
        "sae_digest": "sha256:2",
        "tokens_digest": world.tokens.digest,
        "hook": "layer.3",
        "mask": {},
        "mean_from": "all rows",
        "key": "sha256:3",
    }
    return FeatureState(
        config=config,
        facts=facts,
        features=features,
        rows=rows,
        l0_histogram=np.bincount(np.minimum(l0_CT[world.row_CT], L0_BINS - 1), minlength=L0_BINS),
        l0_sum_T=(l0_CT * world.row_CT).sum(axis=0),
        rows_T=world.row_CT.sum(axis=0),
        token_count_V=np.bincount(world.ids_CT[world.row_CT], minlength=world.vocabulary),
        kept=np.packbits(world.row_CT, axis=1),
        done_G=np.ones(1, bool),
        sample=_coded(world),
    )


def _fill(world: World, feature: int, out: dict[str, np.ndarray]) -> None:
    config, unit = world.config, world.unit
    firings = world.firings(feature)
    out["firings"][0] = len(firings)
    for name, power in (("sum", 1), ("square", 2)):
        total = sum((value / unit) ** power for _, _, value in firings)
        out[name][0] = int(total), round((total - int(total)) * 2**FRACTION_BITS)
    out["max"][0] = max((value for *_, value in firings), default=0.0)
    hashes = {(s, p): int(draw(config.seed, feature, s, p)[0]) for s, p, _ in firings}
    bins: dict[int, list[tuple[int, int, int, float]]] = {}
    for s, p, value in firings:
        place = int(np.clip(np.searchsorted(EDGES, np.float32(value / unit), side="right") - 1, 0, 63))
        out["histogram"][0, place] += 1
        out["positions"][0, p * 16 // world.ids_CT.shape[1]] += 1
        bins.setdefault(place // 2, []).append((hashes[s, p], s, p, value))
    for place, found in bins.items():
        kept = sorted(found)[: config.bin_examples]
        out["bin_count"][0, place] = len(kept)
        for slot, (order, s, p, value) in enumerate(kept):
            _example(world, feature, out["bins"][0, place, slot : slot + 1], order, s, p, value)
    drawn = sorted((hashes[s, p], s, p, value) for s, p, value in firings)[: config.drawn_examples]
    out["drawn_count"][0] = len(drawn)
    for slot, (order, s, p, value) in enumerate(drawn):
        _example(world, feature, out["drawn"][0, slot : slot + 1], order, s, p, value)
    best: dict[int, tuple[float, int, int]] = {}
    for s, p, value in firings:
        best[s] = min(best.get(s, (0.0, 0, 0)), (-value, s, p))
    seen: set[tuple[int, ...]] = set()
    tops = []
    for value, s, p in sorted(best.values()):
        key = tuple(world.ids_CT[s, max(0, p + 1 - config.distinct_tokens) : p + 1])
        if key not in seen:
            seen.add(key)
            tops.append((-value, s, p))
    out["top_count"][0] = len(tops[: config.top_examples])
    for slot, (value, s, p) in enumerate(tops[: config.top_examples]):
        _example(world, feature, out["top"][0, slot : slot + 1], 7, s, p, value)
    sample = sorted((hashes[s, p], s, p, value) for s, p, value in firings)[: config.firing_sample]
    out["sample_count"][0] = len(sample)
    for slot, firing in enumerate(sample):
        out["sample"][0, slot] = firing


def _example(world: World, feature: int, out: np.ndarray, order: int, s: int, p: int, value: float) -> None:
    for name, number in (("order", order), ("value", value), ("sequence", s), ("position", p)):
        out[name] = number
    for slot in range(world.config.window):
        at = p - world.config.before + slot
        if 0 <= at < world.ids_CT.shape[1]:
            out["window"][0, slot] = world.value_CTF[s, at, feature] / world.unit


def _coded(world: World) -> CodedSample:
    use_CT = world.row_CT & world.sampled_C[:, None]
    sequence, position = np.nonzero(use_CT)
    codes = world.value_CTF[sequence, position]
    row, feature = np.nonzero(codes)
    return CodedSample(
        sequence_N=sequence.astype(np.uint32),
        position_N=position.astype(np.uint16),
        offset_N=np.concatenate([[0], np.cumsum((codes > 0).sum(axis=1))]).astype(np.int64),
        feature_E=feature.astype(np.int32),
        value_E=(codes[row, feature] / world.unit).astype(np.float16),
        error_N=world.error_CT[use_CT],
        energy_N=world.energy_CT[use_CT],
    )
