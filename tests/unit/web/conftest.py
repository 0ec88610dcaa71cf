"""A home with a small library, and the explorer on it without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from neuronmap.cli import app as commands
from neuronmap.web.app import Application, create_app
from neuronmap.web.settings import ServerSettings


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A home with ``first``, analysed, and ``second``, not, made by typing the commands; its texts hold tags and emoji."""
    home, folder = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(model_folder, folder)
    words_ = "river winter union fox dog state strong citizens number froze lazy brown quick children school"
    words = words_.split()
    texts = home / "texts"
    texts.mkdir()
    for index in range(20):
        text = " ".join(words[(index * 7 + i * i) % len(words)] + ("." if i % 9 == 8 else "") for i in range(200))
        (texts / f"{index:02d}.txt").write_text(f"Document {index}. <script>alert({index})</script> {text}")
    train = ["sae", "train", "--model", str(folder), "--layer", "2", "--text", str(texts), "-k", "4", "--no-evaluate"]
    for setting in ("hidden_dim=64", "context_length=32", "batch_size=4", "max_tokens=3000", "heldout_tokens=400"):
        train += ["--set", setting]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        for command in (
            [*train, "--name", "first"],
            [*train, "--name", "second", "--set", "seed=1"],
            ["sae", "analyze", "first", "--no-map"],
        ):
            done = CliRunner().invoke(commands, command)
            assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def library(small_home: Path, home: Path) -> Path:
    """This test's home, with a copy of that."""
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    return home / "library"


def made_app(**settings: Any) -> Application:
    """The application, without starting jobs."""
    return create_app(ServerSettings(**{"supervise": False, **settings}))


@pytest.fixture
def client(library: Path) -> Iterator[TestClient]:
    """A browser on the explorer of the small library."""
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as found:
        yield found
