"""What is chosen from given speeds. No test here depends on how fast anything is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from neuronmap.models import LanguageModel, tuning
from neuronmap.models.tuned import DEFAULT_BATCH_TOKENS, machine_name, tuned_path
from neuronmap.models.tuning import tune
from neuronmap.progress import SilentProgress, Task

Speed = Callable[[Any], float]


class Counting(SilentProgress):
    """How far the bar went."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        self.total, owner = total, self

        class Bar:
            def advance(self, amount: int, **figures: str) -> None:
                owner.done += amount

        yield Bar()


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speed], None]:
    """Let settings be as fast as a function says, without running anything; four threads, of eight logical cores."""

    def set_speed(speed: Speed) -> None:
        def in_turn(_: Any, one: Any, other: Any) -> tuple[float, float, float]:
            return speed(one), speed(other), speed(other) / speed(one)

        monkeypatch.setattr(tuning._Bench, "in_turn", in_turn)
        monkeypatch.setattr(tuning._Bench, "rounding", lambda *_: 1e-5)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(tuning, "usable_cores", lambda: 8)
    return set_speed


def test_each_setting_is_kept_that_is_faster_than_the_best_before(tiny_llama: LanguageModel, speeds: Any) -> None:
    def speed(s: Any) -> float:
        return 100.0 * {8: 1.1, 2: 1.5}.get(s.threads, 1.0) * {4096: 1.2, 8192: 1.1}.get(s.batch_tokens, 1.0)

    speeds(speed)
    progress = Counting()
    tuned, trials = tune(tiny_llama, progress)
    assert (tuned.threads, tuned.batch_tokens, tuned.attention, tuned.dtype) == (2, 4096, "sdpa", "float32")
    assert (tuned.default_threads, tuned.speedup, tuned.tokens_per_second) == (4, 1.8, 180.0)
    assert (tuned.machine, tuned.model, tuned.rounding) == (machine_name(torch.device("cpu")), "tiny-llama", 0.0)
    assert [(t.setting, t.value) for t in trials if t.chosen] == [
        ("threads", "8"), ("threads", "2"), ("batch_tokens", "4096"),
    ]  # fmt: skip
    tried = {(t.setting, t.value) for t in trials}
    assert tried == {
        ("threads", "8"), ("threads", "2"), ("threads", "1"), ("batch_tokens", "1024"), ("batch_tokens", "4096"),
        ("batch_tokens", "8192"), ("attention", "eager"), ("dtype", "bfloat16"),
    }  # fmt: skip
    assert progress.done == progress.total == len(trials)
    assert {t.note for t in trials if not t.chosen} == {"slower", "within 3%: no difference"}


def test_a_gain_within_the_noise_changes_nothing(tiny_llama: LanguageModel, speeds: Any) -> None:
    speeds(lambda s: 100.0 if s.batch_tokens == DEFAULT_BATCH_TOKENS else 102.0)
    tuned, trials = tune(tiny_llama, SilentProgress())
    assert (tuned.threads, tuned.batch_tokens, tuned.speedup) == (4, DEFAULT_BATCH_TOKENS, 1.0)
    assert not any(trial.chosen for trial in trials)


def test_gains_that_do_not_hold_together_are_taken_back(tiny_llama: LanguageModel, speeds: Any) -> None:
    def in_turn(_: Any, one: Any, other: Any) -> tuple[float, float, float]:
        changed = sum(one.__dict__[name] != other.__dict__[name] for name in one.__dict__)
        gain = 1.1 if changed == 1 and (other.threads == 2 or other.batch_tokens == 4096) else 1.0
        return 100.0, 100.0 * gain, gain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning._Bench, "in_turn", in_turn)
        tuned, trials = tune(tiny_llama, SilentProgress())
    assert (tuned.threads, tuned.batch_tokens, tuned.speedup) == (4, DEFAULT_BATCH_TOKENS, 1.0)
    assert not any(trial.chosen for trial in trials)
    assert sum(trial.note == tuning.NOT_TOGETHER for trial in trials) >= 2


