"""``neuronmap sae labels``, and label sets through the zoo: out of one home, into another, with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neuronmap.cli import app as commands
from neuronmap.cli.label_documents import LABEL_DOCUMENTS
from neuronmap.interpretation.labels import Author, Label, Vote, stamp
from neuronmap.interpretation.labels.book import LabelBook


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(commands, list(words))
    assert done.exit_code == code, done.output
    return done.output


def document(*words: str) -> Any:
    found = json.loads(run(*words, "--json", "--quiet"))
    kind = LABEL_DOCUMENTS.get(" ".join(words[:3]))
    if kind is not None:
        kind.model_validate(found)
    return found


@pytest.fixture
def here(labels_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ada's home: the library is shared, the book and the zoo are her own."""
    return a_home(labels_home, tmp_path / "ada", "Ada", monkeypatch)


def a_home(shared: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "library").exists():
        (folder / "library").symlink_to(shared / "library", target_is_directory=True)
    monkeypatch.setenv("NEURONMAP_HOME", str(folder))
    monkeypatch.setenv("NEURONMAP_AUTHOR", name)
    return folder


def test_add_list_reword_history_and_conflicts(here: Path) -> None:
    assert "No label of first fits" in run("sae", "labels", "list", "first")
    made = document("sae", "labels", "add", "first", "7", "names of colours", "--explanation", "Red.")
    assert made["label"]["author"] == {"kind": "person", "name": "Ada"}
    document("sae", "labels", "add", "first", "7", "colours", "--replaces", made["label"]["id"])
    assert "own labels only" in run(
        "sae", "labels", "add", "first", "7", "x", "--replaces", made["label"]["id"], "--author", "Bob", code=2
    )
    document("sae", "labels", "add", "first", "7", "flowers", "--author", "Bob")
    document("sae", "labels", "add", "first", "9", "rivers", "--side", "output")
    found = document("sae", "labels", "list", "first")
    assert [(one["label"]["feature"], one["label"]["text"]) for one in found["labels"]] == [
        (7, "colours"),
        (7, "flowers"),
        (9, "rivers"),
    ]
    assert document("sae", "labels", "list", "first", "--search", "RIVER", "--side", "output")["total"] == 1
    text = run("sae", "labels", "list", "first", "--author", "Bob")
    assert "flowers" in text
    assert "disputed" in text
    assert "rivers" not in text
    (conflict,) = document("sae", "labels", "conflicts", "first")["conflicts"]
    assert {one["label"]["text"] for one in conflict["labels"]} == {"colours", "flowers"}
    past = document("sae", "labels", "history", "first", "7")
    assert len(past["acts"]) == 3
    assert len(past["holding"]) == 2
    assert "no more" in run("sae", "labels", "history", "first", "7")
    assert "no feature 64" in run("sae", "labels", "add", "first", "64", "x", code=2)
    assert "--side 'up'" in run("sae", "labels", "list", "first", "--side", "up", code=2)


def test_a_file_of_labels_into_another_home(
    here: Path, labels_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document("sae", "labels", "add", "first", "7", "colours")
    file = tmp_path / "labels.jsonl"
    assert document("sae", "labels", "export", "first", "-o", str(file))["acts"] == 1
    assert "is there already" in run("sae", "labels", "export", "first", "-o", str(file), code=6)
    a_home(labels_home, tmp_path / "bob", "Bob", monkeypatch)
    document("sae", "labels", "add", "first", "7", "flowers")
    report = document("sae", "labels", "merge-report", "first", str(file))
    assert (report["new"], report["conflicts"], report["rehearsal"]) == (1, [7], True)
    assert document("sae", "labels", "list", "first")["total"] == 1
    said = run("sae", "labels", "import", "first", str(file))
    assert "1 are new: 1 label" in said
    assert "Newly disputed: 7" in said
    assert document("sae", "labels", "import", "first", str(file))["new"] == 0
    assert document("sae", "labels", "list", "first")["total"] == 2
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"feature": 8, "label": "winter", "score": 0.5}\n')
    assert "say whose" in run("sae", "labels", "import", "first", str(plain), code=2)
    for new in (2, 0):
        found = document(
            "sae",
            "labels",
            "import",
            "first",
            str(plain),
            "--author",
            "llm",
            "--author-kind",
            "model",
            "--method",
            "q@1",
        )
        assert found["new"] == new
    assert document("sae", "labels", "list", "first", "--author-kind", "model")["labels"][0]["label"]["method"] == "q@1"
    assert "no file" in run("sae", "labels", "import", "first", "missing.jsonl", code=2)
    broken = file.read_text().replace("colours", "lies")
    file.write_text(broken)
    assert "it was changed" in run("sae", "labels", "import", "first", str(file), code=2)


