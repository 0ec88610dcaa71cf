"""The quality sheet: order of the cells, runs that are kept and found again, records put together, tables with gaps."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import quality
from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.errors import MismatchError
from quality_cells import (
    ARCHITECTURES,
    LIBRARIES,
    OURS,
    PEERS,
    WITH_K,
    Budget,
    Cell,
    base_variant,
    level_widths,
    of_cell,
    ordered_cells,
    settings,
    variants,
)
from quality_data import Rows, write_order
from quality_measure import measure
from quality_model import mean_aucs
from quality_plot import curve, draw_pareto
from quality_queue import MOST_RUNS, Job, Queue, best_variant, settled
from quality_record import best_of, best_place, cells_of, merged, place
from quality_report import difference, duration, markdown
from quality_train import Run, TrainingFailedError, train

WIDTHS, L0S, SEEDS = (4096, 16_384), (64, 32, 128, 16), (0, 1, 2)


def by_rule(library: str, architecture: str, features: int) -> str:
    return base_variant(library)


# --- the order of the cells ---


def test_every_cell_comes_once_and_the_cheap_and_telling_come_first() -> None:
    cells = list(ordered_cells(WIDTHS, L0S, SEEDS, by_rule))
    assert len(set(cells)) == len(cells)
    widths = [cell.features for cell in cells]
    assert widths == sorted(widths)
    narrow = [cell for cell in cells if cell.features == 4096]
    assert [cell.seed for cell in narrow] == sorted(cell.seed for cell in narrow)
    assert [(cell.library, cell.l0) for cell in narrow[:5]] == [(OURS, 64)] * 5
    assert [cell.variant for cell in narrow[5:11]] == ["matched"] * 6
    with_k = [
        cell.l0 for cell in narrow if cell.has_k and cell.seed == 0 and cell.variant == base_variant(cell.library)
    ]
    assert list(dict.fromkeys(with_k)) == list(L0S)


def test_all_of_the_grid_is_there() -> None:
    """Everybody's best and default settings at all widths, L0 and seeds, and the pilots."""
    cells = set(ordered_cells(WIDTHS, L0S, SEEDS, by_rule))
    for features in WIDTHS:
        for library in LIBRARIES:
            for architecture in ARCHITECTURES:
                for variant in {"default", base_variant(library)}:
                    grid = {Cell(library, architecture, variant, features, l0, seed) for l0 in L0S for seed in SEEDS}
                    assert grid <= cells
                pilots = {Cell(library, architecture, v, features, 64, 0) for v in variants(library, architecture)}
                assert pilots <= cells
    others = 2 * len(LIBRARIES) * len(WITH_K)  # x0.5 and x2, pilots only
    assert len(cells) == len(WIDTHS) * (5 * len(ARCHITECTURES) * len(L0S) * len(SEEDS) + others)


def test_later_cells_follow_what_the_pilots_found() -> None:
    """x2 wins for one method after its pilot was run; the other L0 of it are run then, too."""
    seen: list[Cell] = []

    def best(library: str, architecture: str, features: int) -> str:
        pilot = Cell("saelens", "topk", "x2", features, 64, 0)
        return "x2" if (library, architecture) == ("saelens", "topk") and pilot in seen else base_variant(library)

    for cell in ordered_cells((4096,), L0S, SEEDS, best):
        seen += [cell]
    assert {
        cell.l0 for cell in seen if cell.variant == "x2" and (cell.library, cell.architecture) == ("saelens", "topk")
    } == set(L0S)
    assert {cell.l0 for cell in seen if cell.variant == "x2" and cell.library == OURS} == {64}


def test_an_l0_that_was_not_asked_for_is_left_out() -> None:
    cells = list(ordered_cells((4096,), (32,), (0,), by_rule))
    assert {cell.l0 for cell in cells} == {32}
    assert {cell.variant for cell in cells} == {"default", "matched"}


# --- settings ---


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_rates_change_the_learning_rate_and_nothing_else(library: str, architecture: str) -> None:
    budget = Budget(d_in=576, d_sae=4096, k=64, steps=128, batch_rows=1024, threads=1)
    base, twice = (settings(library, architecture, variant, budget) for variant in (base_variant(library), "x2"))
    assert twice.pop("learning_rate") == pytest.approx(2 * base.pop("learning_rate"))
    assert twice == base


