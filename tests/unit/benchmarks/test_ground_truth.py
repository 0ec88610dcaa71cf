"""The benchmark on a known truth: an L0 sweep writes a record, a table and a plot, and the report takes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import ground_truth
import report
from ground_truth_plot import apart, curves
from neuronmap.paths import read_json

SMALL = [
    "ground_truth.py", "--l0-sweep", "--preset", "tiny", "--recipes", "topk", "batchtopk", "--l0", "0.7", "1.5", "--rows", "4096",
    "--measure-rows", "1024", "--batch", "128", "--probes", "4", "--probe-rows", "512", "--bootstrap", "20", "--threads", "1",
]  # fmt: skip


def test_an_l0_sweep_is_written_drawn_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", [*SMALL, "--work", str(tmp_path / "work"), "--results", str(results)])
    assert ground_truth.main() == 0
    (file,) = results.glob("l0-sweep-tiny-*.json")
    record = read_json(file)
    assert record["latents"] == 16, "a quarter of the truths"
    found = curves(record, "f1_latent_mean")
    assert list(found) == ["topk", "batchtopk"]
    for points in found.values():
        assert [point.seeds for point in points] == [2, 2]
        assert points[0].l0 < points[1].l0
        assert all(point.low <= point.mean <= point.high for point in points)
    assert [round(point.l0) for point in found["topk"]] == [2, 5]
    assert file.with_suffix(".svg").read_text().startswith("<?xml")
    assert f"({file.stem}.svg)" in file.with_suffix(".md").read_text()

    monkeypatch.setattr(report, "RESULTS", results)
    page = report.page(tmp_path / "plots")
    assert "### tiny, L0 swept" in page
    assert page.count("| topk | ") == page.count("| batchtopk | ") == 2
    assert (tmp_path / "plots" / "l0-sweep-tiny.svg").is_file()


def test_a_penalty_is_sought_for_each_l0_and_all_seeds_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    at = SMALL.index("topk")
    argv = [
        *SMALL[:at],
        "relu",
        *SMALL[at + 2 :],
        "--rows",
        "20480",
        "--work",
        str(tmp_path / "work"),
        "--results",
        str(results),
    ]
    monkeypatch.setattr(sys, "argv", argv)
    assert ground_truth.main() == 0
    record = read_json(next(results.glob("*.json")))
    assert [run["seed"] for run in record["runs"]] == [0, 1, 0, 1]
    for first, second, share in zip(record["runs"][::2], record["runs"][1::2], (0.7, 1.5), strict=True):
        assert first["training"]["sparsity_penalty"] == second["training"]["sparsity_penalty"]
        assert first["truth"]["l0"]["value"] == pytest.approx(share * record["facts"]["l0"], rel=0.06)


@pytest.mark.parametrize(
    ("tried", "penalty"),
    [
        ({}, ground_truth.FIRST_PENALTY),
        ({0.1: 8.3}, None),  # near enough
        ({0.1: 32.0, 0.4: 2.0}, 0.2),  # far around it: in the middle of the logarithms
        ({0.1: 10.0, 0.4: 6.4}, 0.2),  # near around it, where one who interpolates figures would stop
        ({0.1: 10.0, 0.101: 6.4}, None),  # nothing to three places lies between
    ],
)
def test_the_next_penalty(tried: dict[float, float], penalty: float | None) -> None:
    assert ground_truth.next_penalty(tried, 8.0) == (None if penalty is None else pytest.approx(penalty, rel=0.01))


def test_marks_of_an_axis_do_not_touch() -> None:
    assert apart([22, 8, 4, 4, 15, 16, 23, 11]) == [4, 8, 11, 15, 22]


def test_what_is_asked_for_goes_before_the_defaults_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ground_truth.py", "--l0-sweep", "--seeds", "5"])
    given = ground_truth.arguments()
    assert (given.seeds, given.l0, given.rows) == (5, ground_truth.SWEEP["l0"], 500_000)
    monkeypatch.setattr(sys, "argv", ["ground_truth.py"])
    assert ground_truth.arguments().rows == 4_000_000
