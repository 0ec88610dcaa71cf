"""The arrays by feature: the compiled kernel and numpy to the same bytes, and merges that do not depend on any order."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_parts import SMALL, state_bytes

from neuronmap.features.collect.firings import BlockPlaces, Entries, accumulate
from neuronmap.features.collect.layout import EDGES, bin_of, fixed_sum, halves, per_feature, token_keys
from neuronmap.features.collect.lists import keep_first
from neuronmap.features.collect.state import FeatureState
from neuronmap.features.config import AnalysisConfig
from neuronmap.saes.kernels.native.library import load_engine

T = 16


def made_block(first: int, contexts: int, features: int, rate: float, random: np.random.Generator) -> tuple[Any, ...]:
    """Firings of some contexts at random: feature 0 in every row, others ever more seldom; values over many orders, with ties."""
    row = random.random((contexts, T)) < 0.9
    sequence, position = np.nonzero(row)
    rows = len(sequence)
    share = np.minimum(1.0, rate * features / (np.arange(features) + 0.5) ** 1.2 / 8)
    fires = random.random((rows, features)) < share
    row_N, feature_N = np.nonzero(fires)
    value_N = np.exp2(random.normal(0, 9, len(row_N)).clip(max=20)).astype(np.float32)
    value_N[random.random(len(row_N)) < 0.3] = 0.75
    ids = random.integers(0, 5, (contexts, T))
    keys = token_keys(ids, 2)[sequence, position]
    shuffle = np.lexsort((random.random(len(row_N)), row_N))  # within a row the order is any
    entries = Entries(row_N[shuffle].astype(np.int32), feature_N[shuffle].astype(np.int32), value_N[shuffle])
    places = BlockPlaces((sequence + first).astype(np.uint32), position.astype(np.uint16), keys, T)
    return entries, places, ids[sequence, position].astype(np.int32)


def new_state(
    config: AnalysisConfig, features: int, blocks: int, contexts_per_block: int, unit: float = 2.0
) -> FeatureState:
    facts = {
        "features": features,
        "contexts": blocks * contexts_per_block,
        "context_length": T,
        "vocabulary": 5,
        "unit": unit,
        "blocks": blocks,
    }
    return FeatureState.new(config, facts)


@pytest.mark.skipif(load_engine() is None, reason="the engine was not compiled here")
@pytest.mark.parametrize(
    "config", [SMALL, AnalysisConfig(before=0, after=0, top_examples=1, bin_examples=1, seed=1 << 70)]
)
@pytest.mark.parametrize("unit", [2.0**-8, 1.0, 2.0**120])
def test_the_kernel_gives_the_bytes_of_numpy(config: AnalysisConfig, unit: float) -> None:
    random = np.random.default_rng(3)
    arrays = [
        {name: np.zeros((40, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()} for _ in range(2)
    ]
    for block in range(6):
        entries, places, _ = made_block(20 * block, 20, 40, 0.2, random)
        for portable, into in enumerate(arrays):
            accumulate(into, config, entries, places, unit, portable=bool(portable))
        for name in arrays[0]:
            assert arrays[0][name].tobytes() == arrays[1][name].tobytes(), name
    assert arrays[0]["firings"][0] > 1000
    assert (arrays[0]["bin_count"] == config.bin_examples).sum() >= 40


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_merges_are_associative_and_free_of_order(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1 << 30))
    blocks = data.draw(st.integers(2, 5))
    features = data.draw(st.integers(1, 9))
    rate = data.draw(st.floats(0.0, 1.0))
    portable = data.draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks))
    random = np.random.default_rng(seed)
    made = [made_block(3 * block, 3, features, rate, random) for block in range(blocks)]
    whole = new_state(SMALL, features, blocks, 3)
    single = []
    for number in data.draw(st.permutations(range(blocks))):
        entries, places, token = made[number]
        alone = new_state(SMALL, features, blocks, 3)
        for state in (whole, alone):
            state.update(number, places, token, entries, portable=portable[number])
        single.append(alone)
    expected = state_bytes(whole)
    assert state_bytes(FeatureState.merge(single)) == expected
    order = data.draw(st.permutations(single))
    assert state_bytes(reduce(lambda a, b: FeatureState.merge([a, b]), order)) == expected
    cut = data.draw(st.integers(1, blocks - 1))
    left, right = FeatureState.merge(order[:cut]), FeatureState.merge(order[cut:])
    assert state_bytes(FeatureState.merge([right, left])) == expected


def test_sums_are_exact_and_carried() -> None:
    config = SMALL
    arrays = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()}
    values = np.random.default_rng(0).random(T * 50).astype(np.float32) + np.float32(0.5)
    sequence, position = np.divmod(np.arange(T * 50), T)
    entries = Entries(np.arange(T * 50, dtype=np.int32), np.zeros(T * 50, np.int32), values)
    places = BlockPlaces(sequence.astype(np.uint32), position.astype(np.uint16), np.zeros(T * 50, np.uint64), T)
    accumulate(arrays, config, entries, places, 1.0)
    # multiples of 2**-24 below 2**11: no sum of them is rounded
    assert fixed_sum(arrays["sum"])[0] == values.astype(float).sum()
    assert max(arrays["sum"][0, 1], arrays["square"][0, 1]) < 1 << 40
    assert fixed_sum(arrays["square"])[0] == pytest.approx((values.astype(float) ** 2).sum(), rel=1e-12)


def test_bins_follow_their_edges() -> None:
    edges = EDGES[:-1]
    assert bin_of(edges).tolist() == list(range(64))
    below = np.nextafter(edges[1:], np.float32(0))
    assert bin_of(below).tolist() == list(range(63))
    assert bin_of(np.array([1e-30, 1e-42, 3e38, np.inf], np.float32)).tolist() == [0, 0, 63, 63]


def test_halves_stop_at_the_largest() -> None:
    w = np.array([65503.0, 65519.0, 65520.0, 1e30, 2.0**-24, 2.0**-25, 1e-10], np.float32)
    assert halves(w).tolist() == [65504.0, 65504.0, 65504.0, 65504.0, 2.0**-24, 0.0, 0.0]


def test_keys_tell_the_last_tokens_apart() -> None:
    ids = np.array([[1, 2, 3, 1, 2, 3], [0, 2, 3, 2, 2, 3]])
    keys = token_keys(ids, 2)
    assert keys[0, 1] == keys[0, 4]
    assert keys[0, 2] == keys[0, 5] == keys[1, 2] == keys[1, 5]
    assert len(np.unique(keys)) == 8  # 1, 12, 23, 31 and 0, 02, 32, 22
    assert token_keys(ids, 3)[0, 2] != token_keys(ids, 3)[1, 2]


def test_a_list_holds_a_key_once() -> None:
    dtype = np.dtype([("order", "<u8"), ("value", "<f4"), ("sequence", "<u4"), ("position", "<u4")])
    lists, count = np.zeros((1, 2), dtype), np.zeros(1, np.uint16)
    ranks = ("-value", "sequence", "position")
    for order, value, sequence in ((7, 1.0, 0), (8, 2.0, 1), (7, 3.0, 2), (9, 0.5, 3), (8, 2.5, 4)):
        item = np.array([(order, value, sequence, 0)], dtype)
        keep_first(lists, count, np.zeros(1, np.int64), item, ranks, "order")
    assert lists[0].tolist() == [(7, 3.0, 2, 0), (8, 2.5, 4, 0)]
    assert count.tolist() == [2]
