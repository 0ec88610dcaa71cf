"""Explain and score as a user types it: a real language model on loopback as the endpoint, and every way to get it wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from neuronmap import SAEModelHub
from neuronmap.features import FeatureStore
from neuronmap.hub.analyses import list_analyses
from neuronmap.hub.explaining import LiveActivations, hint_labels
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.models import load_model
from neuronmap.models.answering import ChatModel
from neuronmap.models.serving import ChatServer
from neuronmap.progress import SilentProgress

SMOLLM2 = "smollm2-135m"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Iterator[ChatServer]:
    """The sample model at an address of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("models")))
        model = load_model(SMOLLM2, device="cpu", measured_settings=False, progress=SilentProgress())
    with ChatServer(ChatModel(model), SMOLLM2) as server:
        yield server


def store_of(name: str = "first") -> FeatureStore:
    return FeatureStore.open(list_analyses(SAEModelHub().get(name))[0].path)


def alive(number: int) -> str:
    """Numbers of features that fire often enough for every set."""
    rows = store_of().queries.select(["status=alive"], sort="-firings", limit=number, columns=["feature"])
    return ",".join(map(str, rows.features))


# --- a real language model ------------------------------------------------------------------------------------------------


@pytest.mark.sample
@pytest.mark.slow
def test_a_local_model_labels_features_and_judges_the_labels(neuronmap, analysed, smollm2):
    at = ("--endpoint", smollm2.address, "--model", SMOLLM2, "--concurrency", "1", "--timeout", "600")
    chosen = ("--features", alive(1))
    planned = neuronmap("sae", "explain", "first", *chosen, *at, "--method", "top,promoted", "--dry-run", "--json")
    estimate = planned.document("sae explain")["estimate"]
    assert smollm2.answered == 0

    done = neuronmap("sae", "explain", "first", *chosen, *at, "--method", "top,promoted", "--json")
    assert done.code == 0, done.err
    document = done.document("sae explain")
    assert (len(document["labels"]), document["failures"]) == (2, [])
    assert {label["side"] for label in document["labels"]} == {"input", "output"}
    for label in document["labels"]:
        assert 1 <= len(label["text"].split()) <= 6
        assert label["author"] == {"kind": "model", "name": SMOLLM2}
        assert label["evidence"]["form"] == "json_schema"
        assert not label["evidence"]["tokens"]["estimated"]
    spent = document["spent"]
    too_long = sum("whole_label" in label["evidence"] for label in document["labels"])
    assert (spent["calls"], spent["retries"]) == (2 + too_long, 0)
    second = 300 * too_long  # tokens of asking for a shorter label, which estimates leave out
    assert 0.6 < spent["prompt_tokens"] / (estimate["prompt"] + second) < 1.6

    before = smollm2.answered
    again = neuronmap("sae", "explain", "first", *chosen, *at, "--method", "top,promoted")
    assert again.code == 0, again.err
    assert "0 labels made, 2 were there already" in again.out
    assert smollm2.answered == before

    judged = neuronmap("sae", "score", "first", *at, "--scorer", "detection", "--baselines", "prediction", "--json")
    assert judged.code == 0, judged.err
    (detection,) = judged.document("sae score")["scores"]
    assert detection["protocol"] == "detection@1"
    assert 0 <= detection["low"] <= detection["value"] <= detection["high"] <= 1
    assert detection["figures"]["unread"] == 0
    with LabelBook.open() as book:
        kept = book.get(detection["id"])
        held = book.labels(kept.sae, int(chosen[1]), side="input")
    assert len(kept.judgements) == detection["judgements"] > 20
    assert {score.protocol for label in held for score in label.scores} == {"detection@1"}


# --- without a language model ----------------------------------------------------------------------------------------------


def test_activations_read_anew_are_those_of_the_analysis(analysed):
    entry, store = SAEModelHub().get("first"), store_of()
    reader = LiveActivations(entry, store, progress=SilentProgress())
    examples = [one for number in map(int, alive(4).split(",")) for one in store.examples(number)]
    found = reader.read([(one.feature, one.sequence) for one in examples])
    for one, activations in zip(examples, found, strict=True):
        window = activations[one.start : one.start + len(one.token_ids)]
        assert window == pytest.approx(one.activations, rel=2e-3, abs=2e-3)
        assert not activations[~store.kept(one.sequence)].any()


