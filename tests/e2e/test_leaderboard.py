"""``neuronmap sae leaderboard`` as it is typed: what is refused becomes comparable by the command that it names."""

from __future__ import annotations

import csv
import itertools
import shlex

import pytest

from neuronmap import SAEModelHub


@pytest.fixture
def three(neuronmap, train_arguments):
    """Two SAEs measured alike, and one on fewer tokens."""
    for name, k in (("four", "4"), ("eight", "8"), ("less", "4")):
        arguments = [k if before == "-k" else one for before, one in itertools.pairwise(["", *train_arguments])]
        done = neuronmap(*arguments, "--set", "max_tokens=4000", "--no-evaluate", "--name", name)
        assert done.code == 0, done.err
        tokens = ("128", "64") if name == "less" else ("384", "128")
        assert neuronmap("sae", "evaluate", name, "--tokens", tokens[0], "--ce-tokens", tokens[1]).code == 0


def test_refused_then_made_comparable(neuronmap, three, tmp_path):
    board = neuronmap("sae", "leaderboard", "--json").document("sae leaderboard")["leaderboard"]
    assert {row["sae"] for row in board["rows"]} == {"four", "eight"}
    assert board["rows"][0]["sae"] == "eight"
    assert [row["rank"] for row in board["rows"]] in ([1, 2], [1, 1])
    (left,) = board["left_out"]
    assert left["saes"] == ["less"]
    assert {line["field"] for line in left["differences"]} == {"tokens", "behaviour_tokens"}
    shown = neuronmap("sae", "leaderboard")
    assert shown.code == 0
    assert "Left out: less" in shown.out
    assert left["commands"][0] in shown.out
    assert "[" in shown.out, "intervals"
    words = shown.out.split()
    for row in board["rows"]:
        assert row["sae"] in words
        assert row["file"].rsplit("/", 1)[-1].removesuffix(".json") in words, (
            "a name to copy is whole, in 80 columns too"
        )
    assert {"explained_", "variance"} <= set(words)
    assert "do not rank" not in neuronmap("sae", "list-models", "--sort", "l0").out
    seen = neuronmap("sae", "leaderboard", "--group", left["key"], "--json").document("sae leaderboard")
    assert [row["sae"] for row in seen["leaderboard"]["rows"]] == ["less"]

    for command in left["commands"]:
        assert neuronmap(*shlex.split(command)[1:]).code == 0
    table = tmp_path / "table.csv"
    done = neuronmap("sae", "leaderboard", "--sort", "ce_score_mean", "--out", table)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["sae"] for row in rows} == {"four", "eight", "less"}
    assert all(row["l0"] for row in rows)


def test_saes_of_other_places_are_not_ranked_nor_found_again(neuronmap, train_arguments, three):
    other = ["1" if before == "--layer" else one for before, one in itertools.pairwise(["", *train_arguments])]
    done = neuronmap(*other, "--set", "max_tokens=4000", "--set", "seed=1", "--name", "other")
    assert done.code == 0, done.err
    for asked in (["--sort=-explained_variance"], ["--where", "l0>0"]):
        assert "do not rank these SAEs" in neuronmap("sae", "list-models", *asked).out
    assert "do not rank" not in neuronmap("sae", "list-models").out
    for against, words in (("other", "different activations"), ("eight", "both trained from seed 0")):
        refused = neuronmap("sae", "evaluate", "four", "--suite", "stability", "--against", against)
        assert refused.code != 0
        assert words in " ".join(refused.err.split())
    bench = neuronmap("sae", "evaluate", "four", "--suite", "structure", "--saebench", "bench")
    assert "none of them was asked for" in " ".join(bench.err.split())
    assert "structure" not in bench.out, "before anything is measured"


def test_conditions_that_cannot_be_are_refused(neuronmap, tmp_path):
    SAEModelHub()
    assert neuronmap("sae", "leaderboard").code == 0
    assert "No SAE that fits" in neuronmap("sae", "leaderboard", "--l0", "20:40").out
    for wrong in (["--l0", "x"], ["--suite", "all"], ["--group", "ff"], ["--out", str(tmp_path / "a.html")]):
        refused = neuronmap("sae", "leaderboard", *wrong, "--json")
        assert refused.document("error")["error"] == "config", wrong
