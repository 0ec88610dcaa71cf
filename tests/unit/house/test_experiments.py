"""docs/experiments.md says of every number where it is kept, and what it takes from a committed file is what the file holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuronmap.evaluation.synthetic import GroundTruth
from neuronmap.paths import read_json


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_every_section_says_where_its_numbers_are(root: Path, page: str) -> None:
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(sections) > 5
    assert not [section.splitlines()[0] for section in sections if "**File.**" not in section]
    named = set(re.findall(r"benchmarks/[\w./-]+\w", page))
    assert not [file for file in named if not (root / file).exists()]


def test_figures_of_the_ground_truth_sheet_are_those_of_its_file(root: Path, page: str) -> None:
    record = read_json(root / "benchmarks" / "results" / "ground-truth-synthsae-2k-2026-11-26.json")
    found = {}
    for run in record["runs"]:
        rows = {row.name: row.value for row in GroundTruth.from_dict(run["truth"]).rows()}
        found[run["recipe"], run["seed"]] = f"{rows['f1_latent_mean']:.3f}"
    table = re.search(r"\| recipe \| seed 0 \| seed 1 \|\n[^\n]*\n((?:\|[^\n]*\n)+)", page)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    assert {(recipe, seed): value for recipe, *values in lines for seed, value in enumerate(values)} == found
