"""Measured settings: kept, bound to one machine, used where nothing else was asked for, refused when damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronmap.errors import DamagedError
from neuronmap.models import LanguageModel, load_model
from neuronmap.models.placement import choose_dtype
from neuronmap.models.tuned import (
    DEFAULT_BATCH_TOKENS,
    THREAD_VARIABLES,
    Tuned,
    batch_tokens_for,
    machine_name,
    tuned_for,
    tuned_path,
)
from neuronmap.progress import SilentProgress

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings(**changes: Any) -> Tuned:
    usual = Tuned(
        machine=machine_name(CPU),
        model="tiny",
        measured="2030-01-02",
        default_threads=torch.get_num_threads(),
        threads=torch.get_num_threads(),
        batch_tokens=512,
        attention="sdpa",
        dtype="float32",
        tokens_per_second=100.0,
        speedup=1.5,
        rounding=0.0,
    )
    return replace(usual, **changes)


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """torch's number of threads as if nobody had chosen it; put back afterwards."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.fixture
def folder(tiny_llama: LanguageModel, tmp_path: Path) -> Path:
    tiny_llama.module.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_without_a_measurement_the_defaults_hold() -> None:
    assert tuned_for(CPU) is None
    assert batch_tokens_for(CPU, None) == DEFAULT_BATCH_TOKENS


def test_settings_come_back_as_they_were_saved_beside_those_of_other_devices() -> None:
    settings().save(CPU)
    settings(machine="some GPU", batch_tokens=4096).save(CUDA)
    assert tuned_for(CPU) == settings()
    assert batch_tokens_for(CPU, None) == 512
    assert batch_tokens_for(CPU, 64) == 64
    settings(batch_tokens=1024).save(CPU)
    assert batch_tokens_for(CPU, None) == 1024
    assert json.loads(tuned_path().read_text())["devices"]["cuda"]["batch_tokens"] == 4096


def test_settings_of_another_machine_or_torch_are_shown_and_not_used() -> None:
    settings(machine=f"{machine_name(CPU)}+other").save(CPU)
    assert tuned_for(CPU) is None
    assert batch_tokens_for(CPU, None) == DEFAULT_BATCH_TOKENS
    elsewhere = tuned_for(CPU, elsewhere=True)
    assert elsewhere is not None
    assert elsewhere.batch_tokens == 512


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a file of measured settings"),
        ('{"format": 2, "devices": {}}', "not a file of measured settings"),
        ('{"format": 1, "devices": {"cpu": 3}}', "not a file of measured settings"),
        ({"threads": "2"}, "threads"),
        ({"threads": 0}, "threads"),
        ({"threads": 100_000}, "threads"),
        ({"batch_tokens": -1}, "batch_tokens"),
        ({"batch_tokens": 10**10}, "batch_tokens"),
        ({"attention": "flash"}, "attention"),
        ({"dtype": "int8"}, "dtype"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_file_says_so_and_is_replaced_by_measuring_again(
    text: str | dict[str, Any], fault: str, folder: Path
) -> None:
    settings().save(CPU)
    if isinstance(text, dict):
        stored = json.loads(tuned_path().read_text())
        stored["devices"]["cpu"].update(text)
        text = json.dumps(stored)
    tuned_path().write_text(text)
    for attempt in (lambda: tuned_for(CPU), lambda: load_model(folder, progress=SilentProgress())):
        with pytest.raises(DamagedError, match=fault) as caught:
            attempt()
        assert "doctor --tune" in caught.value.hint
    load_model(folder, measured_settings=False, progress=SilentProgress())
    settings().save(CPU)
    assert tuned_for(CPU) == settings()


def test_a_missing_field_is_damage() -> None:
    settings().save(CPU)
    stored = json.loads(tuned_path().read_text())
    del stored["devices"]["cpu"]["dtype"]
    tuned_path().write_text(json.dumps(stored))
    with pytest.raises(DamagedError, match="dtype"):
        tuned_for(CPU)


def test_threads_are_set_where_nobody_chose_them(threads: int, folder: Path) -> None:
    settings(default_threads=threads, threads=threads + 1).save(CPU)
    notes = Notes()
    load_model(folder, progress=notes)
    assert torch.get_num_threads() == threads + 1
    assert any(f"Using {threads + 1} CPU threads" in line for line in notes.lines)
    torch.set_num_threads(threads)
    load_model(folder, measured_settings=False, progress=notes)
    assert torch.get_num_threads() == threads


def test_threads_that_the_user_or_the_program_chose_stay(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = settings(default_threads=threads, threads=threads + 1)
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(threads))
        assert not tuned.set_threads()
    torch.set_num_threads(threads + 2)
    assert not tuned.set_threads()
    assert torch.get_num_threads() == threads + 2


def test_precision_and_attention_are_those_measured_unless_asked_otherwise(folder: Path) -> None:
    usual = load_model(folder, progress=SilentProgress())
    assert (usual.dtype, usual.attention) == (torch.float32, "sdpa")
    settings(dtype="bfloat16", attention="eager").save(CPU)
    notes = Notes()
    model = load_model(folder, progress=notes)
    assert (model.dtype, model.attention) == (torch.bfloat16, "eager")
    assert "bfloat16 on cpu" in notes.lines[0]
    assert "measured fastest here on 2030-01-02" in notes.lines[0]
    assert load_model(folder, dtype="float32", progress=notes).dtype == torch.float32
    untouched = load_model(folder, measured_settings=False, progress=notes)
    assert (untouched.dtype, untouched.attention) == (torch.float32, "sdpa")


def test_weights_stored_in_half_precision_keep_it_on_a_gpu() -> None:
    tuned = settings(dtype="float32")
    assert choose_dtype("auto", CUDA, torch.bfloat16, tuned)[0] == torch.bfloat16
    assert choose_dtype("auto", CUDA, torch.float32, replace(tuned, dtype="bfloat16"))[0] == torch.bfloat16
    assert choose_dtype("auto", CPU, torch.bfloat16, replace(tuned, dtype="bfloat16"))[0] == torch.bfloat16
