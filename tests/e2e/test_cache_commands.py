"""``neuronmap cache`` as it is typed: after a training the caches are there, and can be emptied and filled again."""

from __future__ import annotations


def test_caches_are_shown_cleaned_and_made_again(neuronmap, train_arguments, home):
    assert "empty" in neuronmap("cache", "list").out
    neuronmap(*train_arguments, "--name", "first", "--no-evaluate")
    listed = neuronmap("cache", "list", "--json").document("cache list")
    by = {entry["cache"]: entry for entry in listed["entries"]}
    assert set(by) == {"activations", "tokens"}
    assert "rows as" in by["activations"]["what"]
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["entries"]) > 0
    shown = neuronmap("cache", "list").out
    assert "activations" in shown
    assert "today" in shown

    kept = neuronmap("cache", "clean", "activations", "--delete", "--json").document("cache clean")
    assert (kept["removed"], len(kept["recent"])) == (
        [],
        len([e for e in listed["entries"] if e["cache"] == "activations"]),
    )
    said = neuronmap("cache", "clean", "activations", "--unused-for", "0")
    assert "would be removed (--delete does it)" in said.out
    done = neuronmap("cache", "clean", "activations", "--unused-for", "0", "--delete", "--json").document("cache clean")
    assert not done["dry_run"]
    assert {entry["cache"] for entry in done["removed"]} == {"activations"}
    assert {entry["cache"] for entry in neuronmap("cache", "list", "--json").document("cache list")["entries"]} == {
        "tokens"
    }
    again = neuronmap(*train_arguments, "--name", "second", "--no-evaluate")
    assert again.code == 0
    assert neuronmap("cache", "list", "activations", "--json").document("cache list")["entries"]


def test_a_cache_that_does_not_exist(neuronmap):
    refused = neuronmap("cache", "clean", "activation", "--json")
    assert refused.document("error")["error"] == "config"
    assert refused.code == 2
    assert neuronmap("cache", "clean").code == 2
    assert neuronmap("cache", "clean", "tokens", "--unused-for", "-1").code == 2
