"""A finished training reaches the library, and an SAE of the user's goes only when they say so."""

from __future__ import annotations

import shutil

import pytest

from neuronmap import SAEModelHub, evaluation
from neuronmap.cli import demo as demo_module
from neuronmap.errors import InputError


def run_name(home):
    (folder,) = home.glob("runs/*")
    return folder.name


@pytest.mark.parametrize(("failure", "code"), [(KeyboardInterrupt, 130), (InputError("no"), 2)])
def test_a_stopped_evaluation_leaves_the_sae_in_the_library(neuronmap, train_arguments, monkeypatch, failure, code):
    def stop(*args, **kwargs):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate_sae", stop)
        stopped = neuronmap(*train_arguments, "--name", "first")
    assert stopped.code == code
    assert "neuronmap sae evaluate first" in stopped.err
    assert "ce_score_mean" not in SAEModelHub().get("first").metrics
    assert neuronmap("sae", "evaluate", "first").code == 0
    assert "ce_score_mean" in SAEModelHub().get("first").metrics


def test_resuming_a_finished_run_stores_what_is_not_in_the_library(neuronmap, train_arguments, home):
    neuronmap(*train_arguments, "--name", "first")
    before = SAEModelHub().get("first")
    refused = neuronmap("sae", "train", "--resume", run_name(home), "--json")
    assert (refused.code, refused.document("error")["error"]) == (2, "input")
    assert "'first'" in refused.document("error")["message"]

    SAEModelHub().delete("first")
    stored = neuronmap("sae", "train", "--resume", run_name(home), "--name", "other", "--json")
    assert stored.code == 0, stored.err
    sae = stored.document("sae train")["sae"]
    assert (sae["id"], sae["weights_digest"]) == ("other", before.weights_digest)
    assert sae["metrics"]["explained_variance"] == pytest.approx(before.metrics["explained_variance"], rel=1e-6)


def test_a_finished_run_is_stored_even_if_its_text_is_gone(neuronmap, train_arguments, text_folder, home, tmp_path):
    text = shutil.copytree(text_folder, tmp_path / "text")
    neuronmap(*train_arguments, "--text", text, "--name", "first")
    SAEModelHub().delete("first")
    shutil.rmtree(text)
    stored = neuronmap("sae", "train", "--resume", run_name(home))
    assert stored.code == 0, stored.err
    assert "Not evaluated" in stored.err
    assert SAEModelHub().get("first")


@pytest.mark.parametrize(("name", "code"), [("../x", 2), ("con", 2), ("taken", 6), ("taken/inner", 6), ("deep", 6)])
def test_impossible_names_are_refused_before_anything_is_loaded(neuronmap, train_arguments, home, name, code):
    neuronmap(*train_arguments, "--name", "first", "--no-evaluate")
    run, hub = run_name(home), SAEModelHub()
    hub.register(hub.get("first").path, name="taken")
    hub.register(hub.get("first").path, name="deep/inner")
    refused = neuronmap(*train_arguments, "--model", "no/such-model", "--name", name)
    assert refused.code == code, refused.err  # a model that cannot be found would be 3
    assert run_name(home) == run


def test_a_name_taken_since_is_refused_when_resuming_and_another_can_be_given(neuronmap, train_arguments, home):
    neuronmap(*train_arguments, "--name", "first", "--no-evaluate")
    run, hub = run_name(home), SAEModelHub()
    neuronmap(*train_arguments, "--name", "second", "--set", "seed=5", "--no-evaluate")
    hub.register(hub.get("second").path, name="first", replace=True)
    hub.delete("second")
    assert neuronmap("sae", "train", "--resume", run).code == 6
    assert neuronmap("sae", "train", "--resume", run, "--name", "../x").code == 2
    assert neuronmap("sae", "train", "--resume", run, "--name", "third").code == 0
    assert {entry.id for entry in hub.list()} == {"first", "third"}


@pytest.fixture
def small_demo(monkeypatch, model_folder, text_folder):
    settings = {"hidden_dim": 64, "context_length": 32, "batch_size": 4, "num_epochs": 0.5, "max_tokens": None, "k": 4}
    settings |= {"model_name": str(model_folder), "layer": 2, "corpus": str(text_folder)}
    monkeypatch.setattr(demo_module, "DEMO", {**demo_module.DEMO, **settings})


@pytest.mark.usefixtures("small_demo")
def test_the_demo_reuses_its_sae_and_says_why_it_does_not(neuronmap, monkeypatch):
    assert neuronmap("demo", "--json").code == 0
    first = SAEModelHub().get("demo").weights_digest
    assert "Reusing the demo" in neuronmap("demo").err
    assert "--again: " in neuronmap("demo", "--again").err
    monkeypatch.setitem(demo_module.DEMO, "seed", 1)
    assert "settings have changed (seed)" in neuronmap("demo").err
    assert SAEModelHub().get("demo").weights_digest != first


@pytest.mark.usefixtures("small_demo")
def test_the_demo_leaves_an_sae_of_the_users_alone(neuronmap, train_arguments):
    neuronmap(*train_arguments, "--name", "demo", "--no-evaluate")
    mine = SAEModelHub().get("demo").weights_digest
    for more in ([], ["--again"]):
        refused = neuronmap("demo", *more, "--json")
        assert (refused.code, refused.document("error")["error"]) == (6, "already_exists")
        assert "neuronmap sae delete demo" in refused.document("error")["hint"]
    assert SAEModelHub().get("demo").weights_digest == mine


def test_deleting_unasked_needs_the_whole_name(neuronmap, train_arguments):
    neuronmap(*train_arguments, "--name", "precious", "--no-evaluate")
    refused = neuronmap("sae", "delete", "prec", "--yes", "--json")
    assert refused.code == 2
    assert "precious" in refused.document("error")["message"]
    assert SAEModelHub().get("precious")
    assert neuronmap("sae", "delete", "prec", answer="y\n").code == 0
    assert SAEModelHub().list() == []