def test_matched_peers_get_our_rate() -> None:
    budget = Budget(d_in=576, d_sae=4096, k=64, steps=128, batch_rows=1024, threads=1)
    ours = settings(OURS, "topk", "default", budget)["learning_rate"]
    assert ours == pytest.approx(2e-4 * 2 * 8)  # the rule at a quarter of 16,384 features, at most eightfold
    assert [settings(peer, "topk", "matched", budget)["learning_rate"] for peer in PEERS] == [ours, ours]
    assert all(settings(peer, "topk", "default", budget)["learning_rate"] < ours for peer in PEERS)


def test_levels_are_those_of_neuronmap() -> None:
    from neuronmap.saes.options import MatryoshkaOptions

    assert tuple(level_widths(4096)) == MatryoshkaOptions().level_widths(4096)


# --- one order of rows for everybody ---


def test_the_peers_see_the_batches_of_our_trainer(tmp_path: Path) -> None:
    rows_ND = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))
    order = np.load(write_order(tmp_path, 3000, 7, 512, seed=3))
    with ShuffledBatches(ArrayRows(rows_ND), 512, seed=3) as batches:
        for indices in order:
            torch.testing.assert_close(next(batches), rows_ND[torch.from_numpy(indices)], rtol=0, atol=0)


# --- runs that are kept ---


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Sparse sums of 48 directions in 16 dimensions."""
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((48, 16))
    codes = generator.random((3072, 48)) * (generator.random((3072, 48)) < 0.1)
    values = (codes @ directions).astype(np.float32)
    facts = {
        name: name
        for name in ("model", "model_digest", "hook", "corpus", "context", "tokens", "mask", "rows", "held", "digest")
    }
    return Rows(tmp_path_factory.mktemp("rows"), values[:2048], values[2048:2560], values[2560:], facts)


def queue_of(rows: Rows, folder: Path, trained: list[Run], steps: int = 20) -> Queue:
    """A queue whose runs are real trainings of ours, and that notes them; a peer's fail."""
    budget = Budget(d_in=16, d_sae=64, k=4, steps=steps, batch_rows=256, threads=1)

    def execute(run: Run, at: Budget, scratch: Path) -> dict[str, Any]:
        trained.append(run)
        if run.library != OURS:
            raise TrainingFailedError(f"{run.label} failed")
        found = train(run, at, rows, folder, scratch, None)
        with torch.inference_mode():
            return {"figures": measure(found.sae, torch.from_numpy(rows.heldout)), **found.facts}

    return Queue(Job(budget, rows, {"ce_tokens": 0}, "here", execute), folder, lambda message: None)


CELLS = (Cell(OURS, "topk", "default", 64, 4, 0), Cell(OURS, "topk", "default", 64, 8, 0))


def test_a_queue_goes_on_where_it_stopped(rows: Rows, tmp_path: Path) -> None:
    trained: list[Run] = []
    assert queue_of(rows, tmp_path, trained).work(CELLS, minutes=0) == 0
    assert queue_of(rows, tmp_path, trained).work(CELLS[:1], minutes=None) == 1
    again = queue_of(rows, tmp_path, trained)
    assert again.work(CELLS, minutes=None) == 1
    assert [run.k for run in trained] == [4, 8]
    at = settled(CELLS[0], again.runs)
    assert at is not None
    assert at.l0[0] == pytest.approx(4, abs=0.1)
    assert 0 < at.explained_variance < 1
    assert not list((tmp_path / "scratch").iterdir())


def test_other_inputs_are_other_runs(rows: Rows, tmp_path: Path) -> None:
    trained: list[Run] = []
    queue_of(rows, tmp_path, trained).work(CELLS[:1], None)
    assert queue_of(rows, tmp_path, trained, steps=21).work(CELLS[:1], None) == 1
    other = replace(rows, facts={**rows.facts, "digest": "other bits"})
    assert queue_of(other, tmp_path, trained).runs == []


def test_a_search_stops_after_its_tries(rows: Rows, tmp_path: Path) -> None:
    trained: list[Run] = []
    queue = queue_of(rows, tmp_path, trained)
    cell = Cell(OURS, "relu", "default", 64, 6, 0)
    assert 1 <= queue.work([cell], None) <= MOST_RUNS
    assert settled(cell, queue.runs) is not None
    assert len({run.knob for run in trained}) == len(trained)


