"""The sweep of defaults: what is tried, in which order, and what it says of a default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import defaults
from defaults_cells import DEAD, FIELDS, SETTINGS, Setting, Trial, training_fields, trials
from defaults_report import differences, draw, lines, verdict
from neuronmap import SAEConfig
from neuronmap.saes import get_architecture
from neuronmap.training.plan import default_learning_rate, make_plan
from neuronmap.training.schedules import Schedule

ROWS, TRUTH, WIDE = FIELDS
AUX = next(setting for setting in SETTINGS if setting.name == "AuxK weight")
RATE = next(setting for setting in SETTINGS if setting.name == "learning rate")
BATCH = next(setting for setting in SETTINGS if setting.name == "batch, rows")
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
NORM = next(setting for setting in SETTINGS if setting.name == "gradient norm")


def test_every_trial_comes_once_seed_by_seed_with_the_base_first() -> None:
    found = list(trials(FIELDS, (0, 1)))
    keys = [str(trial.key()) for trial in found]
    assert len(set(keys)) == len(keys)
    assert [trial.seed for trial in found] == sorted(trial.seed for trial in found)
    for field in FIELDS:
        for architecture in {trial.architecture for trial in found if trial.field == field}:
            first = next(trial for trial in found if (trial.field, trial.architecture) == (field, architecture))
            assert first.changes == {}
    assert {trial.setting for trial in found if trial.field == WIDE} == {"default", *WIDE.only}


def test_every_setting_names_its_default_and_every_trial_is_a_configuration() -> None:
    for setting in SETTINGS:
        assert setting.default in setting.values
        assert all(setting.values.values())
    for trial in trials(FIELDS, (0,)):
        config = SAEConfig(**training_fields(trial, 131_072))
        assert config.batch_rows * config.max_steps == 131_072  # type: ignore[operator]
        config.sae_options(256)


def test_what_is_called_default_is_what_the_configuration_has() -> None:
    config = SAEConfig()
    assert [str(config.for_rows(rows).batch_rows) for rows in (131_072, 500_000)] == [BATCH.default] * 2
    assert (config.warmup_fraction, config.decay_fraction, config.clip_norm) == (0.05, 0.2, "auto")
    assert (config.adam_epsilon, config.k_anneal_fraction, config.sparsity_warmup_fraction) == (1e-10, 0.0, None)
    from neuronmap.saes.options import BatchTopKOptions, JumpReLUOptions

    assert (BatchTopKOptions().aux_coefficient, JumpReLUOptions().target_weight) == (1 / 32, 5.0)
    assert NORM.default == get_architecture("batchtopk").clip_norm
    plan = make_plan(SAEConfig(architecture="batchtopk", hidden_dim=64), 131_072, 32, torch.device("cpu"), 0)
    assert f"1/{round(131_072 / plan.dead_window)}" == DEFAULTS[DEAD]


def test_the_default_given_by_its_value_is_the_base() -> None:
    """So that a base run of today and a run with this value under another default are one thing."""

    def told(architecture: str, setting: Setting, changes: dict[str, Any]) -> list[Any]:
        given = SAEConfig(**training_fields(Trial(ROWS, architecture, setting.name, setting.default, changes), 131_072))
        kind = get_architecture(architecture)
        plan = make_plan(given, 131_072, 64, torch.device("cpu"), 0)
        schedule = Schedule(given, plan.steps, plan.peak_rate, None, ROWS.features, kind.sparsity_warmup)
        rises = [(schedule.learning_rate(step), schedule.sparsity_scale(step)) for step in (0, 30, plan.steps - 9)]
        clip = kind.clip_norm if given.clip_norm == "auto" else given.clip_norm
        sae = kind(64, ROWS.features, given.sae_options(64))
        own = [getattr(sae, name, None) for name in ("_anneal", "_dead_penalty")]
        own += [getattr(sae.options, name, None) for name in ("aux_coefficient", "aux_k", "target_weight")]
        return [plan.steps, plan.dead_window, *rises, clip, given.adam_epsilon, given.k_anneal_fraction, *own]

    for setting in SETTINGS:
        assert told(setting.architecture, setting, {}) == told(
            setting.architecture, setting, setting.values[setting.default]
        ), setting.name


def test_relative_values_are_worked_out() -> None:
    found = {(t.setting, t.value): training_fields(t, 131_072) for t in trials((ROWS,), (0,))}
    assert found["learning rate", "x2"]["learning_rate"] == pytest.approx(2 * default_learning_rate(1024, 256))
    assert "learning_rate" not in found["default", "default"]
    assert (found["batch, rows", "4096"]["batch_size"], found["batch, rows", "4096"]["max_steps"]) == (32, 32)
    assert found["dead after, share of the run", "1/10"]["dead_after_tokens"] == 13_107
    assert found["first target (jumprelu)", "8 targets"]["architecture_options"] == {"target_anneal_factor": 8.0}


def trial(field: Any, changes: dict[str, Any], seed: int, value: float, l0: float = 32.0) -> dict[str, Any]:
    figures = {field.figure: value, "l0": l0}
    return {"field": field.name, "architecture": "batchtopk", "changes": changes, "seed": seed, "figures": figures}


def record(*found: dict[str, Any]) -> dict[str, Any]:
    asked = {"seeds": 2, "visits": 1, "rows": 1, "heldout_rows": 1, "synthetic_rows": 1, "measure_rows": 1}
    return {"date": "2026-11-26", "asked": asked, "trials": list(found)}


def both(field: Any, changes: dict[str, Any], value: float, l0: float = 32.0) -> list[dict[str, Any]]:
    """Two seeds, 0.002 apart: their variance is 2e-6, whatever the value."""
    return [trial(field, changes, seed, value + shift, l0) for seed, shift in ((0, -0.001), (1, 0.001))]


def values_of(setting: Setting, *names: str) -> list[dict[str, Any]]:
    return [setting.values[name] for name in names]


def test_a_difference_is_paired_and_its_noise_pooled() -> None:
    base, (none,) = {}, values_of(AUX, "0")
    (found,) = differences(record(*both(ROWS, base, 0.7), *both(ROWS, none, 0.69)), AUX, ROWS)
    assert (found.value, found.seeds) == ("0", 2)
    assert found.mean == pytest.approx(-0.01)
    assert found.noise == pytest.approx(2 * (2e-6 / (7 / 9) ** 3) ** 0.5)
    assert found.clear


def test_one_setting_whose_seeds_lie_apart_widens_its_own_interval_alone() -> None:
    (none, more) = values_of(AUX, "0", "1/8")
    apart = [trial(ROWS, none, 0, 0.8), trial(ROWS, none, 1, 0.5)]
    of_none, of_more = differences(record(*both(ROWS, {}, 0.7), *both(ROWS, more, 0.72), *apart), AUX, ROWS)
    assert of_none.noise == pytest.approx(2 * ((0.045 + 2e-6 / (7 / 9) ** 3) / 2) ** 0.5)
    assert of_more.clear
    assert of_more.noise == pytest.approx(0.0041, abs=1e-4)


def test_verdicts() -> None:
    base, (none, more) = {}, values_of(AUX, "0", "1/8")
    assert verdict(record(), AUX) == "not run"
    assert verdict(record(trial(ROWS, base, 0, 0.7), trial(ROWS, none, 0, 0.6)), AUX).startswith("one seed")
    worse = [*both(ROWS, base, 0.7), *both(ROWS, none, 0.6)]
    assert verdict(record(*worse), AUX) == "supported: every other value is worse"
    same = [*worse, *both(ROWS, more, 0.7005)]
    assert verdict(record(*same), AUX) == "supported: 0 is worse, the others make no difference that can be seen"
    better = [*worse, *both(ROWS, more, 0.72)]
    assert verdict(record(*better), AUX) == "not supported: 1/8 is better"
    mixed = [*better, *both(TRUTH, base, 0.5), *both(TRUTH, more, 0.4)]
    assert verdict(record(*mixed), AUX) == "mixed: 1/8 is better on one kind of data and worse on another"
    assert verdict(record(*both(ROWS, base, 0.7), *both(ROWS, more, 0.7005)), AUX) == "no difference that can be seen"


def test_a_setting_that_never_acted_was_not_tried() -> None:
    base, (none, more) = {}, values_of(AUX, "0", "1/8")
    idle = record(*both(ROWS, base, 0.7), *both(ROWS, none, 0.7), *both(ROWS, more, 0.7))
    assert verdict(idle, AUX).startswith("not tried: it never acted")
    assert "| AuxK weight | 0 | the same to the last digit (2) | not run |" in "\n".join(lines(idle))
    acts = record(*both(ROWS, base, 0.7), *both(ROWS, none, 0.7), *both(ROWS, more, 0.7005))
    assert verdict(acts, AUX) == "no difference that can be seen"


def test_another_l0_decides_nothing() -> None:
    base, (more,) = {}, values_of(AUX, "1/8")
    found = record(*both(ROWS, base, 0.7), *both(ROWS, more, 0.8, l0=40.0))
    assert verdict(found, AUX) == "no difference that can be seen"
    assert "+0.1000 ± 0.0041 (2) *" in "\n".join(lines(found))


def test_a_record_is_read_with_the_default_it_had() -> None:
    now, more, none = values_of(AUX, "1/32", "1/8", "0")
    runs = [*both(ROWS, {}, 0.7), *both(ROWS, more, 0.72), *both(ROWS, none, 0.6)]
    same = {**record(*runs), "defaults": {AUX.name: "1/32"}}
    assert verdict(same, AUX) == "not supported: 1/8 is better"
    assert "changed since" not in "\n".join(lines(same))
    older = {**record(*runs, *both(ROWS, now, 0.73)), "defaults": {AUX.name: "1/128"}}
    assert {one.value: round(one.mean, 4) for one in differences(older, AUX, ROWS)} == {
        "1/8": 0.02,
        "0": -0.1,
        "1/32": 0.03,
    }
    assert verdict(older, AUX) == "of 1/128, the default then: not supported: 1/32, 1/8 is better"
    text = "\n".join(lines(older))
    assert "with a default that has changed since: AuxK weight 1/128, now 1/32." in text
    assert "| AuxK weight | 1/128 | default: 0.7000 (2) | not run |" in text
    assert "| AuxK weight | 1/32 | **+0.0300** ± 0.0041 (2) | not run |" in text


def test_tables_and_plot_show_gaps() -> None:
    base, (twice,) = {}, values_of(RATE, "x2")
    made = record(*both(ROWS, base, 0.7), *both(ROWS, twice, 0.75))
    text = "\n".join(lines(made))
    assert "| learning rate | x1 | default: 0.7000 (2) | not run | not run |" in text
    assert "| learning rate | x2 | **+0.0500** ± 0.0041 (2) | not run | not run |" in text
    assert "| AuxK weight | 1/32 | not run |" in text
    from matplotlib import pyplot

    drawn = draw(made)
    assert len(drawn.axes) == len(FIELDS)
    pyplot.close(drawn)


def test_a_sweep_is_kept_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the synthetic model, tiny: the real command, twice."""
    monkeypatch.setattr(defaults, "FIELDS", (TRUTH,))
    options = [
        "defaults.py",
        "--settings",
        "gradient norm",
        "--seeds",
        "1",
        "--synthetic-rows",
        "20480",
        "--measure-rows",
        "256",
    ]
    options += ["--threads", "1", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", [*options, "--cells-budget", "0"])
    assert defaults.main() == 0
    assert not (tmp_path / "work" / "trials").exists()
    monkeypatch.setattr(sys, "argv", [*options, "--render"])
    with pytest.raises(SystemExit, match="nothing to write"):
        defaults.main()
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(sys, "argv", options)
    assert defaults.main() == 0
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "work" / "trials").glob("*.json")}
    assert len(files) == 4
    assert defaults.main() == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work" / "trials").glob("*.json")} == files
    assert "gradient norm at most 0.1, seed 0" in capsys.readouterr().err
    (made,) = (tmp_path / "results").glob("defaults-*.md")
    assert "| gradient norm | unit | one seed" in made.read_text()
