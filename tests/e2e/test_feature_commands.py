"""Analyse, find, export, steer and compare as a user types it, and every way to get it wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuronmap import SAEModelHub
from neuronmap.features import FeatureStore
from neuronmap.hub.analyses import list_analyses


def store_of(name: str = "first") -> FeatureStore:
    return FeatureStore.open(list_analyses(SAEModelHub().get(name))[0].path, verify=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store but those that say when it was made."""
    timed = ("manifest.json", "verified.json")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in timed}


# --- analyze -----------------------------------------------------------------------------------------------------


def test_analyze_reads_what_training_stored_and_keeps_the_store_with_the_sae(neuronmap, analysed):
    done = neuronmap("sae", "analyze", "first", "--no-map", "--replace", "--json")
    assert done.code == 0, done.err
    assert "Reading the stored activations" in done.err
    (analysis,) = done.document("sae analyze")["analyses"]
    store = store_of()
    assert Path(analysis["path"]) == store.path
    assert store.path.is_relative_to(SAEModelHub().get("first").path)
    assert (analysis["sae"], analysis["features"], analysis["key"]) == ("first", 64, store.key)
    assert analysis["rows"] == store.manifest["rows"] > 3500
    assert {"details.parquet", "examples.parquet", "hints.parquet", "promoted.parquet"} <= set(store.manifest["files"])
    assert store.facts["sae"]["id"] == "first"
    shown = neuronmap("sae", "analyze", "first", "--no-map")
    assert shown.code == 0
    assert f"{store.queries.count('status=alive')}" in shown.out
    assert "bytes a feature" in shown.out
    assert "neuronmap sae find-examples first" in shown.out


