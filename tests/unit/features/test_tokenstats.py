"""Token statistics of sampled firings against counting one firing at a time."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from feature_states import World, random_world, state_of

from neuronmap.features.collect.layout import draw
from neuronmap.features.summary.contexts import StoredContexts
from neuronmap.features.summary.tokenstats import PRIOR_MASS, TokenStatistics, log_odds_z, token_statistics


def drawn_firings(world: World, feature: int) -> list[tuple[int, int, float]]:
    """The firings that the uniform sample keeps."""
    firings = world.firings(feature)
    return sorted(firings, key=lambda f: (int(draw(world.config.seed, feature, f[0], f[1])[0]), f))[
        : world.config.firing_sample
    ]


def statistics_of(world: World, folder: Path) -> tuple[TokenStatistics, StoredContexts]:
    state = state_of(world)
    contexts = StoredContexts.write(world.tokens, state.kept, world.vocabulary, folder)
    part = state.features
    return token_statistics(part["sample"], part["sample_count"], contexts, world.config.neighbours), contexts


@pytest.mark.parametrize(("role", "offset"), [("on", 0), ("before", -1), ("after", 1)])
def test_lists_equal_counting(tmp_path: Path, role: str, offset: int) -> None:
    world = random_world(contexts=40)
    stats, _ = statistics_of(world, tmp_path)
    length = world.ids_CT.shape[1]
    real = world.tokens.num_tokens

    def token(sequence: int, position: int) -> int | None:
        there = 0 <= position < length and sequence * length + position < real
        return int(world.ids_CT[sequence, position]) if there else None

    places = [token(int(s), int(p) + offset) for s, p in zip(*np.nonzero(world.row_CT), strict=True)]
    background = Counter(place for place in places if place is not None)
    rows = sum(background.values())
    lists = getattr(stats, role)
    for feature in range(world.value_CTF.shape[2]):
        hits = [token(s, p + offset) for s, p, _ in drawn_firings(world, feature)]
        counts = Counter(hit for hit in hits if hit is not None)
        total = sum(counts.values())
        expected = []
        for hit, count in counts.items():
            lift = (count / total) / (background[hit] / rows)
            prior = PRIOR_MASS * background[hit] / rows
            delta = math.log((count + prior) / (total + PRIOR_MASS - count - prior))
            delta -= math.log((background[hit] + prior) / (rows + PRIOR_MASS - background[hit] - prior))
            z = delta / math.sqrt(1 / (count + prior) + 1 / (background[hit] + prior))
            expected.append((-z, hit, count, count / total, lift))
        expected.sort()
        low, high = lists.offset[feature : feature + 2]
        assert high - low == min(len(expected), world.config.neighbours)
        for place, (z, hit, count, share, lift) in zip(range(low, high), expected, strict=False):
            found = [lists[name][place] for name in ("token", "count", "share", "lift", "z")]
            assert found == pytest.approx([hit, count, share, lift, -z], rel=1e-5)


def test_figures_of_the_sample_equal_counting(tmp_path: Path) -> None:
    world = random_world(contexts=40)
    stats, _ = statistics_of(world, tmp_path)
    for feature in range(world.value_CTF.shape[2]):
        firings = drawn_firings(world, feature)
        counts = Counter(int(world.ids_CT[s, p]) for s, p, _ in firings)
        assert stats.sampled_F[feature] == len(firings)
        assert stats.contexts_F[feature] == len({s for s, *_ in firings})
        assert stats.documents_F[feature] == len({int(world.document_CT[s, p]) for s, p, _ in firings})
        if not firings:
            assert stats.top_token_F[feature] == -1
            assert np.isnan(stats.entropy_F[feature])
            continue
        top, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
        assert stats.top_token_F[feature] == top
        assert stats.top_share_F[feature] == pytest.approx(most / len(firings))
        entropy = -sum(n / len(firings) * math.log2(n / len(firings)) for n in counts.values())
        assert stats.entropy_F[feature] == pytest.approx(entropy, abs=1e-12)
        frequent = [t for t, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5] if n * 10 >= most]
        assert [t for t in stats.frequent_FK[feature] if t >= 0] == frequent
        pairs = stats.pairs
        own = pairs.feature == feature
        assert dict(zip(pairs.token[own].tolist(), pairs.count[own].tolist(), strict=True)) == counts
        for hit, total in zip(pairs.token[own], pairs.total[own], strict=True):
            values = [value for s, p, value in firings if world.ids_CT[s, p] == hit]
            assert total == pytest.approx(sum(values), rel=1e-6)


def test_a_rare_token_hit_once_does_not_win() -> None:
    # 120 of 256 firings on a token of 1 % against one firing on a token that occurs twice in 500,000 rows
    usual, rare = log_odds_z([120, 1], 256, [5000, 2], 500_000)
    lifts = np.array([120 / 256 / 0.01, 1 / 256 / 4e-6])
    assert lifts[1] > 10 * lifts[0]
    assert usual > 5 * rare


def test_z_of_a_text_of_one_token_is_zero() -> None:
    assert log_odds_z(5, 5, 100, 100) == 0


def test_contexts_know_documents_and_edges(tmp_path: Path) -> None:
    world = random_world()
    _, contexts = statistics_of(world, tmp_path)
    sequence, position = np.divmod(np.arange(world.ids_CT.size), world.ids_CT.shape[1])
    np.testing.assert_array_equal(contexts.document(sequence, position), world.document_CT.ravel())
    assert contexts.document_D.tolist() == list(range(world.tokens.num_documents))
    starts = [int(np.flatnonzero(world.document_CT.ravel() == index)[0]) for index in contexts.document_D]
    assert contexts.start_D.tolist() == starts
    assert contexts.token(np.array([0]), np.array([0]), -1)[0] == -1
    assert contexts.token(np.array([3]), np.array([world.ids_CT.shape[1] - 1]), 1)[0] == -1
    np.testing.assert_array_equal(np.load(tmp_path / "tokens.npy"), world.ids_CT)
