"""Sources: paths as they are, the hub by way of its own cache, and the registry's seam."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from layouts import sparsify_folder

from neuronmap.errors import InputError, ModelOfflineError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import import_sae
from neuronmap.hub.formats.sources import fetch
from neuronmap.progress import SilentProgress
from neuronmap.saes.metadata import read_bundle_info

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, as ``huggingface_hub`` lays it out, with one repository at one commit."""
    from huggingface_hub import constants

    folder = tmp_path / "hf"
    repo = folder / "models--org--saes"
    snapshot = repo / "snapshots" / COMMIT
    sparsify_folder(snapshot, "layers.3")
    sparsify_folder(snapshot, "layers.10")
    blobs = repo / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(snapshot.rglob("*"))):
        if file.is_file():  # the cache holds links
            os.rename(file, blobs / str(number))
            file.symlink_to(blobs / str(number))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("source", ["hf://org/saes/layers.3", "org/saes/layers.3", f"hf://org/saes/layers.3@{COMMIT}"])
def test_a_repository_in_the_cache(source: str, cache: Path, hub: SAEModelHub) -> None:
    found = import_sae(source, prove=False, hub=hub, progress=SilentProgress())
    metadata = read_bundle_info(found.entry.path).metadata
    assert metadata is not None
    origin = metadata.origin or {}
    assert (origin["source"], origin["revision"]) == ("hf://org/saes/layers.3", COMMIT)
    assert origin["files"]["sae.safetensors"].startswith("sha256:")
    assert not found.entry.path.joinpath("sae_weights.safetensors").is_symlink()


def test_several_in_a_repository(cache: Path, hub: SAEModelHub) -> None:
    with pytest.raises(InputError, match="2 to choose from"):
        import_sae("hf://org/saes", prove=False, hub=hub, progress=SilentProgress())
    assert import_sae("hf://org/saes", layer=10, prove=False, hub=hub, progress=SilentProgress()).entry.layer == 10


def test_offline_is_said_plainly(cache: Path) -> None:
    with pytest.raises(
        ModelOfflineError, match="org/other is not in this machine's cache, and the Hugging Face hub cannot be reached"
    ):
        fetch("hf://org/other")


def test_a_folder_that_the_repository_lacks(cache: Path) -> None:
    with pytest.raises(InputError, match=f"org/saes has no 'layers.4' at commit {COMMIT}"):
        fetch("hf://org/saes/layers.4")


@pytest.mark.parametrize(("source", "said"), [
    ("./nothing-here", "does not exist"),
    ("/nothing/here", "does not exist"),
    ("not a source", "neither a folder or file here nor a repository"),
    ("zoo:org/demo@1", "lies in a zoo"),
])  # fmt: skip
def test_what_is_no_source(source: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fetch(source)


def test_a_path_is_called_by_its_last_part(tmp_path: Path) -> None:
    """A machine's folders do not go into a bundle that may be shared."""
    assert fetch(sparsify_folder(tmp_path / "mine")).origin == "mine"