def test_a_run_that_fails_does_not_stop_the_others(rows: Rows, tmp_path: Path) -> None:
    trained: list[Run] = []
    queue = queue_of(rows, tmp_path, trained)
    assert queue.work([Cell("saelens", "topk", "matched", 64, 4, 0), CELLS[0]], None) == 1
    assert [run.library for run in trained] == ["saelens", OURS]
    assert list(queue.failed.values()) == ["saelens/topk/matched F 64 k 4 seed 0 failed"]


def test_times_are_estimated_from_runs_like_it(rows: Rows, tmp_path: Path) -> None:
    queue = queue_of(rows, tmp_path, [])
    assert queue.estimate(CELLS[0]) is None
    queue.work(CELLS[:1], None)
    assert queue.estimate(CELLS[0]) == 0.0
    seconds = queue.runs[0]["seconds"]
    assert queue.estimate(CELLS[1]) == pytest.approx(seconds)
    assert queue.estimate(replace(CELLS[1], features=256)) == pytest.approx(4 * seconds)
    assert queue.estimate(Cell(OURS, "relu", "default", 64, 4, 0)) == pytest.approx(2 * seconds)
    assert queue.estimate(Cell("saelens", "topk", "default", 64, 4, 0)) is None


def options(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.delenv("NEURONMAP_PEERS_PYTHON", raising=False)
    monkeypatch.setattr(sys, "argv", ["quality.py", *words])
    return quality.arguments()


def test_a_dry_run_lists_what_is_left(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = queue_of(rows, tmp_path, [])
    queue.work(CELLS[:1], None)
    given = options(
        monkeypatch, "--dry-run", "--widths", "64", "--l0", "4", "8", "--seeds", "1", "--only", "neuronmap/topk/default"
    )
    quality.list_cells(given, queue)
    listed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in listed[:-1]] == [CELLS[1].label]
    assert listed[-1].startswith("in all ")
    given = options(monkeypatch, "--dry-run", "--widths", "64", "--l0", "4", "--seeds", "1")
    quality.list_cells(given, queue)
    assert "cells of which nothing is known yet are not counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "100"), "--batch must be a multiple of 128"),
        (("--visits", "1024", "--batch", "1024"), "at least 20 are needed"),
        (("--l0", "4096"), "must be below --widths"),
        ((), "--peers-python"),
        (("--peers-python", "/nowhere/python"), "is not a program"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(monkeypatch, *words)
    assert said in capsys.readouterr().err
    assert options(monkeypatch, "--only", "neuronmap/*").only == ["neuronmap/*"]


def test_a_budget_is_that_of_the_cell() -> None:
    at = of_cell(Budget(d_in=16, d_sae=1, k=1, steps=20, batch_rows=256, threads=1), CELLS[1])
    assert (at.d_sae, at.k, at.visits) == (64, 8, 5120)


# --- records ---


def finished(
    library: str,
    variant: str,
    l0: int,
    seed: int,
    ev: float,
    architecture: str = "topk",
    machine: str = "a",
    **more: Any,
) -> dict[str, Any]:
    """A run as a queue keeps it."""
    figures = {
        "l0": float(l0),
        "explained_variance": ev,
        "ce_recovered_mean": ev + 0.1,
        "auc_5": 0.9,
        "fraction_alive": 0.75,
    }
    has_k = architecture in WITH_K
    return {
        "run": {
            "library": library, "architecture": architecture, "variant": variant, "features": 4096, "seed": seed,
            "k": l0 if has_k else None, "knob": None if has_k else 1.0,
        },
        "settings": {"learning_rate": 1e-3},
        "key": f"{library} {architecture} {variant} {l0} {seed}",
        "figures": {**figures, **more.pop("figures", {})},
        "machine": machine,
        "versions": {"torch": "2"},
        "seconds": 10.0,
        "for_l0": l0,
        "finished": "2026-11-26T12:00:00+00:00",
        **more,
    }  # fmt: skip


def record(*runs: dict[str, Any], machine: str = "a", **changes: Any) -> dict[str, Any]:
    reference = {
        "scored_tokens": 2032,
        "contexts": 16,
        "loss": {"clean": 3.5, "zero": 12.0, "mean": 8.0},
        "dense_auc_mean": 0.97,
    }
    facts = {
        name: name
        for name in ("model", "model_digest", "hook", "corpus", "context", "tokens", "mask", "rows", "held", "layer")
    }
    return {
        "benchmark": "quality-sheet",
        "date": "2026-11-26",
        "grid": {"widths": [4096], "l0s": [64, 32], "seeds": [0, 1, 2]},
        "budget": {"steps": 128, "batch_rows": 1024},
        "data": {**facts, "parts": {"train": 131072, "heldout": 8192}},
        "protocol": {"ce_tokens": 2048, "items": 320},
        "machines": {machine: {"system": "Linux", "device": "cpu", "reference": reference}},
        "runs": list(runs),
        **changes,
    }


def test_records_of_two_machines_are_one_with_both_named() -> None:
    old = finished(OURS, "default", 64, 0, 0.5)
    new = finished(OURS, "default", 64, 0, 0.6, machine="b", finished="2026-11-27T08:00:00+00:00")
    other = finished("saelens", "matched", 64, 0, 0.4, machine="b")
    grid = {"widths": [4096, 16_384], "l0s": [64], "seeds": [0]}
    both = merged([record(old), record(new, other, machine="b", date="2026-11-27", grid=grid)])
    assert set(both["machines"]) == {"a", "b"}
    assert [(run["key"], run["machine"]) for run in both["runs"]] == [(other["key"], "b"), (new["key"], "b")]
    assert both["grid"] == {"widths": [4096, 16_384], "l0s": [64, 32], "seeds": [0, 1, 2]}
    assert both["date"] == "2026-11-27"
    assert place(both, OURS, "topk", "default", 4096, 64).values["explained_variance"] == [0.6]


def test_records_that_cannot_stand_side_by_side_are_refused() -> None:
    longer = record(budget={"steps": 256, "batch_rows": 1024})
    longer["data"]["model_digest"] = "another model"
    with pytest.raises(MismatchError, match=r"budget, data\.model_digest"):
        merged([record(), longer])


def test_a_place_holds_its_seeds_with_their_range() -> None:
    found = place(
        record(*(finished(OURS, "default", 64, seed, ev) for seed, ev in ((0, 0.5), (2, 0.7)))),
        OURS,
        "topk",
        "default",
        4096,
        64,
    )
    assert (found.seeds, found.wanted, found.fair) == ((0, 2), 3, True)
    assert found.mean("explained_variance") == pytest.approx(0.6)
    assert found.span("explained_variance") == (0.5, 0.7)
    assert found.mean("auc_1") is None


def test_the_best_settings_are_those_of_the_pilots() -> None:
    runs = [
        finished("saelens", "default", 64, 0, 0.3),
        finished("saelens", "matched", 64, 0, 0.5),
        finished("saelens", "x2", 64, 0, 0.6),
        finished("saelens", "x0.5", 32, 0, 0.9),  # not a pilot
        finished("saelens", "default", 64, 1, 0.9),  # nor this
    ]
    assert best_variant("saelens", "topk", 4096, runs) == "x2"
    assert best_variant("dictionary_learning", "topk", 4096, runs) == "matched"
    assert best_of(record(*runs), "saelens", "topk", 4096) == "x2"
    assert best_place(record(*runs), "saelens", "topk", 4096, 128).empty
    assert best_place(record(*runs), "saelens", "topk", 4096, 32).variant == "x0.5", "the only ones that were run there"
    runs.append(finished("saelens", "x2", 32, 0, 0.7))
    assert best_place(record(*runs), "saelens", "topk", 4096, 32).variant == "x0.5", (
        "better there, whatever the pilots say"
    )


def test_an_architecture_without_k_lies_between_its_runs() -> None:
    runs = [finished(OURS, "default", l0, 0, ev, "relu") for l0, ev in ((16, 0.5), (64, 0.7))]
    at = settled(Cell(OURS, "relu", "default", 4096, 32, 0), runs)
    assert at is not None
    assert at.how == "interpolated"
    assert at.explained_variance == pytest.approx(0.6)
    assert at.figures["ce_recovered_mean"] == pytest.approx(0.7)
    beyond = settled(Cell(OURS, "relu", "default", 4096, 72, 0), runs)
    assert beyond is not None
    assert beyond.how == "nearest"
    assert settled(Cell(OURS, "relu", "default", 4096, 128, 0), runs) is None  # 64 says nothing about it


def test_one_undefined_probe_leaves_the_mean_undefined() -> None:
    assert mean_aucs({"a": {"1": 0.6, "5": 0.8}, "b": {"1": 0.8, "5": None}}, (1, 5)) == {
        "auc_1": pytest.approx(0.7),
        "auc_5": None,
    }


# --- the sheet ---


def test_a_sheet_with_gaps_says_so() -> None:
    runs = [finished(OURS, "default", 64, seed, ev) for seed, ev in ((0, 0.70), (1, 0.72))]
    runs += [finished("saelens", "matched", 64, 0, 0.65)]
    runs += [finished(OURS, "default", 64, 0, 0.5, "relu", figures={"l0": 70.0})]
    made = record(*runs)
    text = markdown(made)
    done, wanted = cells_of(made)
    # the three of topk, and relu at L0 64, near which its one run lies
    assert (done, f"**{done} of {wanted} cells are finished**" in text) == (4, True)
    assert "| 64 | neuronmap | best and default: default | 2 | 64.0 [64.0, 64.0] | 0.7100 [0.7000, 0.7200] " in text
    assert "| 0.250 [0.250, 0.250] |" in text  # 1 - 0.75 alive
    assert "| 32 | dictionary_learning | best: matched | 0 | not run |" in text
    assert "| topk | 64 | +0.0600 (saelens, 2 / 1) | +0.0600 (saelens, 2 / 1) | +0.000 (saelens, 2 / 1) |" in text
    assert "| topk | 32 | not run | not run | not run |" in text
    assert "| 1 | 70.0 * | 0.5000 |" in text
    assert "| topk | saelens | not run | **0.6500** at 0.001 | not run | not run |" in text


def test_a_place_between_two_runs_names_both() -> None:
    runs = [finished(OURS, "default", 64, 0, ev, "relu", figures={"l0": l0}) for l0, ev in ((16.0, 0.5), (64.0, 0.7))]
    assert "| 32 | neuronmap | best and default: default | 1 | 16.0 and 64.0 | 0.6000 |" in markdown(record(*runs))


def test_a_width_without_runs_is_one_line() -> None:
    made = record(finished(OURS, "default", 64, 0, 0.7))
    made["grid"]["widths"] = [4096, 16_384]
    assert "## 16,384 features\n\nNot run.\n" in markdown(made)


def test_a_difference_is_to_the_best_peer_of_that_figure() -> None:
    made = record(
        finished(OURS, "default", 64, 0, 0.7),
        finished("saelens", "matched", 64, 0, 0.6, figures={"auc_5": 0.95}),
        finished("dictionary_learning", "matched", 64, 0, 0.65),
    )
    ours = best_place(made, OURS, "topk", 4096, 64)
    peers = [best_place(made, peer, "topk", 4096, 64) for peer in PEERS]
    assert difference(ours, peers, "explained_variance", 3) == "+0.050 (dictionary_learning, 1 / 1)"
    assert difference(ours, peers, "auc_5", 2) == "-0.05 (saelens, 1 / 1)"
    assert difference(ours, [], "auc_5", 2) == "not run"


def test_plots_have_what_there_is() -> None:
    runs = [finished(OURS, "default", 64, seed, ev) for seed, ev in ((0, 0.7), (1, 0.72))]
    made = record(*runs, finished(OURS, "default", 32, 0, 0.6))
    places = [place(made, OURS, "topk", "default", 4096, l0) for l0 in (64, 32, 16)]
    points = curve(places, "explained_variance")
    assert points == [(32.0, 0.6, 0.6, 0.6), (64.0, statistics.fmean([0.7, 0.72]), 0.7, 0.72)]
    from matplotlib import pyplot

    drawn = draw_pareto(made, 4096)
    lines = [line for axis in drawn.axes for line in axis.get_lines() if len(line.get_xdata())]
    assert len(lines) == 3  # one method in three rows
    pyplot.close(drawn)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (40, 720, 7500)] == ["40 s", "12 min", "2 h 05 min"]
