"""Concepts of the user: files and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuronmap.concepts import (
    SPLITS,
    Concept,
    concept_from_file,
    concept_from_items,
    concept_from_texts,
    concept_schema,
)
from neuronmap.errors import ConfigError

NOUNS = ("sea", "air", "sand", "wind", "rock", "roof", "wall", "tea", "lake", "bath", "soup", "stone")
WARM = [f"the {noun} felt hot today" for noun in NOUNS]
COLD = [f"the {noun} felt cold today" for noun in NOUNS]


def items() -> list[dict[str, Any]]:
    return [
        {
            "text": f"{opening} {noun} [[felt]] {word}",
            "label": label,
            "cluster": noun,
            "pair": f"{noun} {opening}",
            "condition": opening,
            "factors": {"opening": opening},
        }
        for noun in NOUNS
        for opening in ("the", "some")
        for label, word in (("warm", "hot"), ("cool", "cold"))
    ]


def written(folder: Path, values: Any, name: str = "warmth.yaml") -> Path:
    path = folder / name
    path.write_text(json.dumps(values) if name.endswith(".json") else yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("name", ["warmth.yaml", "warmth.yml", "warmth.json"])
def test_two_lists_of_texts(tmp_path: Path, name: str) -> None:
    concept = concept_from_file(written(tmp_path, {"positive": WARM, "negative": COLD}, name))
    data = concept.generate(400, 0)
    assert (concept.name, concept.classes, concept.crossed) == ("warmth", ("negative", "positive"), None)
    assert {item.word for item in data.items} == {"today"}
    assert {item.label for item in data.items if "hot" in item.text} == {"positive"}
    assert all(set(data.counts(("label", "split"))) >= {(label, split)} for label in data.classes for split in SPLITS)
    assert any("only be found" in warning for warning in data.warnings)
    assert any("bag of words" in warning for warning in data.warnings)
    assert any("clusters" in warning for warning in data.warnings)


def test_items_with_everything(tmp_path: Path) -> None:
    values = {
        "name": "warmth:felt",
        "title": "Warmth",
        "contrast": "Is it warm?",
        "classes": ["cool", "warm"],
        "items": items(),
        "outcome": {"cool": [" cold"], "warm": [" hot"]},
    }
    concept = concept_from_file(written(tmp_path, values))
    data = concept.generate(400, 0)
    assert (concept.name, concept.family, concept.title, concept.contrast) == (
        "warmth:felt",
        "warmth",
        "Warmth",
        "Is it warm?",
    )
    assert (concept.classes, concept.crossed) == (("cool", "warm"), "condition")
    assert concept.nuisances == ("condition", "opening")
    assert concept.outcome is not None
    assert concept.outcome.continuations == {"cool": (" cold",), "warm": (" hot",)}
    assert concept.read_rule == "at the marked words"
    assert {item.word for item in data.items} == {"felt"}
    assert not any("[[" in item.text for item in data.items)
    assert data.conditions == ("the", "some")
    assert data.digest == concept.generate(400, 0).digest
    assert not concept.surface


def test_python_and_file_give_the_same_data(tmp_path: Path) -> None:
    from_python = concept_from_texts("warmth", WARM, COLD).generate(100, 2)
    from_file = concept_from_file(written(tmp_path, {"positive": WARM, "negative": COLD})).generate(100, 2)
    assert from_python == from_file
    assert concept_from_items("warmth", items()).generate(100, 2).items == (
        concept_from_file(written(tmp_path, {"items": items()})).generate(100, 2).items
    )


def test_spans_and_words_to_read() -> None:
    spans = [{**item, "text": item["text"].replace("[[felt]]", "felt")} for item in items()]
    spans = [{**item, "span": [item["text"].index("felt"), item["text"].index("felt") + 4]} for item in spans]
    marked = concept_from_items("warmth", items())
    assert concept_from_items("warmth", spans).generate(100, 0).items == marked.generate(100, 0).items
    by_word = concept_from_texts("warmth", WARM, COLD, read="felt")
    assert {item.word for item in by_word.generate(100, 0).items} == {"felt"}
    assert by_word.read_rule == "at the last 'felt' of the text"
    by_end = concept_from_texts("warmth", [f"{text}.  " for text in WARM], COLD)
    assert {item.word for item in by_end.generate(100, 0).items} == {"today.", "today"}
    assert by_end.surface


def test_fewer_items_than_there_are() -> None:
    data = concept_from_items("warmth", items()).generate(24, 0)
    assert len(data.items) == pytest.approx(24, abs=8)
    assert set(data.counts(("label", "split")).values()) != {0}


def test_wanted_counts_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="items = 0"):
        concept_from_items("warmth", items()).generate(0, 0)


def changed(**changes: Any) -> list[dict[str, Any]]:
    """Items with something changed in the third one; None takes a key away."""
    made = items()
    made[2] = {key: value for key, value in {**made[2], **changes}.items() if value is not None}
    return made


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"items": changed(lable="warm")}, "items[2] has an unknown key 'lable'; keys: text, label"),
        ({"items": changed(label=None)}, "items[2].label is missing"),
        ({"items": changed(label=False)}, "items[2].label = 'False'"),
        ({"items": changed(label=False)}, "into quotes"),
        ({"items": changed(text=" ")}, "items[2]: the text is empty"),
        ({"items": changed(text="the [[a]] [[b]]")}, "items[2]: 2 places are marked"),
        ({"items": changed(span=[0, 3])}, "items[2]: it has both a span and a mark"),
        ({"items": changed(text="the sea", span=[4, 9])}, "items[2]: span [4, 9] lies outside the text (7 characters)"),
        ({"items": changed(text="the sea", span=[3, 4])}, "items[2]: span [3, 4] holds only spaces"),
        ({"items": changed(text="the [[ ]] sea")}, "items[2]: the mark [[ ]] holds only spaces"),
        ({"items": changed(condition=None)}, "items[2] has no condition"),
        ({"items": changed(factors={"other": "x"})}, "items[2].factors has ['other'], items[0].factors ['opening']"),
        ({"items": changed(factors={"opening": 3})}, "items[2].factors.opening = '3'"),
        ({"items": items(), "classes": ["cool", "hot"]}, "items[0].label = 'warm' is no class; classes: cool, hot"),
        ({"items": items(), "classes": ["cool"]}, "at least 2 different ones"),
        ({"items": items(), "positive": WARM}, "'items' stands beside"),
        ({"items": items()[::2]}, "1 class (warm)"),
        ({"items": []}, "0 items"),
        ({"items": "the sea"}, "items = 'the sea'"),
        ({"items": items(), "outcome": {"warm": [" hot"]}}, "every class needs some: ['warm', 'cool']"),
        ({"positive": WARM}, "texts are missing"),
        ({"positive": WARM, "negative": COLD, "classes": ["a", "b", "c"]}, "name the negative one first"),
        ({"positive": WARM, "negative": COLD, "read": "felled"}, "negative[0]: the word 'felled'"),
        ({"positive": WARM[:3], "negative": COLD[:3]}, "6 items; at least 16"),
        ({"positive": WARM * 4, "negative": COLD[:2]}, "Class 'negative' has no items in calibration"),
        ({"positive": WARM, "negative": WARM}, "texts have two labels"),
        ({"positive": [f"{n} hot" for n in NOUNS], "negative": [f"{n} cold" for n in NOUNS], "read": "sea"}, "positive[1]: the word 'sea'"),
        ({"positive": [f"hot{n}" for n in NOUNS], "negative": [f"cold{n}" for n in NOUNS]}, "at its very beginning"),
        ({"positive": WARM, "negative": COLD, "neutral": []}, "the top level has an unknown key 'neutral'; keys: name, title"),
        ({"positive": WARM, "negative": COLD, "name": "two words"}, "name = 'two words'"),
    ],
)  # fmt: skip
def test_faults_name_their_place(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ConfigError) as error:
        concept_from_file(path)
    assert str(path) in error.value.message
    assert words in error.value.message


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    faulty = items()
    faulty[0]["lable"] = "x"
    faulty[1]["text"] = 3
    del faulty[2]["label"]
    with pytest.raises(ConfigError) as error:
        concept_from_file(written(tmp_path, {"items": faulty, "colour": "red"}))
    assert error.value.message.count("\n  - ") == 4


def test_long_lists_of_faults_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"and 4 more"):
        concept_from_texts("warmth", [""] * 12, [" "] * 12)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "positive: [", "is not YAML"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "is not YAML"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "holds list; a mapping"),
        ("a.yaml", "", "holds NoneType"),
        ("a.yaml", "1: 2", "1"),
    ],
)
def test_files_that_are_no_concept(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        concept_from_file(tmp_path / name)
    assert words in error.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"positive: ['\xe9']")
    with pytest.raises(ConfigError, match="UTF-8"):
        concept_from_file(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="No such file"):
        concept_from_file(tmp_path / "missing.yaml")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        concept_from_file(tmp_path / "huge.json")


def test_the_default_name_is_the_file_s(tmp_path: Path) -> None:
    assert (
        concept_from_file(written(tmp_path, {"positive": WARM, "negative": COLD}, "my warmth.yaml")).name == "my-warmth"
    )


def test_the_schema_is_published() -> None:
    schema = concept_schema()
    assert set(schema["properties"]) >= {"name", "positive", "negative", "items", "classes", "read", "outcome"}
    assert schema["additionalProperties"] is False
    assert all(part.get("description") for part in schema["properties"].values())


def test_the_example_of_the_guide_works(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "how-to" / "write-a-concept.md").read_text()
    examples = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    assert examples
    for index, text in enumerate(examples):
        path = tmp_path / f"example-{index}.yaml"
        path.write_text(text)
        concept: Concept = concept_from_file(path)
        assert concept.generate(400, 0).items