def test_a_gain_has_to_be_seen_twice(tiny_llama: LanguageModel, speeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def in_turn(_: Any, one: Any, other: Any) -> tuple[float, float, float]:
        calls[0] += 1
        return (100.0, 200.0, 2.0) if calls[0] == 1 else (100.0, 100.0, 1.0)

    monkeypatch.setattr(tuning._Bench, "in_turn", in_turn)
    _, trials = tune(tiny_llama, SilentProgress())
    assert not any(trial.chosen for trial in trials)
    assert trials[0].ratio == 1.0


def test_turns_are_compared_one_by_one(tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine gets slower and slower, and the ratio does not see it; a setting out of time has fewer turns."""
    bench = tuning._Bench(tiny_llama)
    one, other = bench.usual, replace(bench.usual, batch_tokens=4096)
    rates = {2048: iter([1.0, 100.0, 50.0, 10.0, 10.0, 10.0]), 4096: iter([1.0, 150.0, 75.0, 15.0, 15.0, 15.0])}

    def runner(settings: Any) -> Callable[[], float]:
        def run() -> float:
            bench._last_s = 2.0 if settings.batch_tokens == 4096 else 0.1
            return next(rates[settings.batch_tokens])

        return run

    monkeypatch.setattr(bench, "_runner", runner)
    assert bench.in_turn(one, other) == (10.0, 112.5, 1.5)


def test_half_precision_is_taken_where_it_is_faster_with_what_it_changes(
    tiny_llama: LanguageModel, speeds: Any
) -> None:
    speeds(lambda s: 300.0 if s.dtype == "bfloat16" else 100.0)
    tuned, _ = tune(tiny_llama, SilentProgress())
    assert (tuned.dtype, tuned.rounding) == ("bfloat16", 1e-5)


def test_what_does_not_run_here_is_a_line_and_no_failure(tiny_llama: LanguageModel, speeds: Any) -> None:
    def speed(s: Any) -> float:
        if s.attention == "eager":
            raise ImportError("no such kernel\nand more")
        if s.batch_tokens == 8192:
            raise MemoryError
        return 100.0

    speeds(speed)
    _, trials = tune(tiny_llama, SilentProgress())
    notes = {trial.value: trial.note for trial in trials if trial.tokens_per_second == 0.0}
    assert notes == {"eager": "does not run here: no such kernel", "8192": "does not run here: MemoryError"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement of a moment."""
    monkeypatch.setattr(tuning, "BATCHES", (64, 2048, 128))
    monkeypatch.setattr(tuning, "ROUNDS", 1)
    monkeypatch.setattr(tuning, "DEFAULT_BATCH_TOKENS", 2048)


def test_a_real_measurement_leaves_model_and_process_as_they_were(tiny_llama: LanguageModel, short: None) -> None:
    before = torch.get_num_threads(), tiny_llama.attention, tiny_llama.dtype
    tuned, trials = tune(tiny_llama, SilentProgress())
    assert (torch.get_num_threads(), tiny_llama.attention, tiny_llama.dtype) == before
    assert all(trial.tokens_per_second > 0 for trial in trials)
    assert tuned.tokens_per_second > 0
    assert not tuned_path().exists()


@pytest.mark.parametrize("calls", [0, 1, 7, 20])
def test_ctrl_c_at_any_time_leaves_model_and_process_as_they_were(
    tiny_llama: LanguageModel, short: None, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    before = torch.get_num_threads(), tiny_llama.attention, tiny_llama.dtype
    real, left = tuning.capture, [calls]

    def limited(*args: Any, **rest: Any) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*args, **rest)

    monkeypatch.setattr(tuning, "capture", limited)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_llama, SilentProgress())
    assert (torch.get_num_threads(), tiny_llama.attention, tiny_llama.dtype) == before


def test_rounding_is_the_energy_that_precision_costs(tiny_llama: LanguageModel) -> None:
    """bfloat16 keeps 8 bits: an error of about 2^-9 in each value, so 1e-6 to 1e-3 of the energy after some blocks."""
    found = tuning._Bench(tiny_llama).rounding("bfloat16")
    assert 1e-7 < found < 1e-2
    assert tuning._Bench(tiny_llama).rounding("float32") == 0.0
