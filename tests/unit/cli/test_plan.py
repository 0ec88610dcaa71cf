"""``neuronmap plan``: numbers as people write them, the table, the document, and refusals."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS
from neuronmap.cli.plan import duration, parse_count
from neuronmap.errors import ConfigError

ARGUMENTS = ["plan", "--model", "gemma-2-2b", "--width", "128k", "--tokens", "1B", "--device", "h100", "--gpus", "8"]


def run(*more: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [*ARGUMENTS, *more])
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize(
    ("text", "binary", "value"),
    [
        ("16384", True, 16_384),
        ("16k", True, 16_384),
        ("16M", True, 1 << 24),
        ("1.5B", False, 1_500_000_000),
        ("100m", False, 100_000_000),
        ("500_000", False, 500_000),
        ("1,000,000", False, 1_000_000),
    ],
)
def test_numbers_as_people_write_them(text: str, binary: bool, value: int) -> None:
    assert parse_count("--tokens", text, binary=binary) == value


@pytest.mark.parametrize("text", ["", "many", "-5", "1e9", "10 GB", "0", "1,5"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError, match="--tokens = "):
        parse_count("--tokens", text)


def test_durations() -> None:
    assert [duration(s) for s in (0.25, 89, 120, 7200, 3 * 86_400)] == [
        "0.2 s",
        "89.0 s",
        "2.0 min",
        "2.0 h",
        "3.0 days",
    ]


def test_the_table_says_what_it_takes_and_what_is_assumed() -> None:
    code, shown, _ = run("--price", "2.5")
    assert code == 0
    for words in (
        "131,072 features",
        "harvest",
        "training",
        "analysis",
        "Fits: yes",
        "rows over 8",
        "assumed, not measured: harvest_share_gpu",
    ):
        assert words in shown
    assert "money: no price was given" in run()[1]
    assert "results/gpu-2026-11-26" in run("--explain")[1]


def test_the_document_is_whole_and_adds_up() -> None:
    code, shown, _ = run("--json", "--price", "2")
    assert code == 0
    document = json.loads(shown)
    DOCUMENTS["plan"].model_validate(document)
    assert document["request"]["layer"] == 13
    assert document["money"] == pytest.approx(2 * document["gpu_hours"])
    parts = [document["storage"][name] for name in ("store", "tokens", "checkpoints", "bundle", "features")]
    assert document["storage"]["total"] == sum(parts)
    assert document["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens", "lots"], "is no number"),
        (["--device", "h1000"], "Did you mean h100?"),
        (["--model", "gpt3"], "Did you mean gpt2?"),
        (["--store-dtype", "int4"], "PlanRequest.store_dtype"),
        (["--layer", "99"], "blocks 0 to 25"),
        (["--price", "-1"], "PlanRequest.price"),
    ],
)
def test_refusals_name_what_is_allowed(arguments: list[str], words: str) -> None:
    code, shown, said = run(*arguments)
    assert code not in (0, 1)
    assert words in said
    assert shown == ""
