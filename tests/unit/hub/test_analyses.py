"""Several analyses of one SAE lie beside its weights, and the library goes on as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from made_stores import small_store

from neuronmap.errors import DamagedError, MismatchError, NotInLibraryError
from neuronmap.features.storage import migrations
from neuronmap.features.storage.manifest import MANIFEST, read_manifest, seal
from neuronmap.hub import (
    LibraryEntry,
    SAEModelHub,
    analysis_folder,
    delete_analysis,
    list_analyses,
    open_analysis,
)
from neuronmap.paths import write_json

KEYS = ["sha256:" + digits * 16 for digits in ("ab12", "ab34", "ef56")]


def add(entry: LibraryEntry, key: str, created: str, corpus: str = "sotu") -> Path:
    """An analysis of an entry, as the pass leaves it."""
    folder = small_store(analysis_folder(entry, key), key=key, facts={"corpus": {"name": corpus}})
    write_json(folder / MANIFEST, seal({**read_manifest(folder), "created": created}))
    return folder


@pytest.fixture
def entry(hub: SAEModelHub, tmp_path: Path) -> LibraryEntry:
    return hub.register(make_bundle(tmp_path / "b"), name="mine/sae")


@pytest.fixture
def three(entry: LibraryEntry) -> LibraryEntry:
    for key, day, corpus in zip(KEYS, ("02", "03", "01"), ("sotu", "code", "wiki"), strict=True):
        add(entry, key, f"2030-01-{day}T00:00:00+00:00", corpus)
    return entry


def test_analyses_are_listed_the_newest_first(three: LibraryEntry) -> None:
    listed = list_analyses(three)
    assert [one.name for one in listed] == ["ab34ab34ab34", "ab12ab12ab12", "ef56ef56ef56"]
    newest = listed[0]
    assert (newest.key, newest.corpus, newest.tokens, newest.features) == (KEYS[1], "code", 54, 8)
    assert (newest.complete, newest.problem) == (True, "")
    assert newest.size_bytes == sum(file.stat().st_size for file in newest.path.iterdir())
    assert json.loads(json.dumps(newest.to_dict()))["name"] == newest.name
    assert list_analyses(three.path) == listed


def test_an_analysis_is_opened_by_age_name_or_key(three: LibraryEntry) -> None:
    assert open_analysis(three).key == KEYS[1]
    for name in ("ef", "ef56ef56ef56", KEYS[2], KEYS[2][:20], KEYS[2].removeprefix("sha256:")):
        assert open_analysis(three, name, verify=True).key == KEYS[2]
    assert open_analysis(three.path, "ab12").key == KEYS[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ab", r"several analyses that begin with 'ab'. There are: ab34ab34ab34 \(code, 54 tokens.*ab12ab12ab12"),
        ("zz", r"SAE 'mine/sae' has no analysis 'zz'. There are: ab34.*ab12.*ef56ef56ef56 \(wiki, 54 tokens"),
        ("", "no analysis ''"),
        ("sha256:", "no analysis 'sha256:'"),
    ],
)
def test_a_name_of_none_or_several_is_refused_with_what_is_there(three: LibraryEntry, name: str, says: str) -> None:
    with pytest.raises(NotInLibraryError, match=says):
        open_analysis(three, name)


def test_without_analyses_the_way_to_one_is_shown(entry: LibraryEntry, tmp_path: Path) -> None:
    assert list_analyses(entry) == list_analyses(tmp_path / "nowhere") == []
    with pytest.raises(NotInLibraryError, match=r"(?s)SAE 'mine/sae' has no analysis\..*neuronmap sae analyze"):
        open_analysis(entry)


def test_unfinished_and_damaged_ones_are_listed_last_and_not_opened(three: LibraryEntry) -> None:
    newest = analysis_folder(three, KEYS[1])
    (newest / "features.parquet").unlink()
    analysis_folder(three, "sha256:" + "0" * 64).mkdir()
    listed = list_analyses(three)
    assert [one.problem == "" for one in listed] == [True, True, False, False]
    assert {one.name for one in listed[2:]} == {newest.name, "0" * 12}
    assert open_analysis(three).key == KEYS[0]
    with pytest.raises(DamagedError, match=r"(?s)features\.parquet is missing.*There are: ab12ab12ab12"):
        open_analysis(three, "ab34")
    with pytest.raises(DamagedError, match="It was not finished"):
        open_analysis(three, "000")
    for key in (KEYS[0], KEYS[2]):
        (analysis_folder(three, key) / MANIFEST).write_text("{")
    with pytest.raises(DamagedError, match="cannot be used"):
        open_analysis(three)


def test_other_attachments_are_no_analyses(three: LibraryEntry, hub: SAEModelHub, tmp_path: Path) -> None:
    (tmp_path / "density.json").write_text("{}")
    hub.attach("mine/sae", "density.json", tmp_path / "density.json")
    (three.path / "analyses" / "plots").mkdir()
    (three.path / "analyses" / "acts").mkdir()
    write_json(three.path / "analyses" / "acts" / MANIFEST, {"format": "neuronmap-activations", "version": 1})
    (three.path / "analyses" / ".staging-1").mkdir()
    assert len(list_analyses(three)) == 3
    assert "density.json" in hub.analyses("mine/sae")


def test_one_analysis_is_deleted_by_its_whole_name(three: LibraryEntry) -> None:
    with pytest.raises(NotInLibraryError, match="no analysis 'ef56'"):
        delete_analysis(three, "ef56")
    assert delete_analysis(three, "ef56ef56ef56") == analysis_folder(three, KEYS[2])
    assert [one.key for one in list_analyses(three)] == [KEYS[1], KEYS[0]]
    assert sorted(path.name for path in (three.path / "analyses").iterdir()) == ["ab12ab12ab12", "ab34ab34ab34"]
    analysis_folder(three, "sha256:" + "0" * 64).mkdir()
    delete_analysis(three, "0" * 12)  # unfinished ones too
    assert len(list_analyses(three)) == 2


def test_an_older_version_is_listed_and_brought_up_to_date_when_opened(
    three: LibraryEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = analysis_folder(three, KEYS[2])
    write_json(folder / MANIFEST, seal({**read_manifest(folder), "version": 0}))
    assert "has version 0" in next(one for one in list_analyses(three) if one.name == folder.name).problem

    def unchanged(work: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest

    monkeypatch.setitem(migrations.MIGRATIONS, 0, unchanged)
    assert next(one for one in list_analyses(three) if one.name == folder.name).problem == ""
    assert read_manifest(folder, any_version=True)["version"] == 0  # listing changes nothing
    assert open_analysis(three, "ef56").key == KEYS[2]
    assert len(list_analyses(three)) == 3
    monkeypatch.undo()
    write_json(folder / MANIFEST, seal({**read_manifest(folder), "version": 9}))
    with pytest.raises((DamagedError, MismatchError), match="has version 9"):
        open_analysis(three, "ef56")


# --- the library goes on -----------------------------------------------------------------------------------------


def test_the_library_lists_verifies_loads_and_tags_an_sae_with_analyses(hub: SAEModelHub, three: LibraryEntry) -> None:
    listed = hub.list()
    assert [one.id for one in listed] == ["mine/sae"]
    assert listed[0].problem == ""
    assert listed[0].size_bytes == sum(file.stat().st_size for file in three.path.rglob("*") if file.is_file())
    assert hub.verify("mine/sae") == three.weights_digest == listed[0].weights_digest
    assert hub.load("mine/sae").d_sae == three.d_sae
    assert hub.add_tags("mine/sae", "seen").tags == ("seen",)
    assert len(list_analyses(hub.get("mine/sae"))) == 3


def test_analyses_go_along_when_a_bundle_is_registered_or_copied(
    hub: SAEModelHub, three: LibraryEntry, tmp_path: Path
) -> None:
    shutil.copytree(three.path, tmp_path / "moved")
    other = SAEModelHub(tmp_path / "other")
    entry = other.register(tmp_path / "moved", name="again")
    assert [one.key for one in list_analyses(entry)] == [one.key for one in list_analyses(three)]
    assert open_analysis(entry, verify=True).feature(0).label == "Berlin"
    assert entry.weights_digest == three.weights_digest
    assert other.delete("again")
    assert other.list() == []


def test_an_analysis_made_elsewhere_is_attached(hub: SAEModelHub, entry: LibraryEntry, tmp_path: Path) -> None:
    store = small_store(tmp_path / "made", key=KEYS[0])
    hub.attach("mine/sae", "my-analysis", store)
    assert [(one.name, one.key) for one in list_analyses(entry)] == [("my-analysis", KEYS[0])]
    assert open_analysis(entry, "my", verify=True).key == open_analysis(entry, KEYS[0]).key == KEYS[0]


def test_the_command_line_lists_an_sae_with_analyses(home: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from neuronmap.cli import app

    add(SAEModelHub().register(make_bundle(tmp_path / "b"), name="mine/sae"), KEYS[0], "2030-01-01T00:00:00+00:00")
    result = CliRunner().invoke(app, ["sae", "list-models", "--json"])
    assert result.exit_code == 0, result.output
    assert [one["id"] for one in json.loads(result.stdout)["saes"]] == ["mine/sae"]
