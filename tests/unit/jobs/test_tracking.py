"""The kind ``track``: the command's own call in a process of its own, kept concept by concept, safe to stop and to lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import AlreadyExistsError, Interrupted, ModelNotFoundError
from neuronmap.hub.reports import list_reports, open_report, store_report
from neuronmap.hub.tracking import TrackingSettings, track_into_library
from neuronmap.jobs import Job, JobQueue, get_kind
from neuronmap.jobs.checking import check
from neuronmap.progress import SilentProgress

SMALL = {
    "items": 32,
    "permutations": 20,
    "resamples": 20,
    "random_concepts": 20,
    "control_labelings": 0,
    "similarity": False,
}


@pytest.fixture
def args(model_folder: Path) -> dict[str, Any]:
    """A tracking of a second."""
    return {
        "model": str(model_folder),
        "concepts": ["definiteness", "question"],
        "prompts": ["The keys to"],
        "preset": "quick",
        "settings": SMALL,
        "device": "cpu",
    }


class Context:
    """What an attempt works with, in this process."""

    def __init__(self, job: Job, fence: Any = None) -> None:
        self.job, self.progress, self.hub = job, SilentProgress(), None
        self.fence = fence or (lambda: None)


def attempt(queue: JobQueue, job: Job, fence: Any = None, number: int = 1) -> dict[str, Any]:
    """One attempt of a job, run here."""
    kind = get_kind("track")
    context: Any = Context(job.model_copy(update={"attempt": number}), fence)
    return kind.run(kind.args.from_dict(job.args), context)


def test_a_job_stores_what_the_command_finds(queue, supervisor, reaches, args):
    job = queue.submit("track", {**args, "name": "tiny-concepts"})
    assert job.title == "tracking definiteness and question in tiny-gpt2"
    supervisor.start()
    done = reaches(job.id, "finished")
    assert done.result == {"report": "tiny-concepts"}
    assert done.progress is not None
    kept = open_report("tiny-concepts")
    again = track_into_library(TrackingSettings(**args), keep=False, progress=SilentProgress())
    assert [one.within for one in again.concepts] == [one.within for one in kept.concepts]
    assert kept.trajectories == again.trajectories
    assert sorted(one.concept["name"] for one in kept.concepts) == ["definiteness", "question"]


def test_a_stop_keeps_the_concepts_that_were_finished(queue, args, home):
    job = queue.submit("track", args)
    fences = []

    def fence() -> None:
        fences.append(1)
        if len(fences) == 2:  # before the second concept is kept
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="it goes on after them"):
        attempt(queue, job, fence)
    kept = list((home / "cache" / "concepts").glob("*.safetensors"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    name = attempt(queue, job, number=2)["report"]
    assert len(open_report(name).concepts) == 2
    assert kept[0].stat().st_mtime_ns == before


def test_an_attempt_that_was_lost_after_storing_is_not_done_twice(queue, args):
    job = queue.submit("track", {**args, "name": "once"})
    assert attempt(queue, job) == {"report": "once"}
    assert attempt(queue, job, number=2) == {"report": "once"}
    unnamed = queue.submit("track", args)
    stored = attempt(queue, unnamed)
    assert attempt(queue, unnamed, number=2) == stored
    assert len(list_reports()) == 2


def test_a_report_of_other_settings_is_not_taken_for_its_own(queue, args):
    job = queue.submit("track", {**args, "name": "once"})
    other = track_into_library(
        TrackingSettings(**{**args, "prompts": ["Another prompt"]}), keep=False, progress=SilentProgress()
    )
    store_report(other, "once")
    with pytest.raises(AlreadyExistsError):
        attempt(queue, job, number=2)


def test_nothing_is_published_once_the_job_is_lost(queue, args, home):
    class LostError(Exception):
        pass

    def fence() -> None:
        raise LostError

    with pytest.raises(LostError):
        attempt(queue, queue.submit("track", args), fence)
    assert list_reports() == []
    assert not list((home / "cache").glob("concepts/*.safetensors"))


def test_names_are_checked_and_paths_made_absolute(queue, args, text_folder, tmp_path, monkeypatch):
    texts = {
        "positive": [f"a good {word} here" for word in "abcdefgh"],
        "negative": [f"a bad {word} here" for word in "abcdefgh"],
    }
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", **texts}))
    monkeypatch.chdir(tmp_path)
    job = queue.submit("track", {**args, "concepts": ["tense", "mine.json"], "text": str(text_folder)})
    assert job.args["concepts"] == ["tense", str(tmp_path / "mine.json")]
    assert job.title == "tracking tense and mine in tiny-gpt2"
    assert queue.submit("track", {"model": args["model"]}).title == "tracking all concepts in tiny-gpt2"
    store_report(track_into_library(TrackingSettings(**args), keep=False, progress=SilentProgress()), "taken")
    with pytest.raises(AlreadyExistsError, match="taken"):
        queue.submit("track", {**args, "name": "taken"})
    assert queue.submit("track", {**args, "name": "taken", "replace": True}).args["replace"] is True


def test_a_sample_that_is_not_installed_is_refused(queue, args, monkeypatch):
    monkeypatch.setattr("neuronmap.models.samples.SampleModel.path", lambda self: None)
    with pytest.raises(ModelNotFoundError):
        queue.submit("track", {**args, "model": "smollm2-135m"})


def test_an_untrained_copy_needs_memory_too(args, model_folder, home):
    weights = sum(file.stat().st_size for file in model_folder.glob("*.safetensors"))
    alone = check("track", args).memory_bytes
    beside = check("track", {**args, "settings": {**SMALL, "untrained": True}}).memory_bytes
    assert beside - alone == weights
    assert check("track", {**args, "other": args["model"]}).memory_bytes - alone == weights