@pytest.mark.sample
def test_hints_are_scored_without_an_endpoint(neuronmap, analysed):
    done = neuronmap("sae", "score", "first", "--labels", "hints", "--sample", "12", "--json")
    assert done.code == 0, done.err
    document = done.document("sae score")
    assert document["scores"], document["impossible"]
    for score in document["scores"]:
        assert (score["protocol"], score["author"]["name"]) == ("embedding@1", "all-MiniLM-L6-v2")
        assert "prediction" in score["figures"]["baselines"]
        assert score["figures"]["tokens"]["prompt"] == 0
    again = neuronmap("sae", "score", "first", "--labels", "hints", "--sample", "12", "--json").document("sae score")
    assert (len(again["scores"]), again["known"]) == (0, len(document["scores"]))
    shown = neuronmap("sae", "score", "first", "--labels", "hints", "--sample", "14", "--no-read")
    assert "scores made" in shown.out


def test_hints_are_the_same_acts_however_often_they_are_taken(analysed):
    store = store_of()
    first, second = hint_labels(store), hint_labels(store)
    assert first
    assert [label.id for label in first] == [label.id for label in second]
    with LabelBook.open() as book:
        assert book.add(first) == len(first)
        assert book.add(second) == 0
    texts = {row["feature"]: row["label"] for row in store.tables.read("hints").to_pylist()}
    assert all(texts[label.feature] == label.text for label in first)


# --- wrong input ------------------------------------------------------------------------------------------------------------

AT = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("explain", "first", "--sample", "2"), 2, "--endpoint and --model are missing"),
        (("explain", "first", *AT), 2, "exactly one of --features, --top, --sample and --all"),
        (("explain", "first", *AT, "--sample", "2", "--all"), 2, "--sample and --all were given"),
        (("explain", "first", *AT, "--sample", "0"), 2, "at least 1 feature"),
        (("explain", "first", *AT, "--features", "9999"), 2, "There is no feature 9999"),
        (("explain", "first", *AT, "--sample", "2", "--method", "magic"), 2, "no way to explain called 'magic'"),
        (("explain", "first", *AT, "--sample", "2", "--budget", "lots"), 2, "neither a number of tokens nor"),
        (("explain", "first", *AT, "--sample", "2", "--budget", "$1"), 2, "needs prices"),
        (("explain", "first", *AT, "--sample", "2", "--key-env", "sk-abc123"), 2, "not the name of an environment variable"),
        (("explain", "first", *AT, "--sample", "2", "--key-env", "NOT_SET_HERE"), 2, "NOT_SET_HERE is not set"),
        (("explain", "first", *AT, "--sample", "2", "--endpoint", "localhost:8000"), 2, "an address with http://"),
        (("explain", "second", *AT, "--sample", "2"), 6, "has no analysis"),
        (("explain", "nowhere", *AT, "--sample", "2"), 6, "nowhere"),
        (("score", "first"), 2, "There is no label to score (--labels models)"),
        (("score", "first", "--scorer", "detection"), 2, "--endpoint and --model are missing"),
        (("score", "first", "--scorer", "magic"), 2, "no scorer called 'magic'"),
        (("score", "first", "--labels", "hints", "--baselines", "magic"), 2, "no baseline 'magic'"),
        (("score", "first", "--labels", "hints", "--dry-run"), 2, "cost nothing"),
    ],
)  # fmt: skip
def test_wrong_input_is_answered(neuronmap, analysed, arguments, code, said):
    done = neuronmap("sae", *arguments)
    assert (done.code, said in " ".join(done.err.split())) == (code, True), done.err
    assert "sk-abc123" not in done.err + done.out
    assert "Traceback" not in done.err


def test_a_budget_that_is_used_up_ends_with_its_exit_code_and_the_document(neuronmap, analysed):
    done = neuronmap("sae", "explain", "first", *AT, "--features", alive(2), "--budget", "10", "--json")
    assert done.code == 10
    document = json.loads(done.out)
    assert (document["schema"], document["labels"]) == ("neuronmap/sae.explain/1", [])
    assert document["stopped"]


def test_an_endpoint_that_is_not_there_is_said_with_its_exit_code(neuronmap, analysed, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.001)  # pauses are times 0.5 to 1 by chance
    done = neuronmap("sae", "explain", "first", *AT, "--features", alive(2), "--json")
    assert done.code == 10
    error = json.loads(done.out)
    assert error["error"] == "endpoint"
    assert "no answer in 6 tries" in error["message"]
