"""Commands with ``--engine ray`` on a cluster of two nodes, as typed: the same files as without it, also when a worker is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from neuronmap import SAEModelHub
from neuronmap.engines import EngineSettings, running
from neuronmap.errors import InputError, WorkerLostError
from neuronmap.hashing import digest_file
from neuronmap.progress import SilentProgress
from neuronmap.training import TrainingRun
from neuronmap.training.checkpoint import list_checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra neuronmap[ray])"),
]
# It is not imported here: it reads once, when it is imported, whether tokens are asked for.

STORE_MEMORY = 100 << 20
TOKEN = secrets.token_hex(32)
"""Of all clusters of this process: the client reads it once, and the nodes are made anew when tests of another file came between."""


@dataclass
class Killed:
    """What the killer did."""

    processes: list[int] = field(default_factory=list)


@dataclass
class Nodes:
    """A cluster of this test file's own."""

    cluster: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def workers(self, title: str) -> list[psutil.Process]:
        """Processes of this cluster by what Ray calls them."""
        found = []
        for raylet in [info.process for node in self.cluster.list_all_nodes() for info in node.all_processes["raylet"]]:
            for process in psutil.Process(raylet.pid).children():
                try:
                    if process.cmdline() and title in process.cmdline()[0]:
                        found.append(process)
                except psutil.NoSuchProcess:
                    continue
        return found

    @contextmanager
    def killing(self, title: str = "ray::_Actor.run", when: Callable[[], bool] = lambda: True) -> Iterator[Killed]:
        """Kill the first worker that is seen in the middle of a shard, or of something else."""
        killed, ended = Killed(), threading.Event()

        def watch() -> None:
            while not ended.is_set() and not killed.processes:
                for process in self.workers(title)[:1] if when() else ():
                    killed.processes.append(process.pid)
                    process.kill()
                time.sleep(0.02)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield killed
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="module")
def nodes(s3, tmp_path_factory) -> Iterator[Nodes]:
    """Two nodes of one CPU each, that know each other by a token, with a home of their own and credentials for S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("home-of-the-nodes")))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        import ray
        from ray.cluster_utils import Cluster

        one = {"num_cpus": 1, "object_store_memory": STORE_MEMORY, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=one)
        cluster.add_node(num_cpus=1, object_store_memory=STORE_MEMORY)
        yield Nodes(cluster)
        ray.shutdown()
        cluster.shutdown()


def files_of(folder: Path) -> dict[str, Any]:
    """Every file of a store by its digest, and what its manifest says; not when that was written, nor the times of files."""
    files = {str(file.relative_to(folder)): digest_file(file) for file in folder.rglob("*") if file.is_file()}
    manifest = json.loads((folder / "manifest.json").read_text())
    times = {"created", "manifest_digest", "digest"}
    files["manifest.json"] = {name: value for name, value in manifest.items() if name not in times}
    return {name: value for name, value in files.items() if name != "verified.json"}


def analysis(neuronmap: Callable[..., Any], *more: str) -> tuple[dict[str, Any], str]:
    """The files of an analysis of the whole text, made anew, and what was said meanwhile."""
    settings = ["--set", "block_tokens=512", "--no-map", "--replace", "--json"]
    done = neuronmap("sae", "analyze", "first", *settings, *more)
    assert done.code == 0, done.err
    return files_of(Path(done.document("sae analyze")["analyses"][0]["path"])), done.err


def test_an_analysis_on_two_nodes_is_the_one_of_this_process(analysed, neuronmap, nodes, text_folder):
    ray = ["--engine", "ray", "--ray-address", nodes.address]
    alone, _ = analysis(neuronmap)  # of stored activations
    many, said = analysis(neuronmap, *ray)
    assert "2 node(s), 2 CPUs" in said
    assert many == alone

    source = ("--text", str(text_folder), "--tokens", "20000")  # of what the model gives
    alone, _ = analysis(neuronmap, *source)
    with nodes.killing() as killed:
        after, said = analysis(neuronmap, *source, *ray)
    assert killed.processes, "no worker was seen at work"
    assert "A worker was lost" in said
    assert after == alone


# --- the pool itself ----------------------------------------------------------------------------------------------------------


@dataclass
class Chores:
    """Squares numbers, or what is shared under the name; odd things happen to the number 3 when it is first tried."""

    folder: Path
    odd: str = ""

    def open(self, progress: Any) -> Chores:
        (self.folder / f"opened-{os.getpid()}-{time.monotonic_ns()}").touch()
        return self

    def run(self, shard: Any, progress: Any) -> int:
        if not isinstance(shard, int):
            return shard.get() ** 2
        tried = self.folder / f"{shard}-{os.getpid()}"
        first = not list(self.folder.glob(f"{shard}-*"))
        tried.touch()
        if shard == 3 and first and self.odd == "slow":
            time.sleep(60)
        if self.odd == "steady":
            time.sleep(0.4)
        if shard == 3 and self.odd == "wrong":
            raise InputError("Three cannot be squared.", hint="Take another number.")
        if shard == 3 and self.odd == "deadly":
            os._exit(1)
        with progress.task("Squaring", 10, "units") as task:
            task.advance(10)
        return shard * shard


@dataclass
class Heard(SilentProgress):
    """Keeps what it is told."""

    lines: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.lines.append(message)


@contextmanager
def pool_of(nodes: Nodes) -> Iterator[tuple[Any, Heard]]:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[Chores.__module__])
    heard = Heard()
    with running(EngineSettings("ray", nodes.address), heard) as pool:
        yield pool, heard


def test_a_slow_shard_is_begun_by_another_worker_too(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("neuronmap.engines.shards.SLOW_SECONDS", 0.5)
    shown, started = [], time.monotonic()
    with pool_of(nodes) as (pool, heard):
        results = dict(pool.run(Chores(tmp_path, "slow"), range(6), advance=lambda amount, _: shown.append(amount)))
    assert results == {number: number * number for number in range(6)}
    assert time.monotonic() - started < 40
    assert [line for line in heard.lines if "Shard 4 of 6 is slow" in line]
    assert len(list(tmp_path.glob("3-*"))) == 2
    assert sum(shown) == 60


def test_a_host_that_is_lost_costs_its_shard(nodes, tmp_path):
    lost = nodes.cluster.add_node(num_cpus=1, object_store_memory=STORE_MEMORY)
    results, removed = {}, False
    with pool_of(nodes) as (pool, heard):
        for number, value in pool.run(Chores(tmp_path, "steady"), range(24)):
            results[number] = value
            if (
                not removed and len({file.name.split("-")[1] for file in tmp_path.glob("[0-9]*-*")}) == 3
            ):  # all three are at work
                nodes.cluster.remove_node(lost, allow_graceful=False)
                removed = True
    assert removed
    assert results == {number: number * number for number in range(24)}
    assert [line for line in heard.lines if "A worker was lost" in line]


def test_a_work_stays_open_from_call_to_call_and_values_are_shared(nodes, tmp_path):
    work = Chores(tmp_path, "steady")
    with pool_of(nodes) as (pool, _):
        assert dict(pool.run(work, range(8))) == {number: number * number for number in range(8)}
        opened = len(list(tmp_path.glob("opened-*")))
        assert dict(pool.run(work, [pool.share(5), pool.share(6)])) == {0: 25, 1: 36}
        assert len(list(tmp_path.glob("opened-*"))) == opened
        assert dict(pool.run(Chores(tmp_path), [3])) == {0: 9}
        assert len(list(tmp_path.glob("opened-*"))) == opened + 1


def test_what_a_worker_raises_is_raised_here(nodes, tmp_path):
    with (
        pool_of(nodes) as (pool, _),
        pytest.raises(InputError, match=r"Three cannot be squared.*process") as raised,
    ):
        dict(pool.run(Chores(tmp_path, "wrong"), range(6)))
    assert raised.value.hint == "Take another number."


def test_a_shard_that_kills_every_worker_is_given_up(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("neuronmap.engines.pool.ATTEMPTS", 2)
    with pool_of(nodes) as (pool, heard), pytest.raises(WorkerLostError, match=r"2 workers were lost.*shard 4 of 6"):
        dict(pool.run(Chores(tmp_path, "deadly"), range(6)))
    assert sum("; shard 4 of 6)" in line for line in heard.lines) == 2


def test_no_shard_is_begun_far_ahead_of_the_first_that_is_missing(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("neuronmap.engines.shards.SLOW_SECONDS", 1e9)
    last, found = [time.monotonic()], []
    with pool_of(nodes) as (pool, _):
        enough = lambda: len(found) >= 7 and time.monotonic() > last[0] + 1.5  # noqa: E731
        for number, _ in pool.run(Chores(tmp_path, "slow"), range(12), ahead=4, stopped=enough):
            found.append(number)
            last[0] = time.monotonic()
    assert sorted(found) == [0, 1, 2, 4, 5, 6, 7]  # until it was stopped


def test_a_ray_without_token_is_refused_and_one_of_its_own_has_one():
    code = (
        "from neuronmap.engines import EngineSettings, running\n"
        "from neuronmap.progress import SilentProgress\n"
        "with running(EngineSettings('ray', workers=1), SilentProgress()) as pool: print('workers', pool.workers)"
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    refused = {**unset, "RAY_AUTH_MODE": "disabled"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for env in (unset, refused)
    ]
    (out, said), (none, error) = (process.communicate(timeout=120) for process in both)
    assert "workers 1" in out, said
    assert "takes work from anybody who reaches it: it was started without a token" in error
    assert "workers" not in none


def test_a_host_without_the_token_is_refused_with_the_cause(nodes):
    code = (
        "import sys\n"
        "from neuronmap.engines import EngineSettings, running\n"
        "from neuronmap.errors import ResourceError\n"
        "from neuronmap.progress import SilentProgress\n"
        "try:\n"
        "    with running(EngineSettings('ray', sys.argv[1], 1), SilentProgress()): print('connected')\n"
        "except ResourceError as error: print(error.message)"
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for address, more in (
        (nodes.address, {}),
        (nodes.address, wrong),
        ("auto", {**wrong, "RAY_ADDRESS": nodes.address}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, address],
            env={**unset, **more}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        said = f"The Ray cluster at {nodes.address} refused the token of this host, or this host sent none.\n"
        assert (done.stdout, done.stderr) == (said, "")


# --- hosts that share nothing but a bucket --------------------------------------------------------------------------------------


def test_hosts_that_share_a_bucket_only(analysed, neuronmap, nodes, s3, tmp_path, monkeypatch):
    """An SAE goes to another home through S3; the first host's stored activations are analysed there, and by workers."""
    bucket = s3()
    alone, _ = analysis(neuronmap, "--store", bucket)
    assert neuronmap("sae", "push", "first", "--to", bucket, "--analyses").code == 0

    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "other"))
    listed = neuronmap("sae", "pull", "--from", bucket, "--json").document("sae pull")
    assert listed["there"] == ["first"]
    pulled = neuronmap("sae", "pull", "first", "--from", bucket, "--json").document("sae pull")
    copy = Path(pulled["pulled"][0]["path"])
    assert files_under(copy) == files_under(analysed / "library" / "first")
    there, said = analysis(neuronmap, "--store", bucket)  # no activations here, and no run of the model for them
    assert "Reading the stored activations" in said
    assert there == alone
    many, said = analysis(neuronmap, "--store", bucket, "--engine", "ray", "--ray-address", nodes.address)
    assert "Reading the stored activations" in said
    assert many == alone
    assert not (tmp_path / "other" / "cache" / "activations").exists()


