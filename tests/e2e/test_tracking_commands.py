"""Track concepts, look at reports and check concept files as a user types it, and every way to get it wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neuronmap.abstraction import TrackingReport
from neuronmap.hub.reports import list_reports, open_report, reports_folder

# --- track-abstractions ----------------------------------------------------------------------------------------------


def test_what_was_found_is_told_in_words(neuronmap, tracked):
    shown = neuronmap("sae", "show-report", "warm")
    assert shown.code == 0, shown.err
    result = open_report("warm").concepts[0]
    assert result.summary.verdict in shown.out
    assert f"warmth: {result.summary.statement}" in shown.out
    for sentence in result.warnings:
        assert sentence in shown.out
    assert "Complexity for this model on this data, simplest first" in shown.out
    assert "“the tea is warm now”: where each concept is strongest" in shown.out
    assert "Kept as warm. Plots: neuronmap sae show-report warm --format html" in shown.out
    assert shown.err == ""


def test_the_same_command_reuses_what_was_measured_and_prints_one_document(neuronmap, tracked, track_arguments):
    done = neuronmap(*track_arguments, "--prompt", "the sea is cold now", "--json")
    assert done.code == 0, done.err
    assert "1 of 1 concepts were measured before and are reused" in done.err
    document = done.document("sae track-abstractions")
    report = TrackingReport(**document["report"])
    assert document["path"] == str(reports_folder() / report.name)
    assert document["file"] is None
    assert report.name == "tiny-gpt2-warmth"
    assert [one.prompt for one in report.trajectories] == ["the sea is cold now"]
    assert report.layers == [0, 2, 4]
    assert report.preset == "custom"
    assert report.settings["permutations"] == 20
    kept = open_report("warm").concepts[0]
    assert report.concepts[0].within == kept.within


def test_formats_are_written_and_nothing_is_kept_if_not_wanted(neuronmap, tracked, track_arguments, tmp_path):
    target = tmp_path / "deep" / "report.html"
    done = neuronmap(*track_arguments, "--no-keep", "--format", "html", "--out", target)
    assert done.code == 0, done.err
    assert f"Written: {target}" in done.out
    assert "Plotly.react" in target.read_text()
    assert [one.name for one in list_reports()] == ["warm"]
    silent = neuronmap(*track_arguments, "--no-keep", "--quiet")
    assert (silent.code, silent.out, silent.err) == (0, "", "")
    assert "Not kept" in neuronmap(*track_arguments, "--no-keep").out


def test_a_kept_report_is_written_as_page_table_and_record(neuronmap, tracked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert neuronmap("sae", "show-report", "warm", "--format", "html").code == 0
    assert "the tea is <b>warm" not in Path("warm.html").read_text()
    done = neuronmap("sae", "show-report", "warm", "--format", "parquet", "--json")
    assert Path(done.document("sae show-report")["file"]) == Path("warm.parquet")
    assert "half_depth" in pq.read_table("warm.parquet").column("measure").to_pylist()
    assert neuronmap("sae", "show-report", "warm", "-f", "json", "-o", "out.json").code == 0
    assert TrackingReport(**json.loads(Path("out.json").read_text())) == open_report("warm")
    again = neuronmap("sae", "show-report", "warm", "--format", "html")
    assert again.code == 6
    assert "warm.html exists already" in again.err
    assert neuronmap("sae", "show-report", "warm", "--format", "html", "--overwrite").code == 0


def test_a_report_takes_the_place_of_another_only_when_told(neuronmap, tracked, track_arguments):
    taken = neuronmap(*track_arguments, "--name", "warm")
    assert taken.code == 6
    assert "There is a report 'warm' already" in taken.err
    assert "Loading" not in taken.err  # before anything is loaded
    assert neuronmap(*track_arguments, "--name", "warm", "--replace").code == 0
    assert open_report("warm").trajectories == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["-c", "gramatical_number"], 2, "Did you mean grammatical_number"),
        (["-c", " , "], 2, "--concepts names no concept"),
        (["-c", "lost.yaml"], 2, "concept file lost.yaml cannot be read: No such file"),
        (["-c", "tense", "--prompt", "  "], 2, "A prompt is empty"),
        (["--set", "item=20"], 2, "Did you mean items?"),
        (["--set", "items=many"], 2, "items = 'many': input should be a valid integer"),
        (["--set", "items=3"], 2, "greater than or equal to 16"),
        (["--set", "items"], 2, "not of the form name=value"),
        (["--causal", "--set", "causal=false"], 2, "causal is given twice"),
        (["--format", "pdf"], 2, "allowed are table, json, html, parquet"),
        (["--out", "x.html"], 2, "--out needs a format"),
        (["--format", "html", "--out", "."], 2, "is a folder"),
        (["--name", "a/b"], 2, "it holds a '/'"),
        (["--name", "x", "--no-keep"], 2, "--name is about a report that is kept"),
        (["--sae", "nope"], 6, "no SAE 'nope'"),
        (["--device", "abacus"], 2, "abacus"),
        (["--model", "no/such-model"], 3, "no/such-model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_measured(neuronmap, track_arguments, more, code, said):
    arguments = ["sae", "track-abstractions", "--model", track_arguments[3], *more]
    if "-c" not in more:
        arguments += ["-c", "tense"]
    done = neuronmap(*arguments, "--json")
    assert done.code == code, done.err
    assert said in " ".join(done.err.split())
    assert done.document("error")["message"]
    assert "Reading" not in done.err
    assert list_reports() == []


def test_a_prompt_of_one_token_is_refused(neuronmap, tracked, track_arguments):
    done = neuronmap(*track_arguments, "--prompt", "T")
    assert done.code == 2
    assert "The prompt 'T' is 1 token" in done.err
    assert [one.name for one in list_reports()] == ["warm"]


# --- reports ---------------------------------------------------------------------------------------------------------


def test_reports_are_listed_and_deleted(neuronmap, tracked):
    listed = neuronmap("sae", "list-reports")
    assert "warm" in listed.out
    assert "tiny-gpt2" in listed.out
    (entry,) = neuronmap("sae", "list-reports", "--json").document("sae list-reports")["reports"]
    assert (entry["name"], entry["concepts"], entry["prompts"]) == ("warm", ["warmth"], 1)
    assert neuronmap("sae", "delete-report", "warm", answer="n\n").code == 0
    refused = neuronmap("sae", "delete-report", "warm", "--json")
    assert refused.code == 2
    assert [one.name for one in list_reports()] == ["warm"]
    done = neuronmap("sae", "delete-report", "warm", "--yes", "--json")
    assert done.document("sae delete-report")["deleted"] == "warm"
    assert "No report in" in neuronmap("sae", "list-reports").out


@pytest.mark.parametrize("command", ["show-report", "delete-report"])
def test_a_report_that_is_not_there_is_named_with_those_that_are(neuronmap, tracked, command):
    done = neuronmap("sae", command, "cold")
    assert done.code == 6
    assert "There is no report 'cold'. Reports: warm." in done.err


def test_a_damaged_report_is_listed_with_its_problem(neuronmap, tracked):
    (reports_folder() / "warm" / "report.json").write_text("{")
    listed = neuronmap("sae", "list-reports")
    assert listed.code == 0
    assert "cannot be read" in listed.out
    assert neuronmap("sae", "show-report", "warm").code == 5


# --- list-concepts ---------------------------------------------------------------------------------------------------


def test_concepts_are_listed_and_one_is_shown_with_examples(neuronmap):
    listed = neuronmap("sae", "list-concepts")
    for name in ("grammatical_number:subject", "syntactic_role:thematic", "tense"):
        assert name in listed.out
    shown = neuronmap("sae", "list-concepts", "syntactic_role:thematic")
    assert "voice: active, passive" in shown.out
    assert "patient, agent" in shown.out
    document = neuronmap("sae", "list-concepts", "grammatical_number", "--items", "64", "--json")
    concepts = document.document("sae list-concepts")["concepts"]
    assert [one["name"] for one in concepts] == [
        f"grammatical_number:{kind}" for kind in ("lexical", "subject", "attractor")
    ]
    assert all(one["clusters"]["test"] > 0 and one["examples"] for one in concepts)


def test_a_concept_file_is_checked_with_warnings_and_examples(neuronmap, concept_file):
    done = neuronmap("sae", "list-concepts", "--check", concept_file)
    assert done.code == 0, done.err
    assert "clusters in the test split" in done.out
    assert "The words alone tell the classes apart" in done.out
    assert "the sea is cold now  cold" in done.out
    assert "can be tracked" in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("positive: [a b, c d]\nnegative: [e f]\ncolour: blue", "unknown key 'colour'"),
        ("positive: [a b, c d]", "negative"),
        ("just words", "a mapping with 'positive' and 'negative'"),
        ("positive: [", "is not YAML"),
        ("positive: [the sea is warm]\nnegative: [the sea is cold]", "at least 16"),
    ],
    ids=["unknown key", "one list", "no mapping", "no yaml", "too few"],
)
def test_faults_of_a_concept_file_are_told(neuronmap, tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    for command in (["list-concepts", "--check", path], ["track-abstractions", "--model", "smollm2-135m", "-c", path]):
        done = neuronmap("sae", *command)
        assert done.code == 2
        assert said in " ".join(done.err.split())
        assert "Traceback" not in done.err


def test_a_name_and_a_file_are_not_checked_at_once(neuronmap, concept_file):
    done = neuronmap("sae", "list-concepts", "tense", "--check", concept_file)
    assert done.code == 2
    assert "Give either" in done.err
