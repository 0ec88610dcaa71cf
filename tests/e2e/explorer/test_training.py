"""What the first journey saw: a training started from the form, watched, analysed."""

from __future__ import annotations

from tests.e2e.explorer.serving import SAE, marks

pytestmark = marks


def test_an_empty_library_says_how_to_begin(seen):
    assert "No SAE yet" in seen["first page"]


def test_the_form_says_what_the_training_will_do(seen):
    assert "512 features, topk" in seen["plan"]
    assert "memory for training" in seen["plan"]


def test_the_monitor_moves_without_a_reload(seen):
    assert len(seen["steps"]) >= 3
    assert seen["steps"] == sorted(seen["steps"])
    assert seen["curves"] >= 3
    assert {"Loss", "How often features fire"} <= set(seen["plots"])
    assert seen["forming"] == 8


def test_the_sae_is_in_the_library_with_its_evaluation(seen):
    assert (seen["train"]["state"], seen["train"]["attempt"], seen["train"]["result"]["sae"]) == ("finished", 1, SAE)
    assert "loss recovered" in seen["sae page"]
    assert "Not analysed yet" in seen["sae page"]


def test_the_analysis_was_started_from_its_form(seen):
    assert (seen["analyze"]["kind"], seen["analyze"]["state"]) == ("analyze", "finished")
