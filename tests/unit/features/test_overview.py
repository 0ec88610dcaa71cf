"""Global figures against plain definitions over all rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from feature_states import World, random_world, state_of

from neuronmap.features.summary.overview import density_histogram, overview


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(contexts=48)


def figures(world: World) -> dict:
    state = state_of(world)
    return overview(state, world.ids_CT[state.sample.sequence_N, state.sample.position_N])


def test_the_overview_is_plain_json(world: World) -> None:
    found = figures(world)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_counts_and_bounds(world: World) -> None:
    found, rows = figures(world), int(world.row_CT.sum())
    counts = (world.value_CTF > 0).sum(axis=(0, 1))
    assert found["rows"] == rows
    assert found["firings"] == counts.sum()
    assert found["status"] == {
        "never": int((counts == 0).sum()),
        "rare": int(((counts > 0) & (counts < 10)).sum()),
        "alive": int(((counts >= 10) & (counts / rows <= 0.1)).sum()),
        "dense": int(((counts >= 10) & (counts / rows > 0.1)).sum()),
    }
    assert found["never_density_bound"] == pytest.approx(3.8414588 / (rows + 3.8414588))
    assert found["never_density_rule_of_three"] == pytest.approx(3 / rows)
    order = sorted(range(len(counts)), key=lambda feature: (-counts[feature], feature))
    named = [feature for feature in order if counts[feature]][:20]
    assert [entry["feature"] for entry in found["most_frequent"]] == named
    assert found["most_frequent"][0]["density"] == 1.0


def test_l0_by_row_position_and_token(world: World) -> None:
    l0, l0_CT = figures(world)["l0"], (world.value_CTF > 0).sum(axis=2)
    values = l0_CT[world.row_CT]
    assert l0["mean"] == pytest.approx(values.mean())
    assert l0["std"] == pytest.approx(values.std())
    assert l0["histogram"] == np.bincount(values).tolist()
    assert l0["overflow"] == 0
    for percent, found in l0["percentiles"].items():
        assert found == np.quantile(values, int(percent) / 100, method="inverted_cdf")
    for position, found in enumerate(l0["by_position"]):
        own = l0_CT[:, position][world.row_CT[:, position]]
        assert found == (pytest.approx(own.mean()) if len(own) else None)
    use_CT = world.row_CT & world.sampled_C[:, None]
    for entry in l0["by_token"]:
        own = l0_CT[use_CT & (world.ids_CT == entry["token"])]
        assert entry["rows"] == len(own)
        assert entry["mean"] == pytest.approx(own.mean())


def test_explained_variance_by_position(world: World) -> None:
    found = figures(world)["explained_variance"]
    use_CT = world.row_CT & world.sampled_C[:, None]
    error_CT, energy_CT = world.error_CT.astype(np.float64), world.energy_CT.astype(np.float64)
    assert found["rows"] == use_CT.sum()
    assert found["value"] == pytest.approx(1 - error_CT[use_CT].sum() / energy_CT[use_CT].sum())
    assert found["mean_from"] == "all rows"
    assert found["by_position"][0] is None
    for position in range(1, world.ids_CT.shape[1]):
        own = use_CT[:, position]
        expected = 1 - error_CT[own, position].sum() / energy_CT[own, position].sum()
        assert found["by_position"][position] == pytest.approx(expected)
        assert found["rows_by_position"][position] == own.sum()


def test_densities_on_an_edge_lie_below_it() -> None:
    found = density_histogram(np.array([0, 1, 10, 100, 101, 1000]), 1000)
    assert found["never"] == 1
    assert found["edges"] == [-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0]
    assert sum(found["counts"]) == 5
    assert found["counts"] == [1, 1, 0, 1, 1, 1]


def test_rows_beyond_the_histogram_hide_the_spread_but_not_the_mean(world: World) -> None:
    state = state_of(world)
    state.l0_histogram[-1] = state.rows
    state.l0_histogram[:-1] = 0
    found = overview(state, world.ids_CT[state.sample.sequence_N, state.sample.position_N])["l0"]
    assert found["std"] is None
    assert found["percentiles"]["50"] is None
    assert found["mean"] > 0
    assert found["histogram"] == []
