"""Folders in a bucket of S3 and of Azure: whole, by digest, replaced as a whole; what is longer than a part; SAEs and activations in it; a
bucket that is not there, a key that is not the right one."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuronmap.activations import ActivationStore
from neuronmap.activations.remote import RemoteActivationStore
from neuronmap.cli import app
from neuronmap.errors import ConfigError, DamagedError, InputError, NeuronMapError, ResourceError, UnwritablePathError
from neuronmap.hub import SAEModelHub
from neuronmap.objects import Bucket, RemoteFolders
from neuronmap.objects import bucket as buckets
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, get_architecture, save_bundle

QUIET = SilentProgress()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one of them longer than a part of a multipart upload."""
    made = tmp_path / "made"
    (made / "inside").mkdir(parents=True)
    (made / "cfg.json").write_text("{}")
    (made / "inside" / "weights.bin").write_bytes(os.urandom(17 << 20))
    return made


def test_a_folder_goes_and_comes_back(bucket: Callable[[], str], folder: Path, tmp_path: Path) -> None:
    place = RemoteFolders(bucket())
    assert list(place.names()) == []
    listing = place.push("saes/a/b", folder, ["cfg.json", "inside/weights.bin"], QUIET)
    assert list(place.names()) == ["saes/a/b"]
    assert place.listing("saes/a/b") == listing
    back = place.pull(listing, tmp_path / "back", QUIET)
    assert (back / "inside" / "weights.bin").read_bytes() == (folder / "inside" / "weights.bin").read_bytes()

    (folder / "cfg.json").write_text('{"k": 4}')
    place.push("saes/a/b", folder, ["cfg.json"], QUIET)
    assert list(place.require("saes/a/b").files) == ["cfg.json"]
    assert (
        place.pull(listing, tmp_path / "old", QUIET).joinpath("cfg.json").read_text() == "{}"
    )  # as it was listed then
    with pytest.raises(InputError, match=r"no 'saes/c' in .*; there is saes/a/b"):
        place.require("saes/c")


def test_what_two_folders_have_in_common_lies_there_once(bucket: Callable[[], str], folder: Path) -> None:
    place = RemoteFolders(bucket())
    for name in ("one", "two"):
        place.push(name, folder, ["cfg.json", "inside/weights.bin"], QUIET)
    keys = [found.key for found in place.store.list()]
    assert len([key for key in keys if key.startswith("blobs/")]) == 2
    assert sorted(place.names()) == ["one", "two"]


def test_a_bucket_that_is_not_there(bucket: Callable[[], str], folder: Path) -> None:
    url = bucket().replace("://zoo/", "://nowhere/")
    with pytest.raises(NeuronMapError, match=r"the store (s3|az)://nowhere"):
        RemoteFolders(url).push("one", folder, ["cfg.json"], QUIET)


def test_changed_bytes_are_found_on_both_sides_and_sent_again(
    bucket: Callable[[], str], folder: Path, tmp_path: Path
) -> None:
    place = RemoteFolders(bucket())
    listing = place.push("one", folder, ["cfg.json"], QUIET)
    (key,) = [found.key for found in place.store.list("blobs/")]
    place.store.put(key, [b"[]"])
    with pytest.raises(DamagedError, match="other bytes") as refused:
        place.fetch(listing, "cfg.json", tmp_path)
    assert "--again" in refused.value.hint
    place.push("one", folder, ["cfg.json"], QUIET)
    with pytest.raises(DamagedError):
        place.fetch(listing, "cfg.json", tmp_path)
    place.push("one", folder, ["cfg.json"], QUIET, again=True)
    file = place.fetch(listing, "cfg.json", tmp_path)
    assert file.read_text() == "{}"

    file.write_text("[]")  # of the same size
    for other in (place, RemoteFolders(place.store)):
        assert other.fetch(listing, "cfg.json", tmp_path).read_text() == "{}"
    before = file.stat().st_ino
    assert place.fetch(listing, "cfg.json", tmp_path).stat().st_ino == before


def test_what_is_missing_is_said_in_words(bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NeuronMapError) as refused:
        list(RemoteFolders(bucket().replace("://zoo/", "://nowhere/")).names())
    assert refused.value.hint in ("Does the bucket exist?", "Does the container exist, and is it in this account?")
    assert "<" not in refused.value.message


