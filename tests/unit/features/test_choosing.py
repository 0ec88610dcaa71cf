"""Examples: which are chosen, that they are what they say, that nothing is shown too often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feature_states import World, random_world, state_of

from neuronmap.features.collect.firings import BlockPlaces, Entries, accumulate
from neuronmap.features.collect.layout import EDGES, draw, per_feature
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.summary.choosing import (
    CodedFirings,
    Examples,
    bin_examples,
    hard_negatives,
    merged,
    quantile_examples,
    random_negatives,
    top_examples,
)
from neuronmap.features.summary.contexts import StoredContexts
from neuronmap.features.summary.distributions import histogram_quantiles
from neuronmap.features.summary.tokenstats import token_statistics


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(contexts=48)


def rows_of(examples: Examples) -> list[dict[str, object]]:
    """One dictionary an example, with its firings by offset."""
    rows = []
    for place in range(len(examples)):
        low, high = examples.firings.offset[place : place + 2]
        offsets, values = (examples.firings[name][low:high].tolist() for name in ("offset", "value"))
        names = ("feature", "kind", "group", "rank", "sequence", "position", "activation")
        row = {name: getattr(examples, name)[place].item() for name in names}
        rows.append({**row, "firings": dict(zip(offsets, values, strict=True))})
    return rows


def window_of(world: World, row: dict[str, object]) -> dict[int, float]:
    """What fires around an example, from all firings, as float16 over the unit."""
    feature, sequence, position = (int(row[name]) for name in ("feature", "sequence", "position"))  # type: ignore[call-overload]
    found = {}
    for offset in range(-world.config.before, world.config.after + 1):
        if 0 <= position + offset < world.ids_CT.shape[1]:
            value = world.value_CTF[sequence, position + offset, feature]
            if value:
                found[offset] = float(np.float32(np.float16(value / world.unit)) * world.unit)
    return found


def test_top_examples_are_those_of_the_state_with_their_windows(world: World) -> None:
    state = state_of(world)
    rows = rows_of(top_examples(state.features, 0, world.config, world.unit))
    for feature in range(world.value_CTF.shape[2]):
        own = [row for row in rows if row["feature"] == feature]
        assert [row["rank"] for row in own] == list(range(state.features["top_count"][feature]))
        strongest = max((value for *_, value in world.firings(feature)), default=None)
        assert strongest is None or own[0]["activation"] == strongest
    for row in rows:
        assert row["activation"] == world.value_CTF[row["sequence"], row["position"], row["feature"]]
        assert row["firings"] == window_of(world, row)


def test_quantile_examples_are_the_drawn_ones_and_then_the_race_by_hand(world: World) -> None:
    config, state = world.config, state_of(world)
    features = state.features
    rows = rows_of(quantile_examples(features, 0, config, world.unit))
    shares = [group / config.quantiles for group in range(1, config.quantiles)]
    edges_FG = histogram_quantiles(features["histogram"], features["max"], world.unit, shares)
    assert {row["group"] for row in rows} == set(range(config.quantiles))
    for feature in range(world.value_CTF.shape[2]):
        drawn = features["drawn"][feature, : features["drawn_count"][feature]]
        entries = [(float(e["order"]), int(e["sequence"]), int(e["position"]), float(e["value"])) for e in drawn]
        for place in range(32):
            kept = int(features["bin_count"][feature, place])
            firings = int(features["histogram"][feature, 2 * place : 2 * place + 2].sum())
            for entry in features["bins"][feature, place, :kept]:
                number = int(draw(config.seed + (1 << 40), feature, entry["sequence"], entry["position"])[0])
                race = 2.0**32 - np.log((number + 0.5) / 2**32) / (firings / kept)
                entries.append((race, int(entry["sequence"]), int(entry["position"]), float(entry["value"])))
        chosen: dict[int, list[tuple[int, int]]] = {}
        contexts: set[int] = set()
        for _, sequence, position, value in sorted(entries):
            if sequence not in contexts:
                contexts.add(sequence)
                group = int((value > edges_FG[feature]).sum())
                chosen.setdefault(group, []).append((sequence, position))
        expected = {group: places[: config.quantile_examples] for group, places in chosen.items()}
        own = [row for row in rows if row["feature"] == feature]
        found: dict[int, list[tuple[int, int]]] = {}
        for row in own:
            assert row["rank"] == len(found.get(row["group"], []))
            found.setdefault(row["group"], []).append((row["sequence"], row["position"]))
        assert found == expected
        assert len({row["sequence"] for row in own}) == len(own)
        assert all(row["firings"] == window_of(world, row) for row in own)


def test_entries_of_a_bin_that_is_kept_whole_are_not_chosen_too_often() -> None:
    # one group; 98 firings in one bin, of which 2 are kept, and 2 in another, both kept
    config = AnalysisConfig(quantiles=1, quantile_examples=1, bin_examples=2, before=0, after=0)
    num = 4000
    features = {name: np.zeros((num, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()}
    features["histogram"][:, 40], features["histogram"][:, 50] = 98, 2
    features["bin_count"][:, 20] = features["bin_count"][:, 25] = 2
    features["max"][:] = 9.0
    for slot in range(2):
        features["bins"]["value"][:, 20, slot], features["bins"]["value"][:, 25, slot] = 0.1, 0.9
        features["bins"]["sequence"][:, 20, slot] = 10 + slot
        features["bins"]["sequence"][:, 25, slot] = 20 + slot
    share = float((quantile_examples(features, 0, config, 1.0).activation == np.float32(0.9)).mean())
    assert abs(share - 0.02) < 4 * np.sqrt(0.02 * 0.98 / num)


def test_bin_examples_are_one_more_of_each_bin_that_has_a_new_context(world: World) -> None:
    features = state_of(world).features
    shown = [choose(features, 0, world.config, world.unit) for choose in (top_examples, quantile_examples)]
    rows = rows_of(bin_examples(features, 0, world.config, world.unit, shown))
    assert len(rows) > 20
    for feature in range(world.value_CTF.shape[2]):
        own = [row for row in rows if row["feature"] == feature]
        contexts = {row["sequence"] for part in shown for row in rows_of(part) if row["feature"] == feature}
        places = [row["group"] // 2 for row in own]
        assert places == sorted(set(places))
        assert len({row["sequence"] for row in own} - contexts) == len(own)
        new_contexts = contexts | {row["sequence"] for row in own}
        for place in range(32):
            entries = features["bins"][feature, place, : features["bin_count"][feature, place]]
            # a bin without an example has only entries of contexts that are shown
            assert place in places or set(entries["sequence"].tolist()) <= new_contexts
        for row in own:
            assert row["activation"] == world.value_CTF[row["sequence"], row["position"], feature]
            assert EDGES[row["group"]] <= row["activation"] / world.unit < EDGES[row["group"] + 1]
            assert row["firings"] == window_of(world, row)


def coded_of(world: World, folder: Path) -> tuple[CodedFirings, np.ndarray]:
    state = state_of(world)
    contexts = StoredContexts.write(world.tokens, state.kept, world.vocabulary, folder)
    stats = token_statistics(state.features["sample"], state.features["sample_count"], contexts, 5)
    sample = state.sample
    token_N = contexts.token(sample.sequence_N.astype(np.int64), sample.position_N)
    features, length = world.value_CTF.shape[2], world.ids_CT.shape[1]
    return CodedFirings(sample, token_N, features, length, world.config, world.unit), stats.frequent_FK


def test_random_negatives_are_silent_in_the_whole_window(world: World, tmp_path: Path) -> None:
    coded, _ = coded_of(world, tmp_path)
    fires = np.flatnonzero((world.value_CTF > 0).any(axis=(0, 1)))
    rows = rows_of(random_negatives(coded, fires))
    for feature in fires:
        own = [row for row in rows if row["feature"] == feature]
        assert len({row["sequence"] for row in own}) == len(own) <= world.config.negatives
        if feature == 1:
            assert not own  # fires on every row: there is no silent place
        elif len(world.firings(feature)) < 50:
            assert len(own) == world.config.negatives
    for row in rows:
        assert window_of(world, row) == {} == row["firings"]
        assert world.row_CT[row["sequence"], row["position"]]
        assert world.sampled_C[row["sequence"]]
        assert row["activation"] == 0


def test_hard_negatives_are_silent_rows_of_frequent_tokens(world: World, tmp_path: Path) -> None:
    coded, frequent_FK = coded_of(world, tmp_path)
    fires = np.flatnonzero((world.value_CTF > 0).any(axis=(0, 1)))
    rows = rows_of(hard_negatives(coded, fires, frequent_FK[fires]))
    for feature in fires:
        own = [row for row in rows if row["feature"] == feature]
        wanted_CT = np.isin(world.ids_CT, frequent_FK[feature][frequent_FK[feature] >= 0])
        silent_CT = wanted_CT & world.row_CT & world.sampled_C[:, None] & (world.value_CTF[:, :, feature] == 0)
        contexts = int(silent_CT.any(axis=1).sum())
        assert len(own) == len({row["sequence"] for row in own}) == min(world.config.negatives, contexts)
        for row in own:
            assert silent_CT[row["sequence"], row["position"]]
            assert row["firings"] == pytest.approx(window_of(world, row))
    assert any(row["firings"] for row in rows)


def test_negatives_are_the_same_each_time_and_for_each_part(world: World, tmp_path: Path) -> None:
    coded, frequent_FK = coded_of(world, tmp_path)
    fires = np.arange(1, world.value_CTF.shape[2])
    whole = [random_negatives(coded, fires), hard_negatives(coded, fires, frequent_FK[fires])]
    parts = [fires[:4], fires[4:]]
    for kind, expected in enumerate(whole):
        found = []
        for part in parts:
            examples = hard_negatives(coded, part, frequent_FK[part]) if kind else random_negatives(coded, part)
            found += rows_of(examples)
        assert found == rows_of(expected)


def test_merged_examples_are_in_the_order_of_the_file(world: World, tmp_path: Path) -> None:
    coded, frequent_FK = coded_of(world, tmp_path)
    features, fires = state_of(world).features, np.arange(1, world.value_CTF.shape[2])
    parts = [
        hard_negatives(coded, fires, frequent_FK[fires]),
        quantile_examples(features, 0, world.config, world.unit),
        top_examples(features, 0, world.config, world.unit),
        random_negatives(coded, fires),
    ]
    rows = rows_of(merged(parts))
    keys = [(row["feature"], row["kind"], row["group"], row["rank"]) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert sorted(map(str, rows)) == sorted(str(row) for part in parts for row in rows_of(part))
    assert {EXAMPLE_KINDS[row["kind"]] for row in rows} == {"top", "quantile", "random", "hard"}


def test_without_a_sample_there_are_no_negatives(tmp_path: Path) -> None:
    world = random_world()
    world.sampled_C[:] = False
    coded, frequent_FK = coded_of(world, tmp_path)
    assert len(random_negatives(coded, np.arange(3))) == 0
    assert len(hard_negatives(coded, np.arange(3), frequent_FK[:3])) == 0


def test_groups_are_filled_where_all_firings_are_of_nearly_the_same_strength() -> None:
    # top-k activations often lie within an octave: the reservoir's bins alone would leave whole groups empty
    config, contexts = AnalysisConfig(), 2000
    features = {name: np.zeros((30, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()}
    rng = np.random.default_rng(0)
    sequence_B = np.arange(contexts, dtype=np.uint32)
    places = BlockPlaces(sequence_B, np.full(contexts, 2, np.uint16), sequence_B.astype(np.uint64), 4)
    feature_N = rng.integers(0, 30, contexts).astype(np.int32)
    value_N = rng.uniform(8.0, 12.0, contexts).astype(np.float32)
    entries = Entries(np.arange(contexts, dtype=np.int32), feature_N, value_N)
    accumulate(features, config, entries, places, 16.0, portable=True)
    found = quantile_examples(features, 0, config, 16.0)
    for feature in range(30):
        sizes = np.bincount(found.group[found.feature == feature], minlength=config.quantiles)
        assert sizes.min() >= 2
        assert sizes.sum() >= 20
        cut = np.quantile(value_N[feature_N == feature], np.arange(1, 5) / 5)
        wanted = np.searchsorted(cut, found.activation[found.feature == feature])
        # edges come from the histogram, whose bins are a factor 2**(1/4) wide
        assert np.abs(wanted - found.group[found.feature == feature]).max() <= 1