def files_under(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): digest_file(file)
        for file in folder.rglob("*")
        if file.is_file() and file.name != "verified.json"
    }


# --- harvesting, evaluation, training -------------------------------------------------------------------------------------------


def stored(home: Path) -> dict[str, Any]:
    """Every activation store of a home, without when it was made."""
    return {folder.name: files_of(folder) for folder in (home / "cache" / "activations").iterdir() if folder.is_dir()}


def test_a_harvest_by_workers_one_of_which_is_killed_writes_what_one_process_writes(
    neuronmap, nodes, model_folder, text_folder, monkeypatch, tmp_path
):
    command = ["sae", "harvest", "--model", str(model_folder), "--text", str(text_folder), "--layer", "2", "--json"]
    command += ["--tokens", "20000", "--set", "context_length=32", "--set", "heldout_tokens=2000"]
    monkeypatch.setattr("neuronmap.activations.spread._SHARD_BYTES", 1 << 19)
    made = {}
    for name, more in (("alone", []), ("killed", ["--engine", "ray", "--ray-address", nodes.address])):
        monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / name))
        with nodes.killing() if more else nullcontext() as killed:
            done = neuronmap(*command, *more)
        assert done.code == 0, done.err
        assert [store["rows"] > 1000 for store in done.document("sae harvest")["stores"]] == [True, True]
        if killed is not None:
            assert killed.processes
            assert "A worker was lost" in done.err
        made[name] = stored(tmp_path / name)
    assert made["killed"] == made["alone"]


