"""Ours against each peer alone: sums over places, with intervals that hold what they should."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from quality_peers import lines, summed, sums

GRID = {"widths": [4096], "l0s": [16, 64], "seeds": [0]}


def run(library: str, k: int, ev: float, **aucs: float) -> dict[str, Any]:
    variant = "default" if library == "neuronmap" else "matched"
    told = {
        "library": library,
        "architecture": "topk",
        "variant": variant,
        "features": 4096,
        "seed": 0,
        "k": k,
        "knob": None,
    }
    probes = {name: {"1": 0.5, "5": value} for name, value in aucs.items()}
    figures = {"l0": float(k), "explained_variance": ev, "auc_5": float(np.mean(list(aucs.values()))), "probes": probes}
    return {"run": told, "figures": figures, "for_l0": k}


def record(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"grid": GRID, "runs": list(runs)}


def test_a_peer_is_met_at_every_place_that_both_have() -> None:
    ours = [run("neuronmap", k, 0.8, tense=0.7, number=0.9) for k in (16, 64)]
    theirs = [run("saelens", 16, 0.75, tense=0.8, number=0.7), run("saelens", 64, 0.82, tense=0.6, number=0.9)]
    found = sums(record(*ours, *theirs), 4096, "saelens")
    assert (found["explained_variance"].ahead, found["explained_variance"].places) == (1, 2)
    assert found["explained_variance"].mean == pytest.approx(0.015)
    assert found["auc_5"].mean == pytest.approx(0.05)
    # one architecture: only the concepts are drawn anew; tense is 0.0 and number 0.1 ahead over both places
    assert (found["auc_5"].low, found["auc_5"].high) == (pytest.approx(0.0), pytest.approx(0.1))
    assert sums(record(*ours, *theirs[:1]), 4096, "saelens")["auc_5"].places == 1
    assert sums(record(*ours, *theirs), 4096, "dictionary_learning") == {}


def test_equals_have_an_interval_around_zero_and_the_better_one_above_it() -> None:
    draw = np.random.default_rng(1)
    holds = 0
    for _ in range(40):
        level = 0.03 * draw.standard_normal(11)  # what each concept has in common over all places
        clusters = [[list(level + 0.05 * draw.standard_normal(11)) for _ in range(4)] for _ in range(5)]
        one = summed(clusters)
        holds += one.low < 0 < one.high
    assert holds >= 34
    better = summed([[list(0.1 + 0.05 * draw.standard_normal(11)) for _ in range(4)] for _ in range(5)])
    assert 0 < better.low < 0.1 < better.high < 0.15


def test_the_table_says_what_was_not_run() -> None:
    ours = [run("neuronmap", k, 0.8, tense=0.7, number=0.9) for k in (16, 64)]
    text = "\n".join(lines(record(*ours, run("saelens", 16, 0.75, tense=0.7, number=0.9)), 4096))
    assert "| saelens | +0.0500 [+0.0500, +0.0500], ahead in 1 of 1 | not run |" in text
    assert "| dictionary_learning | not run | not run | not run | not run |" in text
