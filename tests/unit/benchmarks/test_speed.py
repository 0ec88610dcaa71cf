"""The speed benchmark's own arithmetic: ratios, slopes, goals, extrapolation; and that a timed step is a real one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import guard
import speed
import speed_cells
from end_to_end import whole_time
from speed_cells import OURS, Cell
from speed_report import figures, goal_of, lead, markdown, slope
from speed_rows import at_width, centred_and_scaled
from speed_session import AUTOGRAD, OurTrainer, our_config, parts_of_step
from speed_worker import FROZEN_L0, Batches, NotOffered, Reference, Worker, cut_for_l0, measure


def sample(step: float, *gemm: float) -> dict[str, Any]:
    return {"before": list(gemm[:2]), "step": step, "after": list(gemm[2:])}


def small(architecture: str, start: str = "usual", variant: str = "auto", dead: float = 0.0) -> dict[str, Any]:
    k = 4 if architecture in speed_cells.WITH_K else 0
    return Cell(OURS, architecture, start, variant, 32, 256, k, 128, dead).order()  # type: ignore[arg-type]


def rows(count: int = 1024, width: int = 32) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0)) / width**0.5


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_step_is_divided_by_the_products_around_it() -> None:
    """The machine is half as fast during the second step, and the ratio does not see it."""
    found = figures([sample(2.0, 1, 1, 1, 1), sample(4.0, 2, 2, 2, 2), sample(2.2, 1, 1, 1, 1)])
    assert found.ratio == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2.0, 2.2))
    assert found.step_s == pytest.approx(2.2)
    assert found.steps == 3


def test_one_slow_product_does_not_flatter_a_step() -> None:
    assert figures([sample(3.0, 1, 9, 1, 1)]).ratio == pytest.approx(3.0)


def test_no_samples_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no samples"):
        figures([])


def test_lead_compares_ratios_not_times() -> None:
    """The peer was measured while everything took twice as long."""
    ours, peer = figures([sample(1.0, 1, 1, 1, 1)]), figures([sample(16.0, 2, 2, 2, 2)])
    assert lead(ours, peer) == pytest.approx(8.0)


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0, 1.7])
def test_slope_of_a_power_law_is_its_exponent(exponent: float) -> None:
    xs = [512.0, 1024.0, 4096.0, 8192.0]
    assert slope(xs, [3.0 * x**exponent for x in xs]) == pytest.approx(exponent)


def test_slope_needs_two_sizes() -> None:
    with pytest.raises(ValueError, match="no slope"):
        slope([4.0, 4.0], [1.0, 2.0])


def test_goals_are_those_of_the_cell() -> None:
    def goal(**changes: Any) -> float | None:
        return goal_of(asdict(Cell(**{"library": OURS, "architecture": "topk", "variant": "auto", **changes})))

    assert goal() == 1.35
    assert goal(features=16_384) == 1.1
    assert goal(variant="torch") == 1.7
    assert goal(architecture="relu", start="sparse", k=0) == 1.6
    assert goal(architecture="relu", start="dense", k=0) == 5.0
    assert goal(k=64) is None
    assert goal(dead=0.05) is None
    assert goal(library="saelens") is None


def test_every_architecture_and_size_is_in_the_full_table() -> None:
    groups = speed_cells.table(False, ("torch",))
    for width in (576, 768):
        for features in (4096, 16_384, 65_536):
            for architecture in speed_cells.ARCHITECTURES:
                found = [g for g in groups if g[0].group[0] == architecture and g[0].group[2:4] == (width, features)]
                if architecture in speed_cells.WITH_K:
                    assert sorted(g[0].k for g in found) == [16, 32, 64]
                else:
                    assert sorted(g[0].start for g in found) == ["dense", "sparse"]
    assert all(len({cell.group for cell in group}) == 1 for group in groups)


def test_the_report_says_what_was_missed_and_what_could_not_be_measured() -> None:
    def entry(cell: Cell, samples: list[dict[str, Any]], note: str = "") -> dict[str, Any]:
        return {"cell": asdict(cell), "label": cell.label, "note": note, "samples": samples, "described": {"l0": 32.0}}

    ours = Cell(OURS, "topk", "usual", "auto")
    record = {
        "date": "2030-01-01",
        "quick": False,
        "complete": True,
        "commit": "abc",
        "machine": {"cpu": "X", "cores": 2, "threads": 2, "memory_gib": 8.0, "system": "Y"},
        "versions": {"torch (ours)": "2"},
        "groups": [
            {
                "cells": [
                    entry(ours, [sample(1.4, 1, 1, 1, 1)]),
                    entry(Cell(OURS, "topk", "usual", "auto", dead=0.05), [sample(1.6, 1, 1, 1, 1)]),
                    entry(Cell("saelens", "topk"), [sample(7.0, 1, 1, 1, 1)]),
                    entry(Cell("sparsify", "topk"), [], "failed: reason"),
                ]
            }
        ],
        "growth": {},
        "tokens": [],
        "memory": [],
    }
    report = markdown(record)
    assert "**1.40** [1.40, 1.40] | 1.35: MISSED" in report
    assert "| 5.0 (goal 6: MISSED) |" in report
    assert "failed: reason" in report
    assert "+0.20 | 0.3: met" in report
    assert "STOPPED" not in report
    assert "STOPPED" in markdown({**record, "complete": False})


def test_a_kept_record_holds_every_sample() -> None:
    kept = speed.compact({"samples": [sample(1.23456789, 0.1, 0.2, 0.3, 0.4)], "note": "", "seconds": 12.0})
    assert kept == {"samples": [[0.1, 0.2, 1.2346, 0.3, 0.4]], "note": "", "seconds": 12.0}


class StubCrew:
    """Answers as workers would, and notes who is asked to step."""

    def __init__(self) -> None:
        self.stepped: list[str] = []
        self.ready: set[str] = set()
        self.most_ready = 0

    def has(self, library: str) -> bool:
        return library != "dictionary_learning"

    def forget(self, library: str) -> None:
        del library

    def on_rows(self, library: str, rows: Path, most: int | None = None) -> Any:
        del rows, most
        return StubWorker(self, library)


class StubWorker:
    """A worker of one library; sparsify refuses everything."""

    def __init__(self, crew: StubCrew, library: str) -> None:
        self.crew, self.library = crew, library

    def tell(self, do: str, **order: Any) -> dict[str, Any]:
        if do == "build":
            self.crew.ready.add(order["id"])
            self.crew.most_ready = max(self.crew.most_ready, len(self.crew.ready))
        if do == "drop":
            self.crew.ready.discard(order["id"])
        if self.library == "sparsify":
            return {"missing": "no signum"}
        if do == "run":
            self.crew.stepped.append(self.library)
            return {"samples": [sample(1.5, 1, 1, 1, 1)] * order["steps"]}
        return {}


@pytest.mark.parametrize(("features", "most_ready"), [(4096, 4), (65_536, 2)])
def test_libraries_take_turns(features: int, most_ready: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds alternate; a library that is not there is left out, one that refuses is noted; wide trainers go in pairs."""
    monkeypatch.setattr(speed, "rows_of_width", lambda *_: tmp_path)
    crew = StubCrew()
    libraries = (OURS, OURS, "saelens", "dictionary_learning", "sparsify")
    cells = [Cell(name, "topk", features=features, variant="" if i else "auto") for i, name in enumerate(libraries)]
    entries = speed.Speed(crew, tmp_path, quick=True).group(cells, parts=False)  # type: ignore[arg-type]
    assert [entry["label"] for entry in entries] == ["neuronmap auto", "neuronmap", "saelens", "sparsify"]
    assert [bool(entry["samples"]) for entry in entries] == [True, True, True, False]
    assert entries[3]["note"] == "not offered: no signum"
    assert crew.most_ready == most_ready
    assert not crew.ready
    if features == 4096:
        assert crew.stepped[-6:] == [OURS, OURS, "saelens"] * 2


