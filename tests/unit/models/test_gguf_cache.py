"""The cache of dequantised models, without a real GGUF."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from neuronmap.errors import DiskSpaceError
from neuronmap.models import gguf
from neuronmap.paths import cache_folder, write_json
from neuronmap.progress import SilentProgress


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that starts as a GGUF does; its size is not looked into."""
    monkeypatch.setattr(gguf, "_float32_bytes", lambda _file: 100)
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF and more")
    return path


def writes(content: str) -> object:
    return lambda _file, folder, _progress: (folder / "model.safetensors").write_text(content)


def test_one_conversion_a_content(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_convert", writes("first"))
    folder, digest = gguf.dequantised_folder(file, SilentProgress())
    monkeypatch.setattr(gguf, "_convert", writes("second"))
    assert gguf.dequantised_folder(file, SilentProgress()) == (folder, digest)
    assert (folder / "model.safetensors").read_text() == "first"
    file.write_bytes(b"GGUF and other things")
    other, other_digest = gguf.dequantised_folder(file, SilentProgress())
    assert other != folder
    assert other_digest != digest
    assert (other / "model.safetensors").read_text() == "second"


def test_another_process_may_be_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_convert", writes("theirs"))
    folder, digest = gguf.dequantised_folder(file, SilentProgress())
    finished = folder.with_name("finished")
    folder.rename(finished)

    def overtaken(_file: Path, staging: Path, _progress: object) -> None:
        (staging / "model.safetensors").write_text("ours")
        shutil.copytree(finished, folder)

    monkeypatch.setattr(gguf, "_convert", overtaken)
    assert gguf.dequantised_folder(file, SilentProgress()) == (folder, digest)
    assert (folder / "model.safetensors").read_text() == "theirs"
    assert not list(cache_folder("models").glob(".staging-*"))


def test_disk_space_is_checked_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_float32_bytes", lambda _file: 1 << 60)
    with pytest.raises(DiskSpaceError, match=r"dequantised weights of small\.gguf need"):
        gguf.dequantised_folder(file, SilentProgress())
    monkeypatch.setattr(gguf, "_float32_bytes", lambda _file: 100)

    def full(_file: Path, staging: Path, _progress: object) -> None:
        write_json(staging / "part.json", {})
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "_convert", full)
    with pytest.raises(DiskSpaceError, match="No space left while writing"):
        gguf.dequantised_folder(file, SilentProgress())
    assert list(cache_folder("models").iterdir()) == []
