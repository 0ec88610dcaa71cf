"""``neuronmap doctor --tune``: measures, keeps, shows; nothing is lost when it cannot. Speeds are given, not measured."""

from __future__ import annotations

import pytest
import torch

from neuronmap.models import load_model, tuning
from neuronmap.models.samples import SampleModel
from neuronmap.models.tuned import tuned_for, tuned_path
from neuronmap.progress import SilentProgress

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the settings looked at here are those of a CPU")


@pytest.fixture
def speeds(monkeypatch):
    """4,096 tokens a pass are twice as fast as anything else, whatever the machine."""

    def in_turn(self, one, other):
        old, new = (200.0 if settings.batch_tokens == 4096 else 100.0 for settings in (one, other))
        return old, new, new / old

    monkeypatch.setattr(tuning._Bench, "in_turn", in_turn)


def test_settings_are_measured_kept_and_used(neuronmap, model_folder, home, speeds):
    assert "not measured: neuronmap doctor --tune" in neuronmap("doctor").out
    made = neuronmap("doctor", "--tune", model_folder)
    assert made.code == 0, made.err
    assert "4,096 tokens a pass" in made.out
    assert "2.00 times as fast" in made.out
    assert "Changed: batch_tokens 2048 -> 4096." in made.out
    assert "chosen" in made.out
    assert str(home / "tuned.json") in made.out
    assert tuned_for(CPU).batch_tokens == 4096
    shown = neuronmap("doctor")
    assert "4,096 tokens a pass" in shown.out
    settings = neuronmap("doctor", "--json").document("doctor")["measured"]
    assert settings["settings"]["batch_tokens"] == 4096


def test_the_document_holds_every_trial_and_what_changed(neuronmap, model_folder, speeds):
    document = neuronmap("doctor", "--tune", model_folder, "--json").document("doctor --tune")
    assert document["settings"]["batch_tokens"] == 4096
    assert document["changes"] == ["batch_tokens 2048 -> 4096"]
    assert {trial["setting"] for trial in document["trials"]} >= {"batch_tokens", "attention", "dtype"}
    assert [trial["value"] for trial in document["trials"] if trial["chosen"]] == ["4096"]
    again = neuronmap("doctor", "--tune", model_folder, "--json").document("doctor --tune")
    assert again["changes"] == []


def test_measured_settings_do_not_colour_the_next_measurement(neuronmap, model_folder, speeds, monkeypatch):
    """Measuring again starts from the usual settings, not from those kept."""
    neuronmap("doctor", "--tune", model_folder)
    record = tuned_path().read_text()
    tuned_path().write_text(record.replace('"sdpa"', '"eager"').replace('"float32"', '"bfloat16"'))
    assert load_model(model_folder, progress=SilentProgress()).dtype == torch.bfloat16
    document = neuronmap("doctor", "--tune", model_folder, "--json").document("doctor --tune")
    assert {trial["setting"]: trial["value"] for trial in document["trials"]}["dtype"] == "bfloat16"
    assert document["changes"] == ["attention eager -> sdpa", "dtype bfloat16 -> float32"]


def test_ctrl_c_leaves_the_settings_as_they_were(neuronmap, model_folder, speeds, monkeypatch):
    neuronmap("doctor", "--tune", model_folder)
    before = tuned_path().read_bytes()

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning._Bench, "in_turn", stop)
    stopped = neuronmap("doctor", "--tune", model_folder, "--json")
    assert stopped.code == 130
    assert "as they were" in stopped.document("error")["message"]
    assert tuned_path().read_bytes() == before


def test_settings_of_another_machine_and_damaged_ones_are_shown(neuronmap, model_folder, speeds):
    neuronmap("doctor", "--tune", model_folder)
    here = tuned_for(CPU).machine
    tuned_path().write_text(tuned_path().read_text().replace(here, "another processor"))
    shown = neuronmap("doctor", "--json").document("doctor")
    assert "another machine or torch (another processor): ignored" in shown["measured"]["state"]
    assert shown["measured"]["settings"] is None
    tuned_path().write_text("{")
    damaged = neuronmap("doctor", "--json")
    assert damaged.code == 0
    assert damaged.document("doctor")["measured"]["state"] == "cannot be read"
    assert any("tuned.json" in problem for problem in damaged.document("doctor")["problems"])
    refused = neuronmap("models", "hooks", model_folder, "--json")
    assert (refused.code, refused.document("error")["hint"].count("doctor --tune")) == (5, 1)
    assert neuronmap("doctor", "--tune", model_folder).code == 0
    assert tuned_for(CPU).batch_tokens == 4096


def test_a_variable_that_sets_the_threads_is_named(neuronmap, model_folder, speeds, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS is set" in neuronmap("doctor", "--tune", model_folder).out
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "OMP_NUM_THREADS is set" not in neuronmap("doctor", "--tune", model_folder).out


def test_what_cannot_be_measured_with_says_what_to_do(neuronmap, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(SampleModel, "path", lambda self: None)
    missing = neuronmap("doctor", "--tune", "--json")
    assert missing.code == 3
    assert "not installed" in missing.document("error")["message"]
    assert "pip install" in missing.document("error")["hint"]
    assert neuronmap("doctor", "--tune", tmp_path / "nothing").code == 3
    refused = neuronmap("doctor", model_folder, "--json")
    assert (refused.code, "--tune" in refused.document("error")["hint"]) == (2, True)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "file" / "home"))
    assert neuronmap("doctor", "--tune", model_folder).code == 4


def test_doctor_says_what_becomes_of_freed_memory(neuronmap):
    assert "as the system sets it" in neuronmap("doctor", "--json").document("doctor")["memory"]
