"""``neuronmap sae import``, ``export`` and ``convert`` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layouts import sparsify_folder, transcoder_set, write_json
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS
from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import Given, detect
from neuronmap.hub.formats.importing import read_candidate


def run(*words: object, code: int = 0) -> str:
    """What a command prints on stdout."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + (repr(result.exception) if result.exception else "")
    return result.stdout


def document(*words: object, code: int = 0) -> dict[str, Any]:
    """The JSON document, checked against its model."""
    found: dict[str, Any] = json.loads(run(*words, "--json", "--quiet", code=code))
    name = "error" if found["schema"] == "neuronmap/error/1" else " ".join(str(word) for word in words[:2])
    DOCUMENTS[name].model_validate(found)
    return found


def test_import_export_and_back(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run")
    write_json(tmp_path / "run" / "config.json", {"model": "org/tiny"})
    found = document("sae", "import", tmp_path / "run", "--name", "mine", "--tag", "from-afar")
    (one,) = found["saes"]
    assert one["proof"] is None
    assert "org/tiny is not on this machine" in one["unproved"]
    assert (one["sae"]["id"], one["sae"]["tags"], one["candidate"]["format"]) == ("mine", ["from-afar"], "sparsify")
    written = document("sae", "export", "mine", "--format", "sparsify", "-o", tmp_path / "out")
    assert [Path(file).name for file in written["files"]] == ["sae.safetensors", "cfg.json"]
    (again,) = detect(tmp_path / "out")
    assert read_candidate(again, Given()).sae.d_sae == one["sae"]["d_sae"]


def test_with_its_model(tmp_path: Path, model_folder: Path) -> None:
    """The model is a folder; the text is a file; the verdict is printed."""
    both = 32
    sparsify_folder(tmp_path / "run", "h.1", d_in=both)
    import torch
    from layouts import values, write_tensors

    write_tensors(tmp_path / "run" / "h.1" / "sae.safetensors", {
        "encoder.weight": values(40, both), "encoder.bias": torch.zeros(40), "W_dec": values(40, both), "b_dec": torch.zeros(both),
    })  # fmt: skip
    (tmp_path / "text.txt").write_text("The river froze, and the children walked across it to school. " * 60)
    shown = run(
        "sae",
        "import",
        tmp_path / "run",
        "--model",
        model_folder,
        "--text",
        tmp_path / "text.txt",
        "--tokens",
        "300",
        "-q",
    )
    assert shown == ""
    shown = run("sae", "import", tmp_path / "run", "--model", model_folder, "--text", tmp_path / "text.txt", "--tokens", "300",
                "--name", "again")  # fmt: skip
    assert "explained variance" in shown
    assert "transformer.h.1:out" in shown
    assert SAEModelHub().get("again").layer == 1


def test_a_choice_that_was_not_made(tmp_path: Path) -> None:
    transcoder_set(tmp_path / "set")
    assert "Choose with --select NAME" in run("sae", "import", tmp_path / "set", code=2)
    listed = document("sae", "import", tmp_path / "set", "--list")
    assert [one["name"] for one in listed["candidates"]] == ["layer_0", "layer_1"]
    assert SAEModelHub().list() == []
    assert len(document("sae", "import", tmp_path / "set", "--all", "--no-prove")["saes"]) == 2
    assert {entry.layer for entry in SAEModelHub().list()} == {0, 1}


def test_convert(tmp_path: Path) -> None:
    transcoder_set(tmp_path / "set")
    written = document("sae", "convert", tmp_path / "set", tmp_path / "out", "--to", "saelens")
    assert written["saes"] == ["layer_0", "layer_1"]
    assert SAEModelHub().list() == []


def test_a_repository(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run")
    error = document("sae", "convert", tmp_path / "run", tmp_path / "repo", "--to", "huggingface", code=2)
    assert "licence" in error["message"]
    document("sae", "convert", tmp_path / "run", tmp_path / "repo", "--to", "huggingface", "--licence", "mit")
    assert "license: mit" in (tmp_path / "repo" / "README.md").read_text()


def test_formats_are_listed() -> None:
    listed = {one["name"]: (one["reads"], one["writes"]) for one in document("sae", "import", "--formats")["formats"]}
    assert listed["sparsify"] == (True, True)
    assert listed["openai"] == (True, False)
    assert listed["neuronpedia"] == (False, True)


def test_data_about_features(tmp_path: Path) -> None:
    run("sae", "import", sparsify_folder(tmp_path / "run"), "--name", "mine", "--no-prove")
    write_json(tmp_path / "d" / "batch-0.json", {"model_id": "m", "layer": 3, "features": [{"feature_index": 1}]})
    attached = document("sae", "import", tmp_path / "d", "--into", "mine", "--name", "dashboards")["attached"]
    assert (attached["sae"], attached["name"]) == ("mine", "dashboards")


@pytest.mark.parametrize(("words", "said"), [
    (["import"], "A source is needed"),
    (["import", "./nowhere"], "does not exist"),
    (["import", "./nowhere", "--assume", "rule"], "key=value"),
    (["export", "mine", "-f", "sparsify", "-o", "out", "--licence", "mit"], "--licence goes with the format huggingface"),
    (["convert", "a", "b", "--push", "me/mine"], "--push goes with the format huggingface"),
])  # fmt: skip
def test_mistakes_are_said(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sae", *words])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def zoo_with_an_sae(folder: Path) -> str:
    """A zoo that is not the usual one, with one SAE in it; its location."""
    from neuronmap.hub.formats import convert_sae
    from neuronmap.progress import SilentProgress
    from neuronmap.zoo import Zoo

    sparsify_folder(folder / "run")
    write_json(folder / "run" / "config.json", {"model": "org/tiny"})
    made = convert_sae(folder / "run", folder / "bundle", "saelens", progress=SilentProgress())
    with Zoo(folder / "zoo", progress=SilentProgress()) as zoo:
        zoo.publish(made.folder, "ada/demo@1.0", licence="MIT")
    return str(folder / "zoo")


def test_from_a_zoo_under_the_name_it_has_there(tmp_path: Path) -> None:
    zoo = zoo_with_an_sae(tmp_path)
    found = document("sae", "import", "zoo:ada/demo@1.0", "--zoo", zoo, "--name", "mine", "--no-prove")
    assert found["saes"][0]["candidate"]["name"] == "ada/demo@1.0"
    origin = SAEModelHub().info("mine").origin or {}
    assert (origin["format"], origin["reference"], origin["zoo"]) == ("zoo", "ada/demo@1.0", zoo)
    assert origin["before"]["format"] == "sparsify"
    assert "ada/demo@1.0" in run("sae", "import", "zoo:ada/demo", "--zoo", zoo, "--name", "again", "--no-prove")
    written = document("sae", "convert", "zoo:ada/demo@1.0", tmp_path / "out", "--to", "sparsify", "--zoo", zoo)
    assert written["saes"] == ["ada/demo@1.0"]
    (again,) = detect(tmp_path / "out")
    assert read_candidate(again, Given()).sae.d_sae == SAEModelHub().get("mine").d_sae
    assert "goes with a source in a zoo" in document("sae", "import", tmp_path / "run", "--zoo", zoo, code=2)["message"]


def test_quiet_keeps_silent_about_nothing_that_matters(tmp_path: Path, model_folder: Path) -> None:
    import torch
    from layouts import values, write_tensors

    transcoder_set(tmp_path / "set")
    asked = CliRunner().invoke(app, ["sae", "import", str(tmp_path / "set"), "--quiet"])
    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "2 SAEs are here, none was imported" in asked.stderr
    width = 32
    sparsify_folder(tmp_path / "run", "h.1", d_in=width)
    write_tensors(tmp_path / "run" / "h.1" / "sae.safetensors", {
        "encoder.weight": 100 * values(40, width), "encoder.bias": torch.zeros(40), "W_dec": 100 * values(40, width),
        "b_dec": torch.zeros(width),
    })  # fmt: skip
    (tmp_path / "text.txt").write_text("The river froze, and the children walked across it to school. " * 60)
    words = [
        "sae",
        "import",
        tmp_path / "run",
        "--model",
        model_folder,
        "--text",
        tmp_path / "text.txt",
        "--tokens",
        "300",
        "-q",
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "worse than a constant" in done.stderr
