"""Which formats there are, where they look, and what a plug-in adds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from layouts import sparsify_folder, values, write_tensors

from neuronmap import plugins
from neuronmap.errors import PluginError
from neuronmap.hub.formats import Candidate, Format, detect, list_formats
from neuronmap.hub.formats.registry import _formats


class Shoebox(Format):
    """A format of a plug-in."""

    name: ClassVar[str] = "shoebox"
    title: ClassVar[str] = "A file called shoebox.safetensors"

    def sniff(self, path: Path) -> list[Candidate]:
        """One file."""
        return (
            [Candidate(self.name, "shoebox", path / "shoebox.safetensors")]
            if (path / "shoebox.safetensors").is_file()
            else []
        )


@pytest.fixture
def plugin() -> Iterator[Any]:
    """Register a plug-in for one test."""
    added: list[Any] = []

    def add(parts: list[Any]) -> None:
        class Plugin:
            @plugins.hookimpl
            def neuronmap_formats(self) -> list[Any]:
                return parts

        added.append(Plugin())
        plugins.manager().register(added[-1])
        _formats.cache_clear()

    yield add
    for one in added:
        plugins.manager().unregister(one)
    _formats.cache_clear()


def test_a_plug_in_adds_a_format(tmp_path: Path, plugin: Any) -> None:
    plugin([Shoebox()])
    write_tensors(tmp_path / "shoebox.safetensors", {"a": values(2, 2)})
    assert [one.format for one in detect(tmp_path)] == ["shoebox"]
    assert list_formats()[-1].name == "shoebox"


@pytest.mark.parametrize(
    ("part", "said"),
    [(object(), "is not an object of a subclass"), (type("Twice", (Shoebox,), {"name": "sparsify"})(), "Two formats")],
)
def test_a_plug_in_that_is_wrong(part: Any, said: str, plugin: Any) -> None:
    plugin([part])
    with pytest.raises(PluginError, match=said):
        list_formats()


def test_hidden_folders_and_what_lies_beside_weights_are_passed_over(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run")
    sparsify_folder(tmp_path / ".trash")
    sparsify_folder(tmp_path / "run" / "layers.3" / "older")
    assert [one.name for one in detect(tmp_path)] == ["run/layers.3"]


def test_names_are_unique(tmp_path: Path) -> None:
    for part in ("a", "b"):
        sparsify_folder(tmp_path / part)
    assert [one.name for one in detect(tmp_path)] == ["a/layers.3", "b/layers.3"]


def test_listing_loads_no_torch() -> None:
    program = (
        "import sys; from neuronmap.hub.formats import list_formats; list_formats(); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "False"
