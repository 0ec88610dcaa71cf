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


def test_conditions_that_cannot_be_are_refused(neuronmap, tmp_path):
    SAEModelHub()
    assert neuronmap("sae", "leaderboard").code == 0
    assert "No SAE that fits" in neuronmap("sae", "leaderboard", "--l0", "20:40").out
    for wrong in (["--l0", "x"], ["--suite", "all"], ["--group", "ff"], ["--out", str(tmp_path / "a.html")]):
        refused = neuronmap("sae", "leaderboard", *wrong, "--json")
        assert refused.document("error")["error"] == "config", wrong