def test_suites_on_workers_one_of_which_is_killed_give_the_records_of_this_process(analysed, neuronmap, nodes):
    suites = ["sae", "evaluate", "first", "--suite", "core,structure", "--tokens", "8000", "--ce-tokens", "2500"]
    alone = neuronmap(*suites, "--again", "--json").document("sae evaluate")["suites"]
    ray = ["--engine", "ray", "--ray-address", nodes.address]
    with nodes.killing() as killed:
        done = neuronmap(*suites, *ray, "--again", "--json")
    assert done.code == 0, done.err
    assert killed.processes
    assert "A worker was lost" in done.err
    many = done.document("sae evaluate")["suites"]
    assert list(many) == list(alone) == ["core", "structure"]
    for name, record in alone.items():
        for changing in ("created", "seconds"):
            record.pop(changing, None)
            many[name].pop(changing, None)
        assert many[name] == record
    stored = neuronmap(*suites, *ray)
    assert "core: measured before on the same inputs" in stored.err
    refused = neuronmap("sae", "evaluate", "first", *ray)
    assert refused.code == 2
    assert "--engine ray goes with --suite" in refused.err


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Ray, about its own settings
def test_training_by_two_processes_one_of_which_is_killed(neuronmap, nodes, train_arguments, home):
    """The SAE of one process, to the rounding that torchrun has too; begun again from a checkpoint."""
    more = ["architecture=topk", "device=cpu", "num_epochs=20", "max_steps=300", "checkpoint_every_steps=5"]
    train = [*train_arguments, *(part for setting in more for part in ("--set", setting)), "--no-evaluate", "--json"]
    alone = neuronmap(*train, "--name", "alone")
    assert alone.code == 0, alone.err

    def saved() -> bool:
        return any(list_checkpoints(folder) for folder in (home / "runs").glob("*-ray-*/checkpoints"))

    with nodes.killing("TrainWorker", saved) as killed:
        many = neuronmap(*train, "--name", "many", "--engine", "ray", "--ray-address", nodes.address)
    assert many.code == 0, many.err
    assert killed.processes
    assert "2 processes, each with 64 of" in many.err
    assert re.search(r"at step \d+ of 300", many.err), many.err  # where all of them began again
    hub = SAEModelHub()
    ours, theirs = hub.load("alone").state_dict(), hub.load("many").state_dict()
    for name, weights in ours.items():
        torch.testing.assert_close(theirs[name], weights, rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Ray, about its own settings
def test_training_on_ray_is_stopped_and_goes_on_without_it(neuronmap, nodes, train_arguments, home):
    steps = 3000  # enough for the signal to arrive before the end on a busy machine
    more = ["architecture=topk", "device=cpu", "num_epochs=200", f"max_steps={steps}", "history_every_steps=1"]
    train = [*train_arguments, *(part for setting in more for part in ("--set", setting)), "--no-evaluate"]

    def stop() -> None:
        while not any(file.stat().st_size for file in (home / "runs").glob("*-ray-*/history.jsonl")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    stopped = neuronmap(*train, "--name", "many", "--engine", "ray", "--ray-address", nodes.address)
    assert stopped.code == 130, stopped.err
    assert "Stopped by Ctrl-C after step" in stopped.err
    (run,) = TrainingRun.list()
    assert run.read()["status"] == "interrupted"
    step = run.read()["step"]
    assert 0 < step < steps
    resumed = neuronmap("sae", "train", "--resume", run.folder.name, "--no-evaluate")
    assert resumed.code == 0, resumed.err
    assert f"at step {step} of {steps}" in resumed.err
    assert SAEModelHub().get("many")
