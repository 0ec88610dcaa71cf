"""``neuronmap sae harvest``: what it refuses before the language model runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuronmap.activations import extract
from neuronmap.cli import app

ARGUMENTS = ["sae", "harvest", "--model", "smollm2-135m", "--layer", "2", "--json"]


def refused(home: Path, *more: str) -> tuple[int, str]:
    """Exit code and message of a harvest that is not begun."""
    done = CliRunner().invoke(app, [*ARGUMENTS, *more])
    assert not list(home.rglob("manifest.json"))  # neither tokens nor activations
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--text"),
        (("--text", "sotu", "--set", "stream=true"), "stream = true a training stores no activations"),
    ],
)
def test_a_harvest_of_nothing_is_an_error(home, more, said) -> None:
    code, told = refused(home, *more)
    assert code == 2
    assert said in told


def test_a_bucket_that_is_missing_is_told_before_the_harvest(home, s3) -> None:
    code, told = refused(home, "--text", "sotu", "--store", s3().replace("s3://zoo/", "s3://missing/"))
    assert code not in (0, 2)
    assert "s3://missing/" in told
    assert "Does the bucket exist?" in told


def test_a_second_host_brings_from_the_bucket_what_the_first_made(
    home: Path, s3, tiny_llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    copy.deepcopy(tiny_llama.module).save_pretrained(model)
    tiny_llama.tokenizer.save_pretrained(model)
    (tmp_path / "text.txt").write_text("\n\n".join(f"The river number {at} is long and wide." for at in range(400)))
    arguments = [
        "sae",
        "harvest",
        "--model",
        str(model),
        "--layer",
        "1",
        "--text",
        str(tmp_path / "text.txt"),
        "--json",
    ]
    arguments += ["--tokens", "4000", "--set", "heldout_tokens=1000", "--set", "context_length=32", "--store", s3()]

    def harvested() -> list[Path]:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return [Path(store["path"]) for store in json.loads(done.stdout)["stores"]]

    first = harvested()
    assert len(first) == 2
    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(extract, "capture", None)  # the language model does not run here
    second = harvested()
    for here, there in zip(second, first, strict=True):
        assert here.is_relative_to(tmp_path / "other")
        names = [file.name for file in there.iterdir() if file.suffix == ".bin"]
        assert names
        assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