def test_an_sae_is_pushed_and_pulled_by_commands(
    bucket: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket()
    architecture = get_architecture("relu")
    sae = architecture(12, 48)
    sae.initialise(torch.zeros(12), torch.Generator().manual_seed(0))
    hook = {"name": "layers.2:out", "layer": 2, "component": "residual", "module_path": "layers.2", "side": "out"}
    about = {"model": {"name": "org/tiny", "hidden_size": 12}, "hook": {**hook, "width": 12}, "seed": 1}
    save_bundle(sae, tmp_path / "made", BundleMetadata.from_dict(about))
    SAEModelHub().register(tmp_path / "made", name="mine")

    def typed(*arguments: str) -> dict:
        done = CliRunner().invoke(app, ["sae", *arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    pushed = typed("push", "mine", "--to", place)["pushed"]
    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "other"))
    assert typed("pull", "--from", place)["there"] == ["mine"]
    pulled = typed("pull", "mine", "--from", place)["pulled"]
    assert [one["sae"] for one in pushed] == [one["sae"] for one in pulled] == ["mine"]
    assert Path(pulled[0]["path"]).is_relative_to(tmp_path / "other")
    weights = "sae_weights.safetensors"
    assert Path(pulled[0]["path"], weights).read_bytes() == (tmp_path / "made" / weights).read_bytes()

    wrong = CliRunner().invoke(app, ["sae", "pull", "--from", place.replace("://zoo/", "://nowhere/")])
    assert wrong.exit_code not in (0, 1)
    assert "exist" in wrong.output
    assert "Traceback" not in wrong.output


def test_activations_go_into_it_and_are_read_by_another_host(
    bucket: Callable[[], str], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket()
    (tmp_path / "text.txt").write_text("\n\n".join(f"The river number {at} is long and wide." for at in range(400)))
    command = ["sae", "harvest", "--model", model_folder, "--layer", "1", "--text", tmp_path / "text.txt", "--json"]
    command += ["--tokens", "4000", "--set", "heldout_tokens=1000", "--set", "context_length=32", "--store", place]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    for said in json.loads(done.stdout)["stores"]:
        made = ActivationStore.open(Path(said["path"]))
        found = RemoteActivationStore.find(RemoteFolders(place), made.path.name, tmp_path / "cache")
        assert found is not None
        assert (found.digest, found.num_rows) == (made.digest, made.num_rows)
        assert not list((tmp_path / "cache").rglob(f"{made.path.name}/*.bin"))  # none before it is read
        assert torch.equal(found.read(0, made.num_rows), made.read(0, made.num_rows))


def test_a_key_that_is_not_the_right_one(azure: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    place = azure()
    wrong = base64.b64encode(b"another key").decode()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", wrong)
    store = Bucket(place)
    for call in (
        lambda: store.put("a", [b"x"]),
        lambda: store.put("a", [bytes(17 << 20)]),
        lambda: store.get("a"),
        lambda: store.size("a"),
        lambda: store.delete("a"),
        lambda: list(store.list()),
        lambda: store.move("a", "b"),
    ):
        with pytest.raises(UnwritablePathError, match="No permission") as refused:
            call()
        assert "AZURE_STORAGE_ACCOUNT_KEY" in refused.value.hint
        assert "AWS" not in refused.value.hint
        assert wrong not in refused.value.message
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "no base64!")
    with pytest.raises(ConfigError, match="Invalid Access Key") as refused:
        Bucket(place)
    assert "AZURE_STORAGE_ACCOUNT_KEY" in refused.value.hint


def test_a_copy_that_takes_its_time_is_waited_for(azure: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure answers before it has copied, and needs the source until then. Azurite copies at once, so the copy is put off here."""
    import obstore

    store, copying, copies = Bucket(azure()), obstore.copy, []
    store.put("source", [b"some bytes"])

    def put_off(on: object, source: str, target: str) -> None:
        obstore.put(on, target, b"")  # the blob is there, and has no bytes yet
        copies.append(threading.Timer(0.5, copying, (on, source, target)))
        copies[-1].start()

    monkeypatch.setattr(obstore, "copy", put_off)
    store.move("source", "target")
    for copy in copies:
        copy.join()
    assert b"".join(store.get("target")) == b"some bytes"
    assert store.size("source") is None

    store.put("again", [b"some bytes"])
    monkeypatch.setattr(obstore, "copy", lambda on, source, target: None)  # lost
    monkeypatch.setattr(buckets, "_LONGEST_COPY", 0.2)
    with pytest.raises(ResourceError, match="has not arrived") as lost:
        store.move("again", "never")
    assert "still there" in lost.value.hint
    assert store.size("again") == 10