def test_an_analysis_that_is_there_is_not_made_again(neuronmap, analysed):
    folder = store_of().path
    before = (folder / "manifest.json").stat().st_mtime_ns
    again = neuronmap("sae", "analyze", "first", "--no-map")
    assert again.code == 0
    assert "there already" in again.err
    assert "--replace" in again.err
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    kept = content(folder)
    assert neuronmap("sae", "analyze", "first", "--no-map", "--replace").code == 0
    assert (folder / "manifest.json").stat().st_mtime_ns != before
    assert content(folder) == kept  # the same bytes, made anew
    assert [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")] == [folder.name]


def test_hints_that_were_left_out_are_made_when_they_are_wanted(neuronmap, analysed):
    neuronmap("sae", "analyze", "second", "--no-map", "--no-hints", "--no-lens")
    assert not {"hints", "promoted"} & store_of("second").tables.names
    failed = neuronmap("sae", "export-features", "second", "--top", "3", "--by", "score", "--json")
    assert (failed.code, failed.document("error")["error"]) == (2, "config")
    assert "Analyse again with hints" in failed.document("error")["hint"]
    again = neuronmap("sae", "analyze", "second", "--no-map")
    assert "made anew with them" in again.err
    assert {"hints", "promoted"} <= store_of("second").tables.names


def test_what_was_left_out_is_made_when_it_is_wanted_and_what_was_there_stays(neuronmap, analysed):
    done = neuronmap("sae", "analyze", "second", "--no-map", "--no-lens")
    assert done.code == 0, done.err
    assert store_of("second").facts["made_with"] == {"lens": False, "map": False, "hints": True}
    fewer = neuronmap("sae", "analyze", "second", "--no-map", "--no-lens", "--no-hints")
    assert "there already" in fewer.err
    more = neuronmap("sae", "analyze", "second", "--no-map", "--no-hints")
    assert "without direct logits; it is made anew" in more.err
    store = store_of("second")
    assert store.facts["made_with"] == {"lens": True, "map": False, "hints": True}  # the hints are not lost
    assert {"hints", "promoted"} <= store.tables.names
    assert "there already" in neuronmap("sae", "analyze", "second", "--no-map").err


def test_an_analysis_of_before_is_judged_by_its_tables(neuronmap, analysed):
    from neuronmap.features.storage.manifest import read_manifest, write_manifest

    def forget() -> None:
        folder = store_of().path
        manifest = read_manifest(folder)
        del manifest["facts"]["made_with"]
        write_manifest(folder, manifest, ())

    forget()
    assert "there already" in neuronmap("sae", "analyze", "first", "--no-map").err
    assert neuronmap("sae", "analyze", "first", "--no-map", "--no-lens", "--replace").code == 0
    forget()
    again = neuronmap("sae", "analyze", "first", "--no-map")
    assert "without direct logits; it is made anew" in again.err
    assert "promoted" in store_of().tables.names


def test_a_map_that_was_left_out_is_made_when_it_is_wanted(neuronmap, analysed, monkeypatch):
    """Where it cannot be made, that it was asked for is kept, and the pass does not run again each time."""
    from neuronmap.errors import MissingDependencyError
    from neuronmap.features.directions import map as maps

    def missing(*arguments, **options):
        raise MissingDependencyError("umap-learn is missing.")

    monkeypatch.setattr(maps, "feature_map", missing)
    wanted = neuronmap("sae", "analyze", "first")
    assert wanted.code == 0, wanted.err
    assert "without a map; it is made anew" in wanted.err
    assert "No map of the features" in wanted.err
    assert store_of().facts["made_with"]["map"] is True
    assert "there already" in neuronmap("sae", "analyze", "first").err


def test_other_text_and_settings_are_other_analyses_side_by_side(neuronmap, analysed, text_folder):
    text = text_folder / "30.txt"
    other = neuronmap("sae", "analyze", "first", "--text", text, "--no-map", "--set", "top_examples=2", "--json")
    assert other.code == 0, other.err
    assert "Running" in other.err  # there are no stored activations of it
    listed = neuronmap("sae", "list-analyses", "first", "--json").document("sae list-analyses")["analyses"]
    assert len(listed) == 2
    (analysis,) = other.document("sae analyze")["analyses"]
    assert listed[0]["key"] == analysis["key"]  # the newest first
    assert analysis["rows"] < 2000
    store = FeatureStore.open(analysis["path"], verify=True)
    assert max(example.rank for feature in range(64) for example in store.examples(feature, "top")) == 1
    assert neuronmap("sae", "analyze", "first", "--text", text, "--tokens", "200", "--no-map").code == 0
    name = Path(analysis["path"]).name
    found = neuronmap("sae", "find-examples", "first", "--features", "0", "--analysis", name[:6], "--json")
    assert found.document("sae find-examples")["analysis"] == analysis["key"]
    gone = neuronmap("sae", "list-analyses", "first", "--delete", name, "--json").document("sae list-analyses")
    assert (gone["deleted"], len(gone["analyses"])) == (name, 2)
    assert not Path(analysis["path"]).exists()
    short = neuronmap("sae", "list-analyses", "first", "--delete", listed[1]["name"][:6], "--json")
    assert (short.code, short.document("error")["hint"]) == (6, "Deleting needs the whole name.")


def test_several_saes_share_a_pass_and_get_what_each_gets_alone(neuronmap, analysed):
    folder = store_of().path
    alone = content(folder)
    shutil.rmtree(folder)
    both = neuronmap("sae", "analyze", "first", "second", "--no-map", "--json")
    assert both.code == 0, both.err
    assert [one["sae"] for one in both.document("sae analyze")["analyses"]] == ["first", "second"]
    assert content(folder) == alone
    assert store_of("second").facts["sae"]["id"] == "second"


def test_shards_merge_to_the_store_of_the_whole(neuronmap, analysed, tmp_path):
    folder = store_of().path
    whole = content(folder)
    shutil.rmtree(folder)
    options = ["--no-map", "--set", "block_tokens=256"]
    neuronmap("sae", "analyze", "first", *options)
    whole = content(store_of().path)
    key, path = store_of().key, store_of().path
    shutil.rmtree(path)
    for part in (3, 1, 2):
        done = neuronmap(
            "sae", "analyze", "first", *options, "--shard", f"{part}/3", "--folder", tmp_path / f"s{part}", "--json"
        )
        assert done.code == 0, done.err
        assert done.document("sae analyze") == {
            "schema": "neuronmap/sae.analyze/1",
            "analyses": [],
            "shard": str(tmp_path / f"s{part}"),
        }
    assert not path.exists()
    some = neuronmap(
        "sae", "analyze", "first", *options, "--merge", tmp_path / "s1", "--merge", tmp_path / "s2", "--json"
    )
    assert (some.code, some.document("error")["error"]) == (2, "input")
    assert "blocks are missing" in some.document("error")["message"]
    twice = neuronmap(
        "sae",
        "analyze",
        "first",
        *options,
        *(f"--merge={tmp_path / part}" for part in ("s1", "s2", "s3", "s2")),
        "--json",
    )
    assert (twice.code, twice.document("error")["hint"]) == (5, "Give each shard once.")
    merged = neuronmap(
        "sae", "analyze", "first", *options, *(f"--merge={tmp_path / part}" for part in ("s2", "s3", "s1"))
    )
    assert merged.code == 0, merged.err
    assert "Running" not in merged.err  # the rows are in the shards
    assert "Reading the stored activations" not in merged.err
    assert store_of().key == key
    assert content(path) == whole


def test_a_corrupted_shard_is_named(neuronmap, analysed, tmp_path):
    options = ["--no-map", "--set", "block_tokens=256"]
    for part in (1, 2):
        neuronmap("sae", "analyze", "first", *options, "--shard", f"{part}/2", "--folder", tmp_path / f"s{part}")
    merge = [*options, *(f"--merge={tmp_path / part}" for part in ("s1", "s2")), "--json"]
    largest = max(
        (file for file in (tmp_path / "s2").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    sound = largest.read_bytes()
    changed = bytearray(sound)
    changed[len(changed) // 2] ^= 0xFF
    for damage in (bytes(changed), sound[: len(sound) // 2], None):
        largest.write_bytes(damage) if damage is not None else largest.unlink()
        failed = neuronmap("sae", "analyze", "first", *merge)
        assert (failed.code, failed.document("error")["error"]) == (5, "damaged"), failed.err
        assert str(tmp_path / "s2") in failed.document("error")["message"]
    largest.write_bytes(sound)
    other = neuronmap("sae", "analyze", "second", *merge)
    assert (other.code, other.document("error")["error"]) == (5, "mismatch")
    assert "holds first, not second" in other.document("error")["message"]
    empty = neuronmap("sae", "analyze", "first", "--merge", tmp_path, "--json")
    assert empty.code == 2
    assert "holds no feature pass" in empty.document("error")["message"]
    assert neuronmap("sae", "analyze", "first", *merge).code == 0


def test_more_shards_than_blocks_merge_too(neuronmap, analysed, tmp_path):
    path = store_of().path
    whole = content(path)
    for part in (1, 2):  # the text is one block, so one part is empty
        done = neuronmap(
            "sae", "analyze", "first", "--no-map", "--shard", f"{part}/2", "--folder", tmp_path / f"s{part}"
        )
        assert done.code == 0, done.err
    merged = neuronmap("sae", "analyze", "first", "--no-map", *(f"--merge={tmp_path / part}" for part in ("s1", "s2")))
    assert merged.code == 0, merged.err
    assert content(path) == whole


_SLOW = """
import sys, time
from neuronmap.features.collect.state import FeatureState
from neuronmap.cli import app
update = FeatureState.update
def slow(self, *given, **options):
    update(self, *given, **options)
    print("block", file=sys.stderr, flush=True)
    time.sleep(0.3)
FeatureState.update = slow
app(sys.argv[1:])
"""


def test_ctrl_c_in_an_analysis_then_the_same_command(neuronmap, analysed):
    """A real process and a real SIGINT; what is continued ends as what was never stopped."""
    options = ["sae", "analyze", "first", "--no-map", "--set", "block_tokens=256"]
    assert neuronmap(*options).code == 0
    path = store_of().path
    whole = content(path)
    shutil.rmtree(path)
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    assert child.stderr is not None
    blocks, deadline = 0, time.monotonic() + 300
    while blocks < 3 and time.monotonic() < deadline:
        blocks += child.stderr.readline() == "block\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=300)
    assert child.returncode == 130, said
    assert "stopped" in said
    assert "same command" in said
    assert not path.exists()
    resumed = neuronmap(*options)
    assert resumed.code == 0, resumed.err
    assert "Continuing the feature pass" in resumed.err
    assert content(path) == whole
    assert not list((analysed / "cache/features").glob("*/pass.json"))  # the work is done, and gone


def test_quiet_analysis_says_nothing(neuronmap, analysed):
    done = neuronmap("sae", "analyze", "first", "--no-map", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


# --- list, find --------------------------------------------------------------------------------------------------


def test_list_analyses(neuronmap, analysed):
    store = store_of()
    shown = neuronmap("sae", "list-analyses", "first")
    assert store.path.name in shown.out
    assert "neuronmap sae analyze second" in neuronmap("sae", "list-analyses", "second").out
    (one,) = neuronmap("sae", "list-analyses", "first", "--json").document("sae list-analyses")["analyses"]
    assert (one["name"], one["key"], one["tokens"]) == (store.path.name, store.key, store.manifest["rows"])


def test_find_examples_by_number(neuronmap, analysed):
    store = store_of()
    busy = store.queries.select(sort="-firings", limit=1).features[0]
    found = neuronmap(
        "sae", "find-examples", "first", "--features", str(busy), "--contrast", "--max-examples", "4", "--json"
    )
    document = found.document("sae find-examples")
    assert (document["sae"], document["analysis"]) == ("first", store.key)
    (one,) = document["features"]
    assert one["feature"] == busy
    assert one["density"] == store.feature(busy).row["density"]
    assert one["on_text"] is None
    examples = store.examples(busy, "top")[:4]
    assert [example["activation"] for example in one["examples"]] == [example.activation for example in examples]
    assert ["".join(example["pieces"]) for example in one["examples"]] == [example.text for example in examples]
    assert {example["kind"] for example in one["negatives"]} <= {"hard", "random"}
    assert all(example["activation"] == 0 for example in one["negatives"])
    shown = neuronmap("sae", "find-examples", "first", "--features", str(busy)).out
    assert f"#{busy}" in shown
    assert f"{examples[0].activation:.3g}" in shown
    weakest = neuronmap("sae", "find-examples", "first", "--features", str(busy), "--quantile", "0", "--json")
    assert {(e["kind"], e["group"]) for e in weakest.document("sae find-examples")["features"][0]["examples"]} == {
        ("quantile", 0)
    }
    limit = examples[1].activation
    strong = neuronmap(
        "sae", "find-examples", "first", "--features", str(busy), "--min-activation", repr(limit), "--json"
    )
    assert len(strong.document("sae find-examples")["features"][0]["examples"]) == 2
    wide = neuronmap("sae", "find-examples", "first", "--features", str(busy), "--context", "2", "--json")
    document = wide.document("sae find-examples")
    assert max(len(example["pieces"]) for example in document["features"][0]["examples"]) <= 5
    assert "stored window" in document["notes"][0]


def test_find_examples_by_text_and_by_search(neuronmap, analysed):
    text = "The river froze in winter."
    document = neuronmap(
        "sae", "find-examples", "first", "--text", text, "--max-features", "3", "--max-examples", "2", "--json"
    ).document("sae find-examples")
    assert len(document["features"]) == 3
    for one in document["features"]:
        assert one["on_text"] > 0
        assert len(one["examples"]) <= 2
    share = [one["on_text"] / one["max"] for one in document["features"]]
    assert share == sorted(share, reverse=True)
    store = store_of()
    label = next(row["label"] for row in store.queries.select(sort="-f1", limit=None) if row["label"])
    word = label.split()[0]
    found = neuronmap("sae", "find-examples", "first", "--search", word, "--json").document("sae find-examples")
    assert [one["feature"] for one in found["features"]] == store.queries.search_labels(word, 10).features
    assert word in neuronmap("sae", "find-examples", "first", "--search", word).out


def test_find_examples_of_features_at_random(neuronmap, analysed):
    def drawn(*options: str) -> list[int]:
        found = neuronmap("sae", "find-examples", "first", "--random", "4", *options, "--json")
        return [one["feature"] for one in found.document("sae find-examples")["features"]]

    alive = store_of().queries.select(["status=alive"], limit=None).features
    alive += store_of().queries.select(["status=dense"], limit=None).features
    assert set(drawn()) <= set(alive)
    assert drawn("--seed", "1") == drawn("--seed", "1") != drawn("--seed", "2")


# --- export ------------------------------------------------------------------------------------------------------


def test_export_in_every_format(neuronmap, analysed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = store_of()
    fired = store.queries.select(["firings>0"], limit=None).features
    for form in ("json", "jsonl", "csv", "parquet", "html", "neuronpedia"):
        document = neuronmap("sae", "export-features", "first", "--format", form, "--json").document(
            "sae export-features"
        )
        assert document["path"] == f"first-features.{form}"
        assert (document["format"], document["features"], document["analysis"]) == (form, len(fired), store.key)
        written = Path(document["path"])
        files = [written] if written.is_file() else [path for path in written.rglob("*") if path.is_file()]
        assert document["bytes"] == sum(file.stat().st_size for file in files)
    assert [one["feature"] for one in json.loads(Path("first-features.json").read_text())["features"]] == fired
    assert [json.loads(line)["feature"] for line in Path("first-features.jsonl").read_text().splitlines()] == fired
    assert [
        int(row["feature"])
        for row in csv.DictReader(io.StringIO(Path("first-features.csv").read_bytes().decode(), newline=""))
    ] == fired
    assert pq.read_table("first-features.parquet")["feature"].to_pylist() == fired
    assert Path("first-features.html").read_text().count("<article") == len(fired)
    lines = gzip.decompress(
        Path("first-features.neuronpedia/tiny-gpt2/2-neuronmap/features/batch-0.jsonl.gz").read_bytes()
    ).decode()
    assert [int(json.loads(line)["index"]) for line in lines.splitlines()] == fired
    shown = neuronmap("sae", "export-features", "first", "-f", "csv", "--overwrite").out
    assert f"{len(fired)} features: first-features.csv" in shown


def test_export_chooses(neuronmap, analysed, tmp_path):
    store, target = store_of(), tmp_path / "deep/out.jsonl"
    for options, expected in (
        (["--features", "5,1-3"], [5, 1, 2, 3]),
        (["--top", "4"], store.queries.select(["firings>0"], sort="-max", limit=4).features),
        (["--top", "4", "--by", "density"], store.queries.select(["firings>0"], sort="-density", limit=4).features),
        (["--top", "4", "--by", "score"], store.queries.select(["firings>0"], sort="-f1_low", limit=4).features),
    ):
        done = neuronmap("sae", "export-features", "first", "-f", "jsonl", "-o", target, "--overwrite", *options)
        assert done.code == 0, done.err
        assert [json.loads(line)["feature"] for line in target.read_text().splitlines()] == expected


def test_export_analyses_a_text_first(neuronmap, analysed, tmp_path, text_folder):
    arguments = [
        "sae",
        "export-features",
        "first",
        "-f",
        "json",
        "--top",
        "2",
        "--text",
        text_folder / "30.txt",
        "--tokens",
        "300",
    ]
    first = neuronmap(*arguments, "-o", tmp_path / "a.json", "--json")
    assert first.code == 0, first.err
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["key"] == first.document("sae export-features")["analysis"]
    assert document["rows"] <= 300
    again = neuronmap(*arguments, "-o", tmp_path / "b.json")
    assert "there already" in again.err


# --- steer, compare ----------------------------------------------------------------------------------------------


def test_steer_a_prompt_and_a_text(neuronmap, analysed):
    busy = str(store_of().queries.select(sort="-firings", limit=1).features[0])
    prompt = neuronmap(
        "sae", "steer", "first", "-c", f"{busy}+1.5max", "-p", "The river", "--max-tokens", "4", "--json"
    )
    assert prompt.code == 0, prompt.err
    document = prompt.document("sae steer")
    assert len(document["rows"]) == 3  # clean, steered, one control
    assert document["changes"]
    text = neuronmap(
        "sae", "steer", "first", "-c", f"{busy} off", "-c", "3x2", "-t", "The river froze.", "--controls", "2", "--json"
    )
    assert text.code == 0, text.err
    assert text.document("sae steer")["rows"]
    shown = neuronmap("sae", "steer", "first", "-c", f"{busy}=2", "-t", "The [bold]river[/] froze.").out
    assert "steered" in shown
    assert "control 1" in shown
    unlabelled = neuronmap("sae", "steer", "second", "-c", "3+4", "-p", "The [/] river", "--max-tokens", "2")
    assert unlabelled.code == 0, unlabelled.err  # no analysis is needed but for labels and maxima
    assert "The [/] river" in unlabelled.out


def test_compare_by_decoder_and_with_text(neuronmap, analysed, text_folder, tmp_path):
    document = neuronmap("sae", "compare", "first", "second", "--json").document("sae compare")
    assert (document["a"], document["b"], document["plot"]) == ("first", "second", None)
    assert "By decoder cosine" in neuronmap("sae", "compare", "first", "second", "--threshold", "0.7").out
    plot = tmp_path / "deep" / "match.png"
    done = neuronmap("sae", "compare", "first", "second", "--text", text_folder, "--tokens", "1500", "--plot", plot)
    assert done.code == 0, done.err
    assert "By activation correlation" in done.out
    assert plot.read_bytes().startswith(b"\x89PNG")


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["analyze", "nobody"], 6, ["nobody"]),
        (["analyze", "first", "first"], 2, ["named twice"]),
        (["analyze", "first", "--text", ""], 2, []),
        (["analyze", "first", "--text", "no/such/file.txt"], 2, ["no/such/file.txt"]),
        (["analyze", "first", "--tokens", "0"], 2, ["tokens = 0"]),
        (["analyze", "first", "--set", "top_example=3"], 2, ["top_example", "top_examples"]),
        (["analyze", "first", "--set", "top_examples=0"], 2, ["top_examples", "0"]),
        (["analyze", "first", "--set", "top_examples"], 2, ["top_examples"]),
        (["analyze", "first", "--shard", "3/2"], 2, ["3/2", "I from 1 to N"]),
        (["analyze", "first", "--shard", "0/2"], 2, ["0/2"]),
        (["analyze", "first", "--shard", "1/2", "--merge", "x"], 2, ["--shard or --merge"]),
        (["analyze", "first", "--merge", "no/such"], 2, ["no/such"]),
        (["list-analyses", "nobody"], 6, ["nobody"]),
        (["list-analyses", "first", "--delete", "0123"], 6, ["0123", "whole name"]),
        (["find-examples", "first"], 2, ["exactly one of --features, --text, --search and --random"]),
        (["find-examples", "first", "--features", "1", "--text", "a"], 2, ["--features and --text"]),
        (["find-examples", "second", "--features", "1"], 6, ["no analysis", "neuronmap sae analyze"]),
        (["find-examples", "first", "--features", "64"], 2, ["no feature 64", "0 to 63"]),
        (["find-examples", "first", "--features", "1,x"], 2, ["'x'"]),
        (["find-examples", "first", "--features", "1", "--max-examples", "0"], 2, ["max_examples = 0"]),
        (["find-examples", "first", "--features", "1", "--context", "-1"], 2, ["context"]),
        (["find-examples", "first", "--features", "1", "--search", "a"], 2, ["--features and --search were given"]),
        (["find-examples", "first"], 2, ["Nothing was given"]),
        (["find-examples", "first", "--features", "64"], 2, ["no feature 64", "The nearest one that is alive is"]),
        (["find-examples", "first", "--features", "1", "--quantile", "9"], 2, ["no quantile 9"]),
        (["find-examples", "first", "--search", "a", "--quantile", "1"], 2, ["--quantile goes with --features"]),
        (["find-examples", "first", "--search", "zzzz qqqq"], 2, ["zzzz qqqq"]),
        (["find-examples", "first", "--search", " "], 2, ["empty"]),
        (["find-examples", "first", "--search", "a", "--max-features", "0"], 2, ["top = 0"]),
        (["find-examples", "first", "--text", ""], 2, ["empty"]),
        (["find-examples", "first", "--random", "0"], 2, ["0"]),
        (["find-examples", "first", "--text", "The river froze.", "--max-features", "0"], 2, ["top = 0"]),
        (["find-examples", "first", "--features", "1", "--analysis", "zz"], 6, ["zz"]),
        (["export-features", "first", "--format", "xml"], 2, ["xml", "neuronpedia"]),
        (["export-features", "first", "--features", "1,64"], 2, ["no feature 64"]),
        (["export-features", "first", "--features", "1", "--top", "2"], 2, ["exclude"]),
        (["export-features", "first", "--top", "2", "--by", "size"], 2, ["size", "density"]),
        (["export-features", "first", "--tokens", "9"], 2, ["--tokens goes with --text"]),
        (["export-features", "first", "--text", "a", "--analysis", "b"], 2, ["exclude"]),
        (["export-features", "first", "-f", "neuronpedia", "--neuronpedia-model", "A B"], 2, ["A B"]),
        (["steer", "first", "-c", "1+1"], 2, ["--prompt", "--text"]),
        (["steer", "first", "-c", "1+1", "-p", "a", "-t", "b"], 2, ["--prompt", "--text"]),
        (["steer", "first", "-c", "1 up", "-p", "a"], 2, ["'1 up' is not a change", "17+60"]),
        (["steer", "first", "-c", "1x2max", "-p", "a"], 2, ["no unit"]),
        (["steer", "first", "-c", "1+-", "-p", "a"], 2, ["not a change"]),
        (["steer", "first", "-c", "1+1e999", "-p", "a"], 2, ["finite"]),
        (["steer", "first", "-c", "64+1", "-p", "a"], 2, ["64", "0 to 63"]),
        (["steer", "first", "-c", "1+1", "-p", ""], 2, ["empty"]),
        (["steer", "first", "-c", "1+1", "-t", ""], 2, ["empty"]),
        (["steer", "first", "-c", "1+1", "-p", "a", "--max-tokens", "0"], 2, ["max_tokens = 0"]),
        (["steer", "first", "-c", "1+1", "-p", "a", "--controls", "-1"], 2, ["controls = -1"]),
        (["steer", "second", "-c", "1+1max", "-p", "a"], 2, ["second has no analysis", "without max"]),
        (["compare", "first", "nobody"], 6, ["nobody"]),
        (["compare", "first", "second", "--plot", "x.txt"], 2, ["x.txt", ".png"]),
        (["compare", "first", "second", "--text", "no/such"], 2, ["no/such"]),
        (["compare", "first", "second", "--threshold", "2"], 2, ["threshold"]),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_a_code(neuronmap, analysed, tmp_path, monkeypatch, command, code, said):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in store_of().path.parent.iterdir()}
    failed = neuronmap("sae", *command, "--json")
    assert failed.code == code, (failed.out, failed.err)
    document = failed.document("error")
    for part in said:
        assert part in document["message"] + document["hint"], document
    assert "Traceback" not in failed.err
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in store_of().path.parent.iterdir()} == before


def test_an_empty_text_is_an_error(neuronmap, analysed, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for command in (["analyze"], ["export-features"]):
        failed = neuronmap("sae", *command, "first", "--text", tmp_path / "empty.txt", "--json")
        assert (failed.code, failed.document("error")["error"]) == (2, "corpus_empty"), failed.err


def test_an_sae_of_another_model_is_refused_unless_forced(neuronmap, analysed, model_folder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "tiny-gpt2"
    shutil.copytree(model_folder, other)
    weights = load_file(other / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.bias"] += torch.ones(128)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    for command in (
        ["analyze", "first"],
        ["find-examples", "first", "--text", "a b"],
        ["steer", "first", "-c", "1+1", "-p", "a"],
    ):
        failed = neuronmap("sae", *command, "--model", other, "--json")
        assert (failed.code, failed.document("error")["error"]) == (5, "mismatch"), failed.err
        assert "model digest" in failed.document("error")["message"]
    forced = neuronmap("sae", "analyze", "first", "--model", other, "--force", "--no-map", "--no-hints")
    assert forced.code == 0, forced.err
    assert len(list_analyses(SAEModelHub().get("first"))) == 2


@pytest.mark.parametrize("name", ["details.parquet", "vocabulary.parquet", "tokens.npy"])
def test_a_file_changed_without_changing_its_size_is_named(neuronmap, analysed, name):
    file = store_of().path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    failed = neuronmap("sae", "find-examples", "first", "--features", "0", "--json")
    assert (failed.code, failed.document("error")["error"]) == (5, "damaged"), failed.err
    assert f"{name} was changed" in failed.document("error")["message"]


@pytest.mark.parametrize(
    "name", ["features.parquet", "details.parquet", "examples.parquet", "tokens.npy", "manifest.json"]
)
def test_a_damaged_store_is_an_error_that_names_the_file(neuronmap, analysed, name):
    folder = store_of().path
    file = folder / name
    file.write_bytes(file.read_bytes()[:-20])
    for command in (["find-examples", "first", "--features", "0"], ["export-features", "first", "--top", "1"]):
        failed = neuronmap("sae", *command, "--json")
        assert (failed.code, failed.document("error")["error"]) == (5, "damaged"), failed.err
        assert name in failed.document("error")["message"]
    (listed,) = neuronmap("sae", "list-analyses", "first", "--json").document("sae list-analyses")["analyses"]
    assert name in listed["problem"]
    mended = neuronmap("sae", "analyze", "first", "--no-map")
    assert mended.code == 0, mended.err
    assert "It is made anew" in mended.err
    assert store_of().manifest["rows"] > 0


def test_changed_bytes_in_a_table_are_noticed_when_it_is_read(neuronmap, analysed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = store_of().path / "examples.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    file.write_bytes(data)
    failed = neuronmap("sae", "export-features", "first", "-f", "json", "-o", "never.json", "--json")
    assert (failed.code, failed.document("error")["error"]) == (5, "damaged"), failed.err
    assert not Path("never.json").exists()


def test_what_the_pass_counts_is_what_the_sae_does(analysed):
    """From the text to the store by the command; from the stored activations by hand."""
    from neuronmap.activations import ActivationStore

    store = store_of()
    sae = SAEModelHub().load("first")
    activations = [
        ActivationStore.open(manifest.parent) for manifest in sorted(analysed.glob("cache/activations/*/manifest.json"))
    ]
    (mine,) = [one for one in activations if one.num_rows == store.manifest["rows"]]
    x_BD = mine.read(0, mine.num_rows).float()
    codes_BF = sae.encode(x_BD).numpy()
    firings = store.queries.select(limit=None).to_pandas()
    assert firings["firings"].tolist() == (codes_BF > 0).sum(0).tolist()
    np.testing.assert_allclose(firings["sum"], codes_BF.sum(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(firings["max"].fillna(0), codes_BF.max(0), rtol=1e-6)
