"""Records of evaluation suites travel with their SAE: packed as what they are, pulled, and found again in the library."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import InvalidManifestError
from neuronmap.evaluation.suites import SuiteRecord, evaluate_suites
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.hub import SAEModelHub
from neuronmap.hub.evaluating import list_evaluations
from neuronmap.hub.leaderboard import leaderboard
from neuronmap.jobs.placing import put_into_library
from neuronmap.paths import new_folder, read_json, write_json
from neuronmap.progress import SilentProgress
from neuronmap.saes.bundle import load_sae
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.packing import pack_sae

RECORD = "evaluations/structure-0123456789ab.json"


@pytest.fixture(scope="module")
def record(bundle: Path) -> dict[str, Any]:
    """What the suite ``structure`` finds in the bundle."""
    settings = SuiteSettings(meta_steps=3, bootstrap=0)
    found = evaluate_suites(load_sae(bundle), ("structure",), settings=settings, progress=SilentProgress())
    return found.suites["structure"].to_dict()


@pytest.fixture
def measured(bundle: Path, tmp_path: Path, record: dict[str, Any]) -> Path:
    """The bundle with that record, in which the model is a folder of this machine."""
    folder = tmp_path / "sae"
    shutil.copytree(bundle, folder)
    new_folder(folder / "evaluations")
    protocol = {**record["protocol"], "model": "/data/ada/models/tiny", "hook": "model.layers.2:out"}
    write_json(folder / RECORD, {**record, "protocol": protocol})
    return folder


def test_records_are_packed_without_paths_of_this_machine(measured: Path, record: dict[str, Any]) -> None:
    package = pack_sae(measured)
    assert RECORD in package.files
    published = SuiteRecord.from_dict(read_json(package.files[RECORD]))
    assert published.protocol.model == "tiny"
    assert published.result.to_dict() == record["result"]
    assert any(RECORD in note and "/data/ada/models/tiny as tiny" in note for note in package.notes)


def test_what_is_no_record_stays_here_and_is_said(measured: Path) -> None:
    write_json(measured / "evaluations" / "mine.json", {"secret": 1})
    (measured / "evaluations" / "half.json").write_text('{"format"')
    (measured / "evaluations" / "notes.txt").write_text("secret")
    write_json(measured / "evaluations" / ".structure-hidden.json", {})
    package = pack_sae(measured)
    assert [name for name in package.files if name.startswith("evaluations/")] == [RECORD]
    assert any("evaluations/half.json, evaluations/mine.json" in note for note in package.notes)


def test_a_link_out_of_the_bundle_is_not_packed(measured: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(measured / "evaluations", elsewhere)
    (measured / "evaluations" / "linked.json").symlink_to(elsewhere / Path(RECORD).name)
    with pytest.raises(InvalidManifestError, match=r"linked\.json"):
        pack_sae(measured)
    shutil.rmtree(measured / "evaluations")
    (measured / "evaluations").symlink_to(elsewhere)
    assert RECORD not in pack_sae(measured).files


def test_published_pulled_and_compared(measured: Path, tmp_path: Path) -> None:
    hub = SAEModelHub(tmp_path / "library")
    hub.register(measured, name="own")
    quiet = SilentProgress()
    with Zoo(tmp_path / "zoo", progress=quiet) as zoo:
        first, second = (zoo.prepare(pack_sae(measured), "ada/demo@1.0", licence="MIT") for _ in range(2))
        assert first.data == second.data, "packing again gives the same manifest"
        zoo.publish(measured, "ada/demo@1.0", licence="MIT")
        placed = put_into_library(zoo, zoo.pull("ada/demo"), name="pulled", hub=hub, progress=quiet)
    assert placed.library == "pulled"
    (found,) = list_evaluations(hub.get("pulled"))
    assert found.result.suite == "structure"
    board = leaderboard(hub, suite="structure")
    assert [row.sae for row in board.rows] == ["own", "pulled"], (
        "the path of the model here and its name there are one model"
    )
