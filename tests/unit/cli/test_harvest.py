"""``neuronmap sae harvest``: what it refuses before the language model runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

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
