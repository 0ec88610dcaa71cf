"""Small rows, SAEs and a plain account of what a pass has to keep: loops and sorts over every firing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "activations"))

from token_sets import PlainTokens

from neuronmap.activations import MaskConfig
from neuronmap.features.collect.rows import RowBlock
from neuronmap.features.config import AnalysisConfig
from neuronmap.hashing import digest_bytes
from neuronmap.progress import SilentProgress, Task
from neuronmap.saes import SparseAutoencoder, get_architecture

SMALL = AnalysisConfig(
    top_examples=3,
    bin_examples=2,
    firing_sample=8,
    before=3,
    after=2,
    distinct_tokens=2,
    sample_tokens=128,
    block_tokens=40,
    seed=5,
)


class MadeTokens(PlainTokens):
    """Contexts over very few tokens, so that windows repeat; separators are at no place of a document."""

    def __init__(self, num_contexts: int = 13, context_length: int = 12, vocabulary: int = 7) -> None:
        super().__init__(num_contexts, context_length, vocabulary)
        self.position = np.where(self.special, -1, self.position).astype(np.int32)


class MadeRows:
    """Random rows at two hooks. At ``plain`` equal tokens have nearly equal rows; at ``wide`` every row is another.

    ``read`` lists the blocks that were asked for.
    """

    hooks = ("plain", "wide")
    mask = MaskConfig()
    vocabulary = 7

    def __init__(self, tokens: MadeTokens | None = None, empty: Sequence[int] = ()) -> None:
        self.tokens: Any = tokens or MadeTokens()
        random = np.random.default_rng(1)
        shape = self.tokens.input_ids.shape
        embedded = random.normal(size=(300, 8))[self.tokens.input_ids] + 1e-3 * random.normal(size=(*shape, 8))
        self.x = {"plain": embedded * 3.0, "wide": random.standard_t(3, size=(*shape, 12)) * 40.0}
        self.row = self.tokens.attention & ~self.tokens.special & (random.random(shape) < 0.95)
        self.row[:, 0] = False
        self.row[list(empty)] = False
        self.read: list[int] = []

    def width(self, hook: str) -> int:
        return int(self.x[hook].shape[2])

    def digest(self, hook: str) -> str:
        return digest_bytes(self.x[hook].tobytes())

    def unit(self, hook: str) -> float:
        return {"plain": 8.0, "wide": 256.0}[hook]

    def mean(self, hook: str) -> Tensor:
        return torch.from_numpy(self.x[hook][self.row].mean(0))

    def mean_from(self, hook: str) -> str:
        return f"all rows at {hook}"

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[dict[str, RowBlock]]:
        for index in todo:
            self.read.append(index)
            first = index * contexts_per_block
            stop = min(first + contexts_per_block, self.tokens.num_contexts)
            sequence, position = np.nonzero(self.row[first:stop])
            yield {
                hook: RowBlock(
                    index,
                    first,
                    stop,
                    torch.from_numpy(x[first:stop][self.row[first:stop]].astype(np.float32)),
                    (sequence + first).astype(np.uint32),
                    position.astype(np.uint16),
                    self.tokens.input_ids[first:stop][self.row[first:stop]].astype(np.int32),
                )
                for hook, x in self.x.items()
            }


def small_sae(architecture: str, d_in: int, d_sae: int = 24, seed: int = 0) -> SparseAutoencoder:
    """An SAE with random weights whose features fire at very different rates, some never."""
    cls = get_architecture(architecture)
    generator = torch.Generator().manual_seed(seed)
    sae = cls(d_in, d_sae, cls.Options.from_dict({"k": 5} if architecture in ("topk", "batchtopk") else {}))
    sae.initialise(torch.zeros(d_in), generator)
    with torch.no_grad():
        bias: Tensor = sae.get_parameter("b_enc")
        bias.copy_(torch.randn(d_sae, generator=generator) * 2.0)
        bias[:2] = -1e6
        if architecture in ("jumprelu", "batchtopk"):
            threshold: Tensor = sae.threshold  # type: ignore[assignment]
            threshold.fill_(1.5)
    return sae


class Notes(SilentProgress):
    """Remembers what was said; ``stop_at`` raises KeyboardInterrupt at that report of progress, from 1."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at, self.reports, self.tokens = stop_at, 0, 0

    def note(self, message: str) -> None:
        self.lines.append(message)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        owner = self

        class Counting:
            def advance(self, amount: int, **figures: str) -> None:
                owner.reports += 1
                owner.tokens += amount
                if owner.reports == owner.stop_at:
                    raise KeyboardInterrupt

        yield Counting()


