"""A folder with a small GPT-2 and its tokenizer, some text, and a way to type commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS


@dataclass
class Typed:
    """What a command printed."""

    code: int
    out: str
    err: str

    def document(self, command: str) -> dict:
        """The one JSON document on stdout, checked against the documented schema."""
        value = json.loads(self.out)
        DOCUMENTS[command].model_validate(value)
        return value


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    """Forty documents of pseudo-sentences, all different."""
    folder = tmp_path_factory.mktemp("text")
    words = "river winter union fox dog state strong citizens number froze lazy brown quick children school"
    words = words.split()
    for index in range(40):
        text = " ".join(words[(index * 7 + i * i) % len(words)] + ("." if i % 9 == 8 else "") for i in range(300))
        (folder / f"{index:02d}.txt").write_text(f"Document {index}. {text}")
    return folder


def typed(*arguments: str | Path, answer: str | None = None) -> Typed:
    """Type a command."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Typed(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def neuronmap() -> Callable[..., Typed]:
    return typed


@pytest.fixture
def train_arguments(model_folder, text_folder) -> list[str]:
    """A training of about thirty steps."""
    settings = ["hidden_dim=64", "context_length=32", "batch_size=4", "num_epochs=0.5", "learning_rate=0.003"]
    return [
        *("sae", "train", "--model", str(model_folder), "--layer", "2", "--text", str(text_folder), "-k", "4"),
        *(part for setting in settings for part in ("--set", setting)),
    ]


@pytest.fixture(scope="session")
def analysed_home(tmp_path_factory, model_folder, text_folder) -> Path:
    """A home with two SAEs of the small model, ``first`` analysed and ``second`` not, made by typing the commands."""
    home = tmp_path_factory.mktemp("analysed")
    settings = ["hidden_dim=64", "context_length=32", "batch_size=4", "num_epochs=0.5", "learning_rate=0.003"]
    settings += ["max_tokens=4000", "heldout_tokens=500"]
    train = ["sae", "train", "--model", str(model_folder), "--layer", "2", "--text", str(text_folder), "-k", "4"]
    train += [part for setting in settings for part in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        for command in (
            [*train, "--no-evaluate", "--name", "first"],
            [*train, "--no-evaluate", "--name", "second", "--set", "seed=1"],
            ["sae", "analyze", "first", "--no-map"],
        ):
            done = typed(*command)
            assert done.code == 0, done.err
    return home


@pytest.fixture
def analysed(analysed_home, home) -> Path:
    """This test's home, with a copy of all of that."""
    shutil.copytree(analysed_home, home, dirs_exist_ok=True)
    return home


@pytest.fixture(scope="session")
def concept_file(tmp_path_factory) -> Path:
    """A concept of the user: two lists of twelve short texts."""
    lines = ["name: warmth", "classes: [cold, warm]", "read: now"]
    for key, word in (("negative", "cold"), ("positive", "warm")):
        nouns = ["sea", "air", "sand", "lake", "wind", "rock", "roof", "wall", "tea", "milk", "soup", "bath"]
        lines += [f"{key}:", *(f"  - the {noun} is {word} now" for noun in nouns)]
    path = tmp_path_factory.mktemp("concepts") / "warmth.yaml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def track_arguments(model_folder, concept_file) -> list[str]:
    """Tracking in a few seconds."""
    settings = [
        "items=16",
        "permutations=20",
        "resamples=20",
        "random_concepts=20",
        "control_labelings=2",
        "layer_stride=2",
    ]
    settings += ["untrained=false", "mlp=false", "context_need=false", "similarity=false"]
    arguments = ["sae", "track-abstractions", "--model", str(model_folder), "--concepts", str(concept_file)]
    return [*arguments, *(part for setting in settings for part in ("--set", setting))]


@pytest.fixture(scope="session")
def tracked_home(tmp_path_factory, track_arguments) -> Path:
    """A home with one report, ``warm``, that follows one prompt, made by typing the command."""
    home = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        done = typed(*track_arguments, "--prompt", "the tea is warm now", "--name", "warm")
        assert done.code == 0, done.err
    return home


@pytest.fixture
def tracked(tracked_home, home) -> Path:
    """This test's home, with a copy of all of that."""
    shutil.copytree(tracked_home, home, dirs_exist_ok=True)
    return home
