"""Cutting, slow shards, room on hosts, and settings that do not go together; without a cluster."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from neuronmap.engines import EngineSettings, cluster, cut, running, slowest
from neuronmap.engines.cluster import Cluster, Places
from neuronmap.errors import ConfigError, MissingDependencyError, ResourceError, WorkerLostError
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.hub import evaluating
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
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
    code = "import sys, neuronmap.engines, neuronmap.hub.analyzing; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- clusters that are not there, or do not take this host -----------------------------------------------------------------------


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra neuronmap[ray])")
def test_where_nothing_listens_is_said_at_once_and_without_lines_of_ray():
    address = f"127.0.0.1:{closed_port()}"
    code = (
        "import sys\n"
        "from neuronmap.engines import EngineSettings, running\n"
        "from neuronmap.errors import ResourceError\n"
        "from neuronmap.progress import SilentProgress\n"
        "try:\n"
        "    with running(EngineSettings('ray', sys.argv[1]), SilentProgress()): pass\n"
        "except ResourceError as error: print(error.message)"
    )  # in a process of its own: Ray reads once, when it is imported, whether tokens are asked for
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=30, check=False
    )
    assert f"The Ray cluster at {address} cannot be reached: [Errno" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nowhere.invalid:6379", "[::1]:1"])
def test_addresses_that_cannot_be(address):
    with pytest.raises(ResourceError, match="cannot be reached"):
        cluster._require_answer(address)


@pytest.mark.parametrize("address", ["auto", "local", ":6379", "host"])
def test_other_addresses_are_left_to_ray(address):
    cluster._require_answer(address)


def test_a_refused_token_is_called_so(listener, monkeypatch):
    monkeypatch.setattr(cluster, "_asked", lambda *_: cluster._REFUSED)
    with pytest.raises(
        ResourceError, match=f"{listener} refused the token of this host, or this host sent none"
    ) as said:
        cluster._require_answer(listener)
    assert "export RAY_AUTH_MODE=token" in said.value.hint
    assert "~/.ray/auth_token (or RAY_AUTH_TOKEN)" in said.value.hint
    monkeypatch.setattr(cluster, "_asked", lambda *_: 0)
    cluster._require_answer(listener)


@pytest.mark.parametrize(("code", "error"), [(0, ConfigError), (1, ResourceError)])
def test_the_hint_for_a_cluster_without_token_gives_the_commands(code, error, monkeypatch):
    monkeypatch.setattr(cluster, "_asked", lambda *_: code)
    with pytest.raises(error) as said:
        cluster._require_guarded("127.0.0.1:1")
    for command in ("ray get-auth-token --generate", "export RAY_AUTH_MODE=token", "ray stop", "ray start --head"):
        assert command in said.value.hint
    assert "docs/" not in said.value.hint


# --- what is sent ---------------------------------------------------------------------------------------------------------------


def sent(folder: Path, **options: Any) -> dict[str, Any]:
    """Options of the suites that workers would be sent."""
    (folder / "library" / "one").mkdir(parents=True, exist_ok=True)
    entry = LibraryEntry("one", folder / "library" / "one")
    works = []

    def take(work: Any, *_: Any) -> Any:
        works.append(work)
        raise WorkerLostError("Here the sending ends.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "_measured_elsewhere", take)
        with pytest.raises(WorkerLostError):
            evaluating.evaluate_suites_entry(
                SAEModelHub(folder / "library"), entry, ["core"], engine=EngineSettings("ray"), **options
            )
    (work,) = works
    return dict(work.options)


def test_paths_of_an_evaluation_are_sent_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("Some text.")
    (tmp_path / "model").mkdir()
    (tmp_path / "probes").mkdir()
    given = {"text": "notes.txt", "model": "model", "settings": SuiteSettings(probe_data=Path("probes"))}
    options = sent(tmp_path, **given)
    assert options["text"] == str(tmp_path / "notes.txt")
    assert options["model"] == str(tmp_path / "model")
    assert options["settings"] == SuiteSettings(probe_data=tmp_path / "probes")
    assert sent(tmp_path, text=Path("notes.txt"))["text"] == tmp_path / "notes.txt"
    assert sent(tmp_path, text="mix:1*notes.txt,1*sotu")["text"] == f"mix:1*{tmp_path / 'notes.txt'},1*sotu"
    named = sent(tmp_path, text="sotu", model="gpt2")
    assert (named["text"], named["model"], named["settings"]) == ("sotu", "gpt2", None)