@dataclass(frozen=True)
class Firing:
    value: np.float32
    sequence: int
    position: int


def state_bytes(state: Any) -> dict[str, bytes]:
    """Every array of a state as bytes, and its plain figures."""
    state.settle()
    arrays = {**state.features, **{f"sample.{name}": array for name, array in state.sample.arrays().items()}}
    for name in ("l0_histogram", "l0_sum_T", "rows_T", "token_count_V", "kept", "done_G"):
        arrays[name] = getattr(state, name)
    plain = repr((state.rows, sorted(state.facts.items(), key=str), state.config)).encode()
    return {"plain": plain, **{name: str(array.shape).encode() + array.tobytes() for name, array in arrays.items()}}


def plain_draw(seed: int, feature: int, sequence: int, position: int) -> int:
    """The hash of layout.py in Python integers."""
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + (feature + 2) * 0xD1B54A32D192ED03 + (sequence << 16) + position) & mask
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
    return (x ^ x >> 31) >> 32


def plain_key(ids: Sequence[int], position: int, tokens: int) -> int:
    """The key of layout.py in Python integers."""
    h = 0
    for token in ids[max(0, position - tokens + 1) : position + 1]:
        h = ((h ^ (int(token) + 1)) * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
        h ^= h >> 32
    return h


def plain_bin(w: float) -> int:
    """The histogram bin by comparing with every edge."""
    mantissa, exponent = math.frexp(w)  # 0.5 <= mantissa < 1
    quarters = [float(np.float32(2.0 ** (i / 4))) for i in (1, 2, 3)]
    return min(63, max(0, 4 * (exponent - 1 + 14) + sum(2 * mantissa >= q for q in quarters)))


def plain_features(
    f: np.ndarray, row: np.ndarray, ids: np.ndarray, config: AnalysisConfig, unit: float
) -> list[dict[str, Any]]:
    """What is to be kept of each feature, from the dense activations f [C, T, F] of every position; rows elsewhere do not count."""
    C, T, F = f.shape
    found = []
    for feature in range(F):
        firings = [
            Firing(f[c, t, feature], c, t) for c in range(C) for t in range(T) if row[c, t] and f[c, t, feature] > 0
        ]

        def example(firing: Firing, order: int, feature: int = feature) -> tuple[Any, ...]:
            window = []
            for t in range(firing.position - config.before, firing.position + config.after + 1):
                fires = 0 <= t < T and row[firing.sequence, t] and f[firing.sequence, t, feature] > 0
                window.append(float(np.float16(f[firing.sequence, t, feature] / unit)) if fires else 0.0)
            return (order, firing.value, firing.sequence, firing.position, window)

        def hash_of(firing: Firing, feature: int = feature) -> int:
            return plain_draw(config.seed, feature, firing.sequence, firing.position)

        drawn = sorted(firings, key=lambda x: (hash_of(x), x.sequence, x.position))
        bins = [[x for x in drawn if plain_bin(float(x.value) / unit) // 2 == b] for b in range(32)]
        peaks: dict[int, Firing] = {}
        for firing in firings:
            if firing.sequence not in peaks or firing.value > peaks[firing.sequence].value:
                peaks[firing.sequence] = firing
        top, seen = [], set()
        for firing in sorted(peaks.values(), key=lambda x: (-x.value, x.sequence, x.position)):
            key = plain_key(ids[firing.sequence], firing.position, config.distinct_tokens)
            if key not in seen:
                seen.add(key)
                top.append(example(firing, key))
        found.append(
            {
                "firings": len(firings),
                "sum": sum(float(x.value) / unit for x in firings),
                "square": sum((float(x.value) / unit) ** 2 for x in firings),
                "max": max((x.value for x in firings), default=0.0),
                "histogram": [sum(plain_bin(float(x.value) / unit) == b for x in firings) for b in range(64)],
                "positions": [sum(x.position * 16 // T == p for x in firings) for p in range(16)],
                "top": top[: config.top_examples],
                "bins": [[example(x, hash_of(x)) for x in members[: config.bin_examples]] for members in bins],
                "drawn": [example(x, hash_of(x)) for x in drawn[: config.drawn_examples]],
                "sample": [(hash_of(x), x.sequence, x.position, x.value) for x in drawn[: config.firing_sample]],
            }
        )
    return found
