"""Concepts by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuronmap.concepts import get_concepts, list_concepts
from neuronmap.errors import ConfigError, PluginError
from neuronmap.plugins import hookimpl, manager


def test_a_family_gives_all_its_variants_and_a_full_name_one() -> None:
    assert [concept.name for concept in get_concepts("grammatical_number")] == [
        "grammatical_number:lexical",
        "grammatical_number:subject",
        "grammatical_number:attractor",
    ]
    assert [concept.name for concept in get_concepts("grammatical_number:subject")] == ["grammatical_number:subject"]
    assert [concept.name for concept in get_concepts("tense")] == ["tense"]


def test_names_are_listed_once() -> None:
    names = [concept.name for concept in list_concepts()]
    assert len(names) == len(set(names))


def test_an_unknown_name_gives_near_ones_and_the_list() -> None:
    with pytest.raises(ConfigError, match="syntactic_role:thematic") as error:
        get_concepts("gramatical_number")
    assert "grammatical_number" in error.value.hint
    with pytest.raises(ConfigError) as error:
        get_concepts("zzz")
    assert ".yaml" in error.value.hint


def test_a_path_gives_the_concept_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "warmth.yaml"
    nouns = ("sea", "air", "sand", "wind", "rock", "roof", "wall", "tea")
    lines = ["positive:", *(f"  - the {noun} felt hot today" for noun in nouns)]
    lines += ["negative:", *(f"  - the {noun} felt cold today" for noun in nouns)]
    path.write_text("\n".join(lines))
    (concept,) = get_concepts(str(path))
    assert concept.name == "warmth"
    assert len(concept.generate(100, 0).items) == 16
    with pytest.raises(ConfigError, match="No such file"):
        get_concepts(str(tmp_path / "missing.json"))


def test_plugins_bring_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    tense = get_concepts("tense")[0]
    brought: list[Any] = [replace(tense, name="aspect:perfect")]

    class Plugin:
        @hookimpl
        def neuronmap_concepts(self) -> list[Any]:
            return brought

    plugin = Plugin()
    manager().register(plugin)
    try:
        assert [concept.name for concept in get_concepts("aspect")] == ["aspect:perfect"]
        assert list_concepts()[-1].name == "aspect:perfect"
        brought.append(tense)
        with pytest.raises(PluginError, match="'tense'; that name is taken"):
            list_concepts()
        brought[:] = ["tense"]
        with pytest.raises(PluginError, match="Concept is wanted"):
            get_concepts("tense")
    finally:
        manager().unregister(plugin)


def test_the_room_loads_no_heavy_library() -> None:
    code = (
        "import sys; from neuronmap.concepts import list_concepts; list_concepts()[0].generate(400, 0);"
        "print(sorted({'torch', 'numpy', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
