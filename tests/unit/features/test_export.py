"""Exports hold what the store holds, in every format; nothing of a text gets out of its place; a target is whole or not there."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_stores import FIRED, HOSTILE_LABEL, hostile_store, small_store

from neuronmap.errors import AlreadyExistsError, ConfigError, InputError, UnwritablePathError
from neuronmap.features.export import FORMATS, NeuronpediaNames, chosen_features, export_features, parse_features
from neuronmap.features.export import neuronpedia as neuronpedia_module
from neuronmap.features.export.html import _histogram
from neuronmap.features.export.records import public_name
from neuronmap.features.storage.conditions import COLUMNS
from neuronmap.features.storage.schema import TABLES
from neuronmap.features.storage.store import FeatureStore

NAMES = NeuronpediaNames("tiny-1.5", "made-up", 2, release="a-release", author="somebody")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(hostile_store(tmp_path / "analysis"))


# --- which features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", [3]),
        ("1,2,5-7", [1, 2, 5, 6, 7]),
        (" 4 , 2 - 3 ", [4, 2, 3]),
        ("5,3-6,5", [5, 3, 4, 6]),
        ("7-7", [7]),
    ],
)
def test_numbers_and_ranges(text: str, expected: list[int], tmp_path: Path) -> None:
    assert parse_features(text, FeatureStore.open(small_store(tmp_path / "small"))) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is neither the number of a feature nor a range"),
        ("1,,2", "'' is neither"),
        ("1;2", "'1;2' is neither"),
        ("-1", "'-1' is neither"),
        ("1.5", "'1.5' is neither"),
        ("all", "'all' is neither"),
        ("9" * 5000, "is neither"),
        ("5-3", "the range 5-3 runs backwards"),
        ("8", r"(?s)There is no feature 8: features are 0 to 7\..*nearest one that is alive is 7"),
        ("0-999999999999", "(?s)There is no feature 999999999999.*nearest one that is alive is 7"),
    ],
)
def test_what_is_no_selection_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        parse_features(text, FeatureStore.open(small_store(tmp_path / "small")))


def test_without_numbers_what_fired_is_chosen(tmp_path: Path) -> None:
    store = FeatureStore.open(small_store(tmp_path / "small"))
    fired = [0, 1, 3, 4, 6, 7]
    assert chosen_features(store) == fired
    assert chosen_features(store, "5,2") == [5, 2]  # named ones whether they fired or not
    assert chosen_features(store, top=3) == chosen_features(store, top=3, by="max") == [1, 6, 0]
    assert chosen_features(store, by="density") == [4, 0, 1, 6, 7, 3]
    assert chosen_features(store, top=2, by="score") == [0, 1]
    assert chosen_features(store, top=100) == [1, 6, 0, 7, 4, 3]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"features": "1", "top": 3}, "--features and --top exclude"),
        ({"features": "1", "by": "max"}, "--features and --by exclude"),
        ({"top": 3, "by": "size"}, "allowed are max, density, score"),
        ({"top": 0}, "at least 1 feature"),
    ],
)
def test_choices_that_contradict_themselves(store: FeatureStore, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        chosen_features(store, **given)


def test_a_score_needs_hints_and_a_choice_firings(tmp_path: Path) -> None:
    bare = FeatureStore.open(small_store(tmp_path / "bare", without=("hints",)))
    with pytest.raises(ConfigError, match="no hints"):
        chosen_features(bare, top=3, by="score")
    silent = small_store(tmp_path / "silent")
    store = FeatureStore.open(silent)
    store.queries._table = store.queries._table.slice(2, 1)  # a feature that never fired
    with pytest.raises(InputError, match="None of the 8 features fired"):
        chosen_features(store)


# --- JSON and tables ---------------------------------------------------------------------------------------------


def test_json_holds_everything_of_a_feature(store: FeatureStore, tmp_path: Path) -> None:
    document = json.loads(export_features(store, [2, 0], "json", tmp_path / "a.json", title="made/up").read_text())
    assert (document["schema"], document["sae"], document["key"]) == ("neuronmap/features/1", "made/up", store.key)
    assert document["rows"] == 66
    assert document["facts"] == store.facts
    assert [feature["feature"] for feature in document["features"]] == [2, 0]
    one, record = document["features"][1], store.feature(0)
    for table in ("features", "hints", "details"):
        for column in TABLES[table].columns:
            assert column.name in one, column.name
    assert one["density"] == record.row["density"]
    assert one["label"] == HOSTILE_LABEL
    assert one["token_entropy"] is None  # NaN, which JSON has not
    assert one["neighbours"][1] == {"feature": 2, "cosine": None}
    assert one["histogram"] == record.details["histogram"]
    assert [entry["text"] for entry in one["tokens"]] == ["</script><b>", "\r", "\ufffd"]
    assert [entry["value"] for entry in one["promoted"]] == [2.0, 1.0, -6.0]
    assert one["previous_tokens"] == one["input_tokens"] == []


def test_json_examples_are_the_stores(store: FeatureStore, tmp_path: Path) -> None:
    one = json.loads(export_features(store, [0], "json", tmp_path / "a.json").read_text())["features"][0]
    examples = store.examples(0)
    assert len(one["examples"]) == len(examples) == 10
    for found, example in zip(one["examples"], examples, strict=True):
        pieces = example.pieces()
        for name in ("kind", "group", "rank", "sequence", "position"):
            assert found[name] == getattr(example, name)
        assert found["activation"] == example.activation
        assert found["document"] == '<a>"b".txt'
        assert "".join(found["pieces"]) == example.text
        assert len(found["pieces"]) == len(found["activations"]) == len(pieces)
        assert pieces[found["peak"]].start <= example.peak < pieces[found["peak"]].stop
        if example.activation:
            assert found["activations"][found["peak"]] == max(example.activations[list(_tokens(pieces[found["peak"]]))])
    assert any("é" in found["pieces"] for found in one["examples"])  # tokens 5 and 6 are one character, so one piece


def _tokens(piece: Any) -> range:
    return range(piece.start, piece.stop)


def test_jsonl_is_the_same_line_by_line(store: FeatureStore, tmp_path: Path) -> None:
    whole = json.loads(export_features(store, [0, 1, 2], "json", tmp_path / "a.json").read_text())["features"]
    lines = export_features(store, [0, 1, 2], "jsonl", tmp_path / "a.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == whole


@pytest.mark.parametrize("without", [(), ("hints",)])
@pytest.mark.parametrize("features", [[2, 0], [*range(40)]])
def test_csv_and_parquet_hold_one_row_a_feature(tmp_path: Path, without: tuple[str, ...], features: list[int]) -> None:
    store = FeatureStore.open(hostile_store(tmp_path / "many", features=40, without=without))
    table = pq.read_table(export_features(store, features, "parquet", tmp_path / "a.parquet"))
    assert table.column_names == list(COLUMNS)
    assert table["feature"].to_pylist() == features
    expected = [dict(store.queries.select(limit=None)[feature]) for feature in features]
    assert str(table.to_pylist()) == str(expected)  # as text, since NaN is not NaN
    content = export_features(store, features, "csv", tmp_path / "a.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert list(rows[0]) == list(COLUMNS)
    for row, want in zip(rows, expected, strict=True):
        for name, value in want.items():
            missing = value is None or (isinstance(value, float) and math.isnan(value))
            assert row[name] == ("" if missing else str(value)), name


def test_csv_opens_in_pandas(store: FeatureStore, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(export_features(store, [0, 1, 2], "csv", tmp_path / "a.csv"))
    assert frame["feature"].tolist() == [0, 1, 2]
    assert frame["label"][0] == HOSTILE_LABEL
    assert frame["density"].tolist() == store.queries.select(limit=3).to_pandas()["density"].tolist()


# --- the page ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with attributes, text by article, and whether every tag is closed."""

    VOID = ("meta", "input", "rect", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.articles: list[str] = []
        self.scripts = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts += data
        elif "article" in self.open:
            self.articles[-1] += data


def page_of(store: FeatureStore, features: list[int], target: Path, title: str = "made/up") -> Page:
    page = Page(export_features(store, features, "html", target, title=title).read_text())
    assert page.open == []
    return page


def test_the_page_needs_nothing_else(store: FeatureStore, tmp_path: Path) -> None:
    page = page_of(store, [0, 1, 2], tmp_path / "a.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "img", "iframe", "object", "embed", "base", "source", "video", "audio", "image", "use"}
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "action", "data", "poster", "background", "xlink:href"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        if "href" in attributes:
            assert re.fullmatch(r"#f\d+", str(attributes["href"]))
        assert "url(" not in str(attributes.get("style", ""))
    text = (tmp_path / "a.html").read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "@media(prefers-color-scheme:dark)" in style
    assert not re.search(r"fetch|XMLHttp|import|http", page.scripts)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none';")


def test_the_policy_lets_only_the_pages_own_script_run(store: FeatureStore, tmp_path: Path) -> None:
    import base64
    import hashlib

    page = page_of(store, [0], tmp_path / "a.html")
    digest = base64.b64encode(hashlib.sha256(page.scripts.encode()).digest()).decode()
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}'" in str(policy)


def test_texts_stay_texts(store: FeatureStore, tmp_path: Path) -> None:
    page = page_of(store, [0, 1, 2], tmp_path / "a.html", title="<i>evil</i>")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "title" in {tag for tag, _ in page.tags}
    assert len(page.articles) == 3
    assert HOSTILE_LABEL in page.articles[0]
    assert "</script><b>" in page.articles[0]
    assert "&amp;" in page.articles[0]  # the token itself, not an escaped ampersand
    assert "token is </p>" in page.articles[0]
    assert "too few <firings>" in page.articles[2]
    assert "é" in page.articles[0]
    assert "↵" in page.articles[0]
    assert "\x00" not in (tmp_path / "a.html").read_text()
    assert "⟨s⟩" in page.articles[0]  # special tokens are marked
    assert "⟨C3⟩" in page.articles[0]  # half a character, alone


def test_an_article_a_feature_in_order_and_what_it_says(store: FeatureStore, tmp_path: Path) -> None:
    page = page_of(store, [2, 0, 1], tmp_path / "a.html")
    anchors = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert anchors == ["#f2", "#f0", "#f1"]
    rare, alive, never = page.articles
    assert "It never fired on 66 tokens; its density is below 0.06" in never
    assert "Promotes" in never  # the weights speak even so
    assert "15.152%" in alive
    for value in ("0.50 (0.40 to 0.60)", "0.25 (0.20 to 0.30)", "0.33 (0.30 to 0.40)"):
        assert value in alive
    for head in (
        "Strongest examples (2)",
        "firing distribution (5)",
        "At random, silent (1)",
        "Same token, silent (1)",
    ):
        assert head in alive
    assert "0.75" in rare
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(bars) == 1 + len(range(*_filled(store.feature(0).details["histogram"])))


def test_the_histogram_ends_at_the_largest_activation(store: FeatureStore, tmp_path: Path) -> None:
    """Its last bin's edge lies above it; the bins before it end at their edges."""
    record = store.feature(0)
    first, last = _filled(record.details["histogram"])
    largest = float(store.edges[last - 1] + store.edges[last]) / 2
    text = _histogram(store, record.details["histogram"], largest)
    assert f"Firings by activation, {store.edges[first]:.3g} to {largest:.3g}, both axes" in text
    ends = [float(end) for end in re.findall(r"<title>\S+ to (\S+):", text)]
    assert ends == [float(f"{end:.3g}") for end in [*store.edges[first + 1 : last], largest]]


def test_the_page_says_what_precision_is(store: FeatureStore, tmp_path: Path) -> None:
    page_of(store, [0], tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "an estimate for the whole text, not a count" in text
    assert "at the base rate of the whole text" in text


def _filled(counts: list[int]) -> tuple[int, int]:
    where = np.flatnonzero(counts)
    return int(where[0]), int(where[-1]) + 1


def test_shading_grows_with_the_activation_and_the_peak_is_marked(store: FeatureStore, tmp_path: Path) -> None:
    page = page_of(store, [0], tmp_path / "a.html")
    shades = {
        float(str(attributes["title"])): float(str(attributes["style"]).removeprefix("--a:"))
        for tag, attributes in page.tags
        if tag == "i"
    }
    values = sorted(shades)
    assert [shades[value] for value in values] == sorted(shades.values())
    assert shades[4.0] == pytest.approx(0.6)
    assert 0 < min(shades.values()) < 0.3
    marked = [float(str(a["title"])) for tag, a in page.tags if tag == "i" and a.get("class") == "p"]
    assert sorted(marked) == pytest.approx(sorted(np.float32(v) for v in FIRED[[0, 2, 4, 6, 8, 8, 9]]), rel=0.01)


def test_text_reads_on_the_darkest_shade_of_both_themes(store: FeatureStore, tmp_path: Path) -> None:
    text = export_features(store, [0], "html", tmp_path / "a.html").read_text()
    for theme in re.findall(r":root\{([^}]*)\}", text):
        values = dict(part.split(":") for part in theme.replace("\n", "").split(";"))
        ink, paper, soft = (_rgb(values[f"--{name}"]) for name in ("ink", "paper", "soft"))
        shade = [0.6 * float(a) + 0.4 * b for a, b in zip(values["--act"].split(","), paper, strict=True)]
        assert _contrast(ink, shade) >= 4.5
        assert _contrast(soft, paper) >= 4.5
    assert len(re.findall(r":root\{", text)) == 2


def _rgb(colour: str) -> list[float]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return [int(digits[at : at + 2], 16) for at in (0, 2, 4)]


def _contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2's ratio."""

    def light(colour: list[float]) -> float:
        linear = [(v / 255 / 12.92 if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_a_path_of_this_machine_is_not_published(store: FeatureStore, tmp_path: Path) -> None:
    assert "somebody" not in export_features(store, [0], "html", tmp_path / "a.html").read_text()
    assert public_name("/data/somebody/models/tiny") == "tiny"
    assert public_name("C:\\models\\tiny") == "tiny"
    assert public_name("org/model") == "org/model"
    assert public_name(None) == ""


# --- Neuronpedia -------------------------------------------------------------------------------------------------


def bundle(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Lines by file, as the importer reads them: its columns are those of the first line."""
    found = {}
    for file in sorted(folder.rglob("*.jsonl*")):
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert b"\\u0000" not in data
        assert b"\x00" not in data
        lines = [json.loads(line, parse_constant=_refuse) for line in data.decode().splitlines()]
        assert all(list(line) == list(lines[0]) for line in lines)
        found[file.relative_to(folder).as_posix()] = lines
    return found


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture
def files(store: FeatureStore, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return bundle(export_features(store, [0, 1, 2], "neuronpedia", tmp_path / "np", names=NAMES))


def test_the_bundle_has_the_importers_files_and_ids(files: dict[str, list[dict[str, Any]]]) -> None:
    root = "tiny-1.5/2-made-up/"
    assert list(files) == [
        root + name
        for name in (
            "activations/batch-0.jsonl.gz", "explanations/batch-0.jsonl.gz", "features/batch-0.jsonl.gz", "model.jsonl",
            "release.jsonl", "source.jsonl", "sourceset.jsonl",
        )
    ]  # fmt: skip
    release, model, sourceset, source = (
        files[f"{root}{name}.jsonl"] for name in ("release", "model", "sourceset", "source")
    )
    assert len(release) == len(model) == len(sourceset) == len(source) == 1
    assert re.fullmatch(r"[a-z][a-z0-9.-]*[a-z0-9]", model[0]["id"])
    assert source[0]["id"] == "2-made-up"
    assert source[0]["setName"] == sourceset[0]["name"] == "made-up"
    assert sourceset[0]["releaseName"] == release[0]["name"] == "a-release"
    assert (model[0]["layers"], model[0]["dimension"], model[0]["displayName"]) == (4, 32, "tiny")
    assert model[0]["owner"] == "somebody"
    assert source[0]["dataset"] == "made <up>"
    for head in (release, model, sourceset, source):
        assert head[0]["creatorId"] == "clkht01d40000jv08hvalcvly"
        assert head[0]["visibility"] in ("PUBLIC", "UNLISTED", "PRIVATE")


def test_features_of_the_bundle(store: FeatureStore, files: dict[str, list[dict[str, Any]]]) -> None:
    features = files["tiny-1.5/2-made-up/features/batch-0.jsonl.gz"]
    assert [line["index"] for line in features] == ["0", "1", "2"]
    for line in features:
        assert (line["modelId"], line["layer"], line["sourceSetName"]) == ("tiny-1.5", "2-made-up", "made-up")
    first, never, _ = features
    assert first["frac_nonzero"] == 10 / 66
    assert first["maxActApprox"] == 4.0
    assert sum(first["freq_hist_data_bar_heights"]) == 10
    assert len(first["freq_hist_data_bar_heights"]) == len(first["freq_hist_data_bar_values"])
    assert FIRED.min() <= first["freq_hist_data_bar_values"][0] * 2 ** (1 / 8)
    assert first["freq_hist_data_bar_values"] == sorted(first["freq_hist_data_bar_values"])
    assert first["logits_hist_data_bar_heights"] == [3, 0, 4]
    # bin 30 is z = -0.5 to -0.25; its centre with mean 1 and deviation 2
    assert first["logits_hist_data_bar_values"] == pytest.approx([1 - 0.75, 1 - 0.25, 1 + 0.25])
    assert first["pos_str"] == ["</script><b>", "\ufffd", "⟨9⟩"]
    assert first["neg_str"] == first["pos_str"][::-1]
    assert first["topkCosSimIndices"] == [1, 2]
    assert first["topkCosSimValues"] == [0.5, None]
    assert (never["frac_nonzero"], never["maxActApprox"], never["freq_hist_data_bar_heights"]) == (0.0, 0.0, [])


def test_activations_of_the_bundle(store: FeatureStore, files: dict[str, list[dict[str, Any]]]) -> None:
    lines = files["tiny-1.5/2-made-up/activations/batch-0.jsonl.gz"]
    assert len({line["id"] for line in lines}) == len(lines) == 2 + 5 + 1
    for line in lines:
        assert re.fullmatch(r"[a-z0-9]{25}", line["id"])
        assert len(line["tokens"]) == len(line["values"])
        assert line["maxValue"] == max(line["values"]) == line["values"][line["maxValueTokenIndex"]]
        assert line["minValue"] == min(line["values"])
    top = [line for line in lines if line["binContains"] == -1]
    assert {(line["index"], line["binMin"], line["binMax"]) for line in top} == {("0", -1, 4.0), ("2", -1, 0.75)}
    groups = [line for line in lines if line["binContains"] != -1]
    assert sum(line["binContains"] for line in groups) == pytest.approx(10 / 66)
    assert groups[0]["binMin"] == 0.0
    assert groups[-1]["binMax"] == 4.0
    for lower, upper in itertools.pairwise(groups):
        assert lower["binMax"] == upper["binMin"]
    for number, line in enumerate(groups):
        own = line["values"][line["qualifyingTokenIndex"]]
        assert own == pytest.approx(FIRED[2 * number], rel=1e-3)
        assert line["binMin"] < own <= line["binMax"]
        # the edges come from the histogram: within a bin, a factor 2**(1/4), of the firings' own
        assert line["binMax"] == pytest.approx(FIRED[2 * number + 1], rel=2**0.25 - 1)


def test_explanations_of_the_bundle(files: dict[str, list[dict[str, Any]]]) -> None:
    lines = files["tiny-1.5/2-made-up/explanations/batch-0.jsonl.gz"]
    assert [(line["index"], line["description"]) for line in lines] == [("0", HOSTILE_LABEL), ("2", "a\ufffdb")]
    assert len({line["id"] for line in lines}) == 2
    assert lines[0]["typeName"] is lines[0]["explanationModelName"] is None
    assert lines[0]["notes"] == "rule: token is </p>; F1 0.33 on held-out documents"


def test_a_bundle_is_cut_into_batches_and_has_the_same_bytes_each_time(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert neuronpedia_module.BATCH == 1024
    monkeypatch.setattr(neuronpedia_module, "BATCH", 2)
    folders = [export_features(store, [0, 1, 2, 3], "neuronpedia", tmp_path / name, names=NAMES) for name in ("a", "b")]
    found = bundle(folders[0])
    assert [line["index"] for line in found["tiny-1.5/2-made-up/features/batch-0.jsonl.gz"]] == ["0", "1"]
    assert [line["index"] for line in found["tiny-1.5/2-made-up/features/batch-1.jsonl.gz"]] == ["2", "3"]
    for file in folders[0].rglob("*.*"):
        if file.is_file():
            assert file.read_bytes() == (folders[1] / file.relative_to(folders[0])).read_bytes()


def test_ids_of_another_source_are_others(store: FeatureStore, tmp_path: Path) -> None:
    other = NeuronpediaNames("tiny-1.5", "made-up-2", 2, release="a", author="b")
    ids = [
        {line["id"] for name, lines in bundle(folder).items() if "activations" in name for line in lines}
        for folder in (
            export_features(store, [0], "neuronpedia", tmp_path / "a", names=NAMES),
            export_features(store, [0], "neuronpedia", tmp_path / "b", names=other),
        )
    ]
    assert ids[0].isdisjoint(ids[1])


@pytest.mark.parametrize(
    ("model", "source_set", "layer"),
    [("Tiny", "a", 0), ("1b", "a", 0), ("a", "a", 0), ("a" * 33, "a", 0), ("tiny-", "a", 0), ("t/m", "a", 0), ("tiny", "a__b", 0),
     ("tiny", "", 0), ("tiny", "a b", 0), ("tiny", "a", -1)],
)  # fmt: skip
def test_names_that_neuronpedia_cannot_have(model: str, source_set: str, layer: int) -> None:
    with pytest.raises(ConfigError):
        NeuronpediaNames(model, source_set, layer, release="r", author="a")


# --- the target --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(store: FeatureStore, tmp_path: Path, form: str) -> None:
    target = tmp_path / "deep" / "out"
    export_features(store, [0], form, target, names=NAMES)
    first = contents(target)
    with pytest.raises(AlreadyExistsError, match="exists already"):
        export_features(store, [1], form, target, names=NAMES)
    assert contents(target) == first
    export_features(store, [1], form, target, names=NAMES, overwrite=True)
    assert contents(target) != first
    assert sorted(path.name for path in target.parent.iterdir()) == ["out"]


def contents(target: Path) -> dict[str, bytes]:
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


def test_a_file_never_takes_the_place_of_a_folder_nor_the_other_way_round(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="a folder; it is left alone"):
        export_features(store, [0], "json", tmp_path / "folder", overwrite=True)
    with pytest.raises(AlreadyExistsError, match="a file; it is left alone"):
        export_features(store, [0], "neuronpedia", tmp_path / "file", names=NAMES, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UnwritablePathError):
        export_features(store, [0], "json", tmp_path / "file" / "below.json")


@pytest.mark.parametrize("form", FORMATS)
def test_a_writer_that_fails_leaves_what_was_there(
    store: FeatureStore, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = export_features(store, [0], form, tmp_path / "out" / "it", names=NAMES)
    before = contents(target)

    def fail(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureStore, "feature", fail)
    monkeypatch.setattr(FeatureStore, "check_feature", lambda self, feature: feature)
    monkeypatch.setattr("neuronmap.features.storage.queries.FeatureQueries.select", fail)
    with pytest.raises(KeyboardInterrupt):
        export_features(store, [2, 0], form, target, names=NAMES, overwrite=True)
    assert contents(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["it"]


_KILLED = """
import sys, time
from neuronmap.features.export import NeuronpediaNames, export_features
from neuronmap.features.storage.store import FeatureStore
feature = FeatureStore.feature
def slow(self, number):
    if number:
        print("begun", flush=True)
        time.sleep(60)
    return feature(self, number)
FeatureStore.feature = slow
names = NeuronpediaNames("tiny", "set", 2, release="r", author="a")
export_features(FeatureStore.open(sys.argv[1]), [0, 2], sys.argv[2], sys.argv[3], names=names)
"""


@pytest.mark.parametrize("form", ["json", "neuronpedia"])
def test_a_killed_writer_leaves_no_target_and_the_next_one_writes_it(
    store: FeatureStore, tmp_path: Path, form: str
) -> None:
    target = tmp_path / "out" / "it"
    command = [sys.executable, "-c", _KILLED, str(store.path), form, str(target)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    child.stdout.close()
    assert not target.exists()
    export_features(store, [0, 2], form, target, names=NAMES)
    assert target.exists()


@pytest.mark.parametrize(
    ("features", "form", "names", "error", "says"),
    [
        ([], "json", None, InputError, "nothing to export"),
        ([0, 4], "json", None, InputError, "no feature 4"),
        ([1, 0, 1], "csv", None, InputError, "Feature 1 was chosen twice"),
        ([0], "xml", None, ConfigError, "no format 'xml'; there are json, jsonl"),
        ([0], "neuronpedia", None, ConfigError, "needs names"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    store: FeatureStore, tmp_path: Path, features: list[int], form: str, names: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        export_features(store, features, form, tmp_path / "out" / "it", names=names)
    assert not (tmp_path / "out").exists()


def test_a_store_without_hints_map_and_lens_is_exported_too(tmp_path: Path) -> None:
    store = FeatureStore.open(hostile_store(tmp_path / "bare", without=("hints",)))
    for form in FORMATS:
        assert export_features(store, [0, 1, 2], form, tmp_path / form, names=NAMES).exists()
    assert not [name for name in bundle(tmp_path / "neuronpedia") if "explanations" in name]


def test_reading_and_writing_loads_no_torch() -> None:
    program = "import neuronmap.features.export, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0
