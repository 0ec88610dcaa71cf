"""Cutting, slow shards, room on hosts, and settings that do not go together; without a cluster."""

from __future__ import annotations

import sys
from itertools import chain

import pytest

from neuronmap.engines import EngineSettings, cut, running, slowest
from neuronmap.engines.cluster import Cluster, Places
from neuronmap.errors import ConfigError, MissingDependencyError
from neuronmap.progress import SilentProgress


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("todo", [[], [4], [0, 1, 2, 5, 9], list(range(7, 20))])
def test_shards_hold_every_block_once_in_order_and_about_as_many_each(todo, parts):
    shards = cut(todo, parts)
    assert list(chain(*shards)) == todo
    assert len(shards) == min(parts, len(todo))
    sizes = [len(shard) for shard in shards]
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


def test_a_shard_is_slow_beside_the_finished_ones_only():
    assert slowest({0: 1000.0}, []) is None
    assert slowest({}, [1.0]) is None
    assert slowest({0: 19.0, 1: 12.0}, [10.0, 10.0, 30.0]) is None
    assert slowest({0: 20.5, 1: 21.0}, [10.0, 10.0, 30.0]) == 1
    assert slowest({0: 4.9}, [0.1]) is None  # a second attempt costs more than that
    assert slowest({0: 5.1}, [0.1]) == 0


@pytest.mark.parametrize(
    ("hosts", "workers", "device", "expected"),
    [
        (((8, 0), (8, 0)), None, None, Places(2, 8, 0)),
        (((8, 0), (4, 0)), None, "cpu", Places(2, 4, 0)),
        (((8, 0), (4, 0)), 3, None, Places(3, 4, 0)),
        (((8, 0), (8, 0)), 4, None, Places(4, 4, 0)),
        (((2, 0), (0, 0)), 2, None, Places(2, 1, 0)),
        (((16, 4), (8, 0)), None, "auto", Places(4, 4, 1)),
        (((16, 4), (8, 2)), 3, "cuda", Places(3, 4, 1)),
        (((16, 4), (8, 0)), None, "cpu", Places(2, 8, 0)),
        (((1, 4),), None, "cuda:1", Places(4, 1, 1)),
    ],
)
def test_room_for_workers(hosts, workers, device, expected):
    assert Cluster(None, hosts).places(workers, device) == expected


@pytest.mark.parametrize(
    ("hosts", "workers", "device", "says"),
    [
        (((2, 0),), 3, None, "has 2 CPUs"),
        (((2, 1),), 2, "cuda", "has 1 GPUs"),
        (((2, 0),), None, "cuda", "No host of the Ray cluster has a GPU"),
        (((0, 0),), None, None, "offers a CPU"),
    ],
)
def test_no_room_for_workers(hosts, workers, device, says):
    with pytest.raises(ConfigError, match=says):
        Cluster(None, hosts).places(workers, device)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (EngineSettings("spark"), "allowed are local, ray"),  # type: ignore[arg-type]
        (EngineSettings("local", "auto"), "go with engine = ray"),
        (EngineSettings("local", workers=2), "go with engine = ray"),
        (EngineSettings("ray", workers=0), "at least 1"),
        (EngineSettings("ray", "ray://head:10001"), "Ray Client"),
    ],
)
def test_settings_that_do_not_go_together(settings, says):
    with pytest.raises(ConfigError, match=says), running(settings, SilentProgress()):
        pass


def test_the_local_engine_is_no_pool():
    with running(EngineSettings(), SilentProgress()) as pool:
        assert pool is None


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"neuronmap\[ray\]"),
        running(EngineSettings("ray"), SilentProgress()),
    ):
        pass


def test_nothing_of_ray_is_imported_before_it_is_asked_for():
    import subprocess

    code = "import sys, neuronmap.engines, neuronmap.hub.analyzing; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