# --- the worker -------------------------------------------------------------------------------------------------------


class Stub:
    """A trainer that notes the order of calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def prepare(self) -> None:
        self.calls.append("prepare")

    def step(self) -> None:
        self.calls.append("step")

    def describe(self) -> dict[str, Any]:
        return {"l0": 1.0}


def test_every_step_lies_between_products() -> None:
    stub = Stub()
    reference = Reference(rows(), 64, 128, {})
    samples = measure(stub, reference, 3)
    assert stub.calls == ["prepare", "step"] * 3
    assert all(len(s["before"]) == len(s["after"]) == 2 for s in samples)
    assert samples[1]["before"] == samples[0]["after"]


def test_a_peer_sees_every_row_once_a_pass() -> None:
    source = torch.arange(12.0).view(6, 2)
    batches = Batches(source, 2)
    seen = sorted(row for _ in range(3) for row in batches.next()[:, 0].tolist())
    assert seen == source[:, 0].tolist()


def test_the_cut_leaves_the_wanted_number_active() -> None:
    pre_BF = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    assert float((pre_BF >= cut_for_l0(pre_BF, 10.0)).sum()) / 200 == pytest.approx(10.0)


def test_what_a_library_lacks_or_breaks_is_an_answer() -> None:
    def build(cell: dict[str, Any], rows_ND: torch.Tensor) -> Stub:
        del rows_ND
        if cell["architecture"] == "none":
            raise NotOffered("no such thing")
        raise RuntimeError("broken")

    worker = Worker(build, {})
    assert worker.answer({"do": "build", "id": "1", "cell": {"architecture": "none"}}) == {"missing": "no such thing"}
    assert worker.answer({"do": "build", "id": "2", "cell": {"architecture": "x"}}) == {
        "failed": "RuntimeError: broken"
    }


# --- our step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", speed_cells.ARCHITECTURES)
def test_a_timed_step_trains(architecture: str) -> None:
    """Weights move, counters count: nothing is left out of the step to make it look fast."""
    trainer = OurTrainer(small(architecture), rows())
    try:
        sae = trainer.session.sae
        before = {name: parameter.detach().clone() for name, parameter in sae.named_parameters()}
        for _ in range(3):
            trainer.prepare()
            trainer.step()
        assert trainer.session.step == 3
        assert not torch.equal(before["W_enc"], sae.W_enc)
        assert not torch.equal(before["W_dec"], sae.W_dec)
        assert float(trainer.session.gradient_norm) > 0
        assert trainer.session.dead.since_fired_F.max() > 0 or trainer.loss.fired_F.min() > 0
    finally:
        trainer.close()


@pytest.mark.parametrize("architecture", speed_cells.WITHOUT_K)
@pytest.mark.parametrize(("start", "l0"), [("sparse", FROZEN_L0), ("dense", 128.0)])
def test_a_frozen_cell_stays_at_its_sparsity(architecture: str, start: str, l0: float) -> None:
    trainer = OurTrainer(small(architecture, start), rows())
    try:
        for _ in range(5):
            trainer.prepare()
            trainer.step()
        assert trainer.describe()["l0"] == pytest.approx(l0, rel=0.15)
    finally:
        trainer.close()


def test_auxk_runs_when_features_are_dead_and_only_then() -> None:
    for dead in (0.0, 0.05):
        trainer = OurTrainer(small("topk", dead=dead), rows())
        try:
            for _ in range(2):
                trainer.prepare()
                trainer.step()
                assert ("aux" in trainer.loss.parts) == (dead > 0)
        finally:
            trainer.close()


def test_the_path_can_be_forced() -> None:
    ran = {}
    for variant in ("torch", "dense", AUTOGRAD):
        trainer = OurTrainer(small("topk", variant=variant), rows())
        try:
            trainer.step()
            ran[variant] = trainer.describe()["ran"]
        finally:
            trainer.close()
    assert ran["torch"] == "torch"
    assert "dense" in ran["dense"]
    with pytest.raises(NotOffered, match="no path 'other'"):
        our_config(small("topk", variant="other"), 1024)


def test_parts_add_up_to_the_step() -> None:
    cell = small("topk")
    trainer = OurTrainer(cell, rows())
    try:
        trainer.step()
        found = parts_of_step(trainer, Reference(rows(), cell["batch"], cell["features"], {}).seconds, 3)["stopwatch"]
    finally:
        trainer.close()
    engine = {name: seconds for name, seconds in found.items() if name.startswith("engine: ")}
    assert set(engine) == {
        f"engine: {part}" for part in ("encode and select", "reconstruct", "weight gradients", "parameter step")
    }
    assert found["rest"] > 0
    assert sum(engine.values()) + found["rest"] == pytest.approx(found["step"])


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [16, 32, 48])
def test_rows_at_another_width_are_centred_and_of_unit_energy(width: int) -> None:
    base = centred_and_scaled(np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32) + 3.0)
    turned = at_width(base, width)
    assert turned.shape == (500, width)
    assert turned.dtype == np.float32
    assert np.abs(turned.mean(axis=0)).max() < 1e-6
    assert np.square(turned).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)


def test_more_dimensions_keep_the_distances() -> None:
    base = centred_and_scaled(np.random.default_rng(0).standard_normal((400, 32)).astype(np.float32))
    turned = at_width(base, 48)
    before = np.linalg.norm(base[:50, None] - base[None, :50], axis=2)
    after = np.linalg.norm(turned[:50, None] - turned[None, :50], axis=2)
    assert np.corrcoef(before[before > 0], after[before > 0])[0, 1] > 0.95


# --- the guard --------------------------------------------------------------------------------------------------------


def test_the_guard_gives_a_noisy_machine_three_tries() -> None:
    check = guard.Check(Cell(OURS, "topk"), 1.8)
    told: list[str] = []
    noisy = iter([5.0, 2.0, 1.3])
    assert guard.passes(check, lambda *_: next(noisy), told.append)
    assert len(told) == 3
    assert not guard.passes(check, lambda *_: 1.9, told.append)


def test_the_guard_wants_to_see_the_dense_step_fail() -> None:
    check = guard.Check(Cell(OURS, "topk"), 1.8)
    assert guard.notices(check, lambda cell, *_: 7.0 if cell.variant == AUTOGRAD else 1.2)
    assert not guard.notices(check, lambda *_: 1.2)


def test_the_guard_checks_every_architecture_with_a_goal() -> None:
    def limits(path: str | None, compiled: bool) -> dict[tuple[str, str], float]:
        found = guard.checks(path, compiled)
        return {(check.cell.architecture, check.cell.variant): check.limit for check in found}

    assert limits(None, True) == pytest.approx(
        {
            ("topk", "auto"): 1.35 * 2.0,
            ("batchtopk", "auto"): 1.35 * 2.0,
            ("matryoshka", "auto"): 1.6 * 2.0,
            ("relu", "auto"): 1.6 * 2.0,
            ("jumprelu", "auto"): 1.6 * 2.0,
            ("topk", "torch"): 1.7 * 2.0,
        }
    )
    assert limits(None, False) == pytest.approx({("topk", "auto"): 1.7 * 2.0, ("batchtopk", "auto"): 1.7 * 2.0})


# --- end to end -------------------------------------------------------------------------------------------------------


def test_a_whole_run_is_not_extrapolated() -> None:
    assert whole_time(50.0, [float(i) for i in range(10)], 10) == (50.0, False)


def test_a_stopped_run_is_extrapolated_from_its_later_half() -> None:
    """Slow first steps (loading, first buffer) are not charged again."""
    ends = [100.0, 130.0, 160.0, 162.0, 164.0]
    total, guessed = whole_time(165.0, ends, 15)
    assert guessed
    assert total == pytest.approx(165.0 + 10 * 2.0)


def test_too_few_steps_give_no_figure() -> None:
    with pytest.raises(ValueError, match="only 2 of 10"):
        whole_time(9.0, [1.0, 2.0], 10)
