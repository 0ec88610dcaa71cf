"""What is refused before anything is queued, by each kind; and what a job is expected to need."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from neuronmap import SAEModelHub
from neuronmap.errors import (
    AlreadyExistsError,
    ConfigError,
    CorpusNotFoundError,
    DamagedError,
    InputError,
    NotInLibraryError,
    ResourceError,
)
from neuronmap.jobs import JobQueue, get_kind, list_kinds
from neuronmap.jobs.checking import check
from neuronmap.jobs.kinds import memory


@pytest.fixture
def library(trained, home):
    """The undisturbed SAE under two names."""
    shutil.copytree(trained[0] / "library", home / "library")
    hub = SAEModelHub()
    hub.register(hub.get("undisturbed").path, name="second")
    return hub


def test_every_kind_has_documented_arguments():
    assert list_kinds() == ["train", "sweep", "analyze", "evaluate", "compare", "track", "import", "publish", "pull"]
    for name in list_kinds():
        kind = get_kind(name)
        assert kind.name == name
        assert not [field for field, about in kind.args.model_fields.items() if not about.description]
        assert kind.args.model_json_schema()["properties"]
    with pytest.raises(ConfigError, match="Did you mean train"):
        get_kind("trian")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"k": 0}, ConfigError, "TrainArgs.k = 0"),
        ({"hiden_dim": 8}, ConfigError, "no field 'hiden_dim'"),
        ({"architecture": "relu"}, ConfigError, "does not apply to architecture 'relu'"),
        ({"corpus": None}, ConfigError, "needs 'corpus'"),
        ({"corpus": "nowhere"}, CorpusNotFoundError, "nowhere"),
        ({"name": "../x"}, ConfigError, "cannot be an id"),
        ({"name": "undisturbed"}, AlreadyExistsError, "already has an SAE called 'undisturbed'"),
        ({"init_from": "nobody"}, NotInLibraryError, "no SAE 'nobody'"),
    ],
)
def test_a_training_that_would_end_at_once_is_refused_and_not_queued(library, queue, settings, change, error, says):
    with pytest.raises(error, match=says):
        queue.submit("train", {**settings, **change})
    assert queue.list() == []


@pytest.mark.parametrize(
    ("kind", "args", "error", "says"),
    [
        ("analyze", {"saes": []}, ConfigError, "saes"),
        ("analyze", {"saes": ["nobody"]}, NotInLibraryError, "nobody"),
        ("analyze", {"saes": ["second", "sec"]}, ConfigError, "named twice"),
        ("analyze", {"saes": ["second"], "settings": {"nonsense": 1}}, ConfigError, "nonsense"),
        ("evaluate", {}, ConfigError, "needs 'sae'"),
        ("evaluate", {"sae": "second", "tokens": 0}, ConfigError, "tokens = 0"),
        ("compare", {"a": "second", "b": "sec"}, ConfigError, "with itself"),
        ("compare", {"a": "second", "b": "nobody"}, NotInLibraryError, "nobody"),
        ("evaluate", {"sae": {1, 2}}, ConfigError, "plain JSON"),
        ("track", {"model": "tiny", "concepts": ["tens"]}, ConfigError, "no concept named 'tens'"),
        ("track", {"model": "tiny", "concepts": ["nowhere.yaml"]}, ConfigError, "nowhere.yaml"),
        ("track", {"model": "tiny", "settings": {"name": "x"}}, ConfigError, "no field 'name'"),
        ("track", {"model": "tiny", "settings": {"items": 1}}, ConfigError, "items = 1"),
        ("track", {"model": "tiny", "prompts": [" "]}, ConfigError, "prompt is empty"),
        ("track", {"model": "tiny", "name": "compare"}, ConfigError, "the page that compares"),
        ("track", {"model": "tiny", "name": "a/b"}, ConfigError, "holds a '/'"),
        ("track", {"model": "tiny", "text": "nowhere"}, CorpusNotFoundError, "nowhere"),
        ("track", {"model": "tiny", "saes": ["nobody", "second"]}, NotInLibraryError, "nobody"),
        ("track", {"model": "tiny", "saes": ["second"]}, InputError, "at least two"),
        ("dream", {}, ConfigError, "no kind of job 'dream'"),
    ],
)
def test_other_jobs_with_bad_arguments_are_refused(library, queue, kind, args, error, says):
    with pytest.raises(error, match=says):
        queue.submit(kind, args)
    assert queue.list() == []


def test_a_damaged_sae_is_refused(library, queue):
    (library.get("second").path / "cfg.json").write_text("{")
    with pytest.raises(DamagedError, match="second"):
        queue.submit("evaluate", {"sae": "second"})


def test_names_are_written_out_and_paths_made_absolute(library, queue, settings, text_folder, monkeypatch):
    monkeypatch.chdir(text_folder.parent)
    assert queue.submit("evaluate", {"sae": "sec", "text": text_folder.name}).args == {
        "sae": "second",
        "text": str(text_folder),
        "model": None,
    }
    trained = queue.submit("train", {**settings, "corpus": text_folder.name, "init_from": "undist"})
    assert trained.args["corpus"] == str(text_folder)
    assert trained.args["init_from"] == "undisturbed"
    assert (trained.title, trained.device) == ("training batchtopk on tiny-gpt2, residual of layer 1", "cpu")


def test_a_server_checks_a_training_without_loading_torch(settings, home):
    """In a process of its own, since this one has torch."""
    program = """
import json, sys
from neuronmap.jobs import JobQueue, Supervisor
from neuronmap.errors import NeuronMapError
from neuronmap.progress import SilentProgress
settings = json.loads(sys.argv[1])
with JobQueue.open() as queue:
    said = [queue.submit("train", settings).title]
    try:
        queue.submit("train", {**settings, "k": 1000})
    except NeuronMapError as error:
        said += [type(error).__name__, error.message]
    Supervisor(queue, progress=SilentProgress()).queue.counts()
print(json.dumps([said, "torch" in sys.modules]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, json.dumps(settings)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said, torch = json.loads(ran.stdout)
    assert said[:2] == ["training batchtopk on tiny-gpt2, residual of layer 1", "ConfigError"]
    assert "1000" in said[2]
    assert not torch


def test_memory_grows_with_the_model_and_the_features(model_folder, settings):
    small = check("train", settings).memory_bytes
    large = check("train", {**settings, "hidden_dim": 1 << 20}).memory_bytes
    assert large - small == 4 * 4 * 2 * 32 * ((1 << 20) - 64)
    weights = sum(file.stat().st_size for file in model_folder.glob("*.safetensors"))
    assert memory.model_bytes(str(model_folder)) == weights
    assert memory.model_bytes("owner/not-here") == memory.model_bytes("unknown") == 1 << 30
    assert memory.model_bytes(None) == 0


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("mysql://host/name", ConfigError),
        ("sqlite://", ConfigError),
        ("nonsense", ConfigError),
        ("postgresql://127.0.0.1:1/none?connect_timeout=2", ResourceError),
    ],
)
def test_databases_that_cannot_hold_jobs_are_refused(url, error):
    with pytest.raises(error):
        JobQueue.open(url)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "jobs.sqlite3").write_text("this is a letter, not a database; " * 100)
    with pytest.raises(DamagedError, match=r"jobs\.sqlite3"):
        JobQueue.open(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