def test_label_sets_are_merged_through_the_zoo(
    here: Path, labels_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = str(tmp_path / "shared-zoo")
    run("zoo", "publish", "first", "--as", "ada/first@1.0", "--licence", "MIT", "--zoo", zoo)
    assert "Nobody has said anything" in run(
        "zoo", "publish", "first", "--labels", "--as", "ada/x@1.0", "--licence", "MIT", "--zoo", zoo, code=2
    )
    first = document("sae", "labels", "add", "first", "7", "colours")["label"]
    model = Author(kind="model", name="tiny-llm")
    with LabelBook.open() as book:
        book.add([Label(sae=first["sae"], feature=7, author=model, at=stamp(), text="winter", method="q@1")])
    publish = (
        "zoo",
        "publish",
        "first",
        "--labels",
        "--as",
        "ada/first-labels@1.0",
        "--licence",
        "CC0-1.0",
        "--zoo",
        zoo,
    )
    made = document(*publish)["versions"][0]
    record = made["manifest"]["record"]
    assert (record["method"], record["count"], record["metrics"]["labels"], record["metrics"]["authors"]) == (
        "people and llm",
        1,
        2,
        2,
    )
    assert made["depends_on"][0]["reference"] == "ada/first@1.0"
    assert document(*publish)["versions"][0]["digest"] == made["digest"], "the same labels are the same version"

    bob = a_home(labels_home, tmp_path / "bob", "Bob", monkeypatch)
    own = document("sae", "labels", "add", "first", "7", "flowers")["label"]
    report = document("sae", "labels", "import", "first", "ada/first-labels@1.0", "--zoo", zoo)
    assert (report["new"], report["conflicts"]) == (2, [7])
    with LabelBook.open() as book:
        vote = Vote(
            sae=own["sae"], feature=7, author=Author(kind="person", name="Bob"), at=stamp(), label=first["id"], value=-1
        )
        book.add([vote])
        everything = list(book.acts())
    run("zoo", "publish", "first", "--labels", "--as", "bob/first-labels@1.0", "--licence", "CC0-1.0", "--zoo", zoo)

    a_home(labels_home, here, "Ada", monkeypatch)
    said = run("zoo", "pull", "bob/first-labels@1.0", "--into-library", "--zoo", zoo)
    assert "2 new acts in the labels of first" in " ".join(said.split())
    with LabelBook.open() as book:
        assert list(book.acts()) == everything
        assert {held.label.text: held.down for held in book.labels(first["sae"], 7)} == {
            "colours": 1,
            "flowers": 0,
            "winter": 0,
        }
    assert bob.exists()


def test_a_set_with_a_forged_act_is_not_published(here: Path, tmp_path: Path) -> None:
    zoo = str(tmp_path / "zoo")
    run("zoo", "publish", "first", "--as", "ada/first@1.0", "--licence", "MIT", "--zoo", zoo)
    good = document("sae", "labels", "add", "first", "7", "colours")["label"]
    file = tmp_path / "labels.jsonl"
    lines = [
        good,
        {**good, "text": "lies"},
        {**good, "sae": "sha256:" + "0" * 64, "id": None},
        {"feature": 7, "label": "plain"},
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    options = ("--labels", "--method", "people", "--of", "first", "--as", "ada/l@1.0", "--licence", "MIT", "--zoo", zoo)
    said = run("zoo", "publish", str(file), *options, code=2)
    assert "line 2" in said
    assert "it was changed" in said
    assert "line 3" in said
    assert "line 4" not in said
