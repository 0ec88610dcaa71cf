"""Judges of known skill get the scores that they deserve, baselines stand beside, and nothing is judged twice."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from faulty_server import FaultyServer, Handler, completion, says
from planted_store import FEW_F, NUMBER_F, NUMBERS, SAE, SUMMER, SUMMER_F, WINTER, WINTER_F, Planted

from neuronmap import plugins
from neuronmap.errors import ConfigError, InputError, PluginError
from neuronmap.interpretation.endpoint import EndpointConfig, Limit, TokenChoice
from neuronmap.interpretation.judging import Scorer, ScoreReport, estimate_scoring, score_labels, scorers
from neuronmap.interpretation.judging.grades import expected_digits
from neuronmap.interpretation.labels.acts import Author, Label, Score, stamp
from neuronmap.progress import SilentProgress

MEANT = {"winter": WINTER, "summer": SUMMER, "numbers": NUMBERS, "snow or ice": WINTER}
"""What an able judge takes each label to mean."""


def label(feature: int, text: str, side: str = "input") -> Label:
    return Label(
        sae=SAE, feature=feature, author=Author(kind="person", name="Ada"), at=stamp(), text=text, method="by hand", side=side
    )  # fmt: skip


LABELS = [label(WINTER_F, "winter"), label(SUMMER_F, "summer"), label(NUMBER_F, "numbers")]


def able(handler: Handler, body: dict[str, Any]) -> None:
    """Judges by the words that a label means; of marked texts only the marked words count."""
    user = body["messages"][1]["content"]
    claim = re.search(r"Description: (.*)", user)
    words = MEANT.get(claim[1].rstrip("."), ("nothing",)) if claim else ()
    lines = re.findall(r"^\d+\. (.*)$", user, flags=re.MULTILINE)
    numbers = re.findall(r"^\d+ (.*)$", user, flags=re.MULTILINE)
    if "Tokens:" in user:
        bare = [word.strip() for word in words]
        reply: Any = {"activations": [9 if token in bare else 0 for token in numbers]}
    elif claim is None:
        counts = [
            max(sum(w.strip() in line for w in topic) for topic in (WINTER, SUMMER, NUMBERS))
            for line in map(_marked, lines)
        ]
        reply = {"intruder": int(np.argmin(counts)) + 1}
    else:
        seen = [_marked(line) if "<<" in line else line for line in lines]
        reply = {"answers": [int(any(word.strip() in line.split() for word in words)) for line in map(_bare, seen)]}
    handler.send(200, completion(json.dumps(reply), usage={"prompt_tokens": 100, "completion_tokens": 10}))


def _marked(line: str) -> str:
    return " ".join(re.findall(r"<<(.*?)>>", line))


def _bare(line: str) -> str:
    return re.sub(r"[^\w ]", " ", line)


def scored(planted: Planted, server: FaultyServer, labels: list[Label] = LABELS, **options: Any) -> ScoreReport:
    config = EndpointConfig(base_url=server.address, model="judge", pause_s=0.01, price_in=1.0, price_out=1.0)
    options = {"endpoint": config, "scorers": ["detection"], "reader": planted, **options}
    return score_labels(planted.store, labels, progress=SilentProgress(), **options)


def by_feature(report: ScoreReport, protocol: str = "detection@1") -> dict[int, Score]:
    return {score.feature: score for score in report.scores if score.protocol == protocol}


@pytest.mark.parametrize(
    ("scorer", "least"), [("detection", 1.0), ("fuzzing", 0.9), ("simulation-json", 0.6), ("intruder", 0.7)]
)
def test_an_able_judge_knows_true_labels(planted: Planted, server: FaultyServer, scorer: str, least: float) -> None:
    server.usual = able
    report = scored(planted, server, scorers=[scorer])
    assert len(report.scores) == 3
    for score in report.scores:
        assert score.value is not None
        assert score.value >= least
        assert score.low <= score.value <= score.high
        assert score.figures.get("unread", 0) == 0
        assert score.author == Author(kind="model", name="judge")
        assert score.label in {one.id for one in LABELS}


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_baselines_are_beside_and_worse(planted: Planted, server: FaultyServer, scorer: str) -> None:
    server.usual = able
    found = by_feature(scored(planted, server, scorers=[scorer]), f"{scorer}@1")
    for feature, score in found.items():
        other = score.figures["baselines"]["shuffled"]
        assert other["feature"] != feature
        assert other["value"] < score.low, "another feature's label is surely worse"
        assert len(other["said"]) == len(score.judgements)
        assert set(other["said"]) <= {"0", "1"}
    winter = found[WINTER_F].figures["baselines"]
    assert winter["prediction"]["value"] == 1.0, "the rule is what the feature is made by"
    assert winter["rule"]["text"] == "words of winter"
    assert "rule" not in found[SUMMER_F].figures["baselines"], "it has no hint"


def test_every_judgement_is_kept_with_its_truth(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    score = by_feature(scored(planted, server))[WINTER_F]
    groups = [one.group for one in score.judgements]
    assert sum(group.startswith("quantile") for group in groups) >= 15
    assert {"random", "hard-neighbour"} <= set(groups)
    for one in score.judgements:
        window = planted.value_CTF[one.sequence, max(0, one.position - 11) : one.position + 5, WINTER_F]
        assert one.truth == one.group.startswith("quantile")
        assert one.truth <= bool(window.any())
        assert one.said == one.truth
    recall = score.figures["recall"]
    assert all(figure["share"] == 1.0 for figure in recall.values())
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score


def test_a_judge_never_sees_whether_it_fires(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    scored(planted, server, scorers=["detection", "simulation-json"], baselines=())
    for body in server.requests:
        user = body["messages"][1]["content"]
        assert "<<" not in user
        assert "quantile" not in user
        assert "hard" not in user
    sizes = [
        len(re.findall(r"^\d+\. ", body["messages"][1]["content"], flags=re.MULTILINE)) for body in server.requests
    ]
    assert max(sizes) <= 15


def test_texts_are_mixed(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    score = by_feature(scored(planted, server, baselines=()))[WINTER_F]
    truths = [one.truth for one in score.judgements]
    assert 0.3 < np.mean(truths[: len(truths) // 3]) < 0.9
    again = by_feature(scored(planted, server, baselines=()))[WINTER_F]
    assert again.judgements == score.judgements
    other = by_feature(scored(planted, server, baselines=(), seed=1))[WINTER_F]
    assert [one.sequence for one in other.judgements] != [one.sequence for one in score.judgements]


@pytest.mark.parametrize("text", ["I cannot say.", '{"answers": [1, 0]}', '{"answers": "yes"}'])
def test_answers_that_cannot_be_read_count_for_nothing(planted: Planted, server: FaultyServer, text: str) -> None:
    server.usual = says(text)
    score = by_feature(scored(planted, server, LABELS[:1], baselines=()))[WINTER_F]
    assert (score.value, score.low, score.high) == (None, None, None)
    assert score.figures["unread"] == len(score.judgements) > 30
    assert score.figures["failed"] == 3
    assert score.figures["problems"][0][1] == text
    assert all(one.said is None for one in score.judgements)


def test_a_list_without_its_name_is_read(planted: Planted, server: FaultyServer) -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        number = len(re.findall(r"^\d+\. ", body["messages"][1]["content"], flags=re.MULTILINE))
        says(f"Here: {[1] * number}")(handler, body)

    server.usual = act
    score = by_feature(scored(planted, server, LABELS[:1], baselines=()))[WINTER_F]
    assert score.value == 0.5
    assert "a list without its name" in score.figures["repairs"]


# --- embedding: no endpoint -------------------------------------------------------------------------------------------------


class WordEncoder:
    """Counts of the words of each topic, made unit vectors: near where the topic is the same."""

    def embed(self, sentences: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        topics = [[*WINTER, " winter"], [*SUMMER, " summer"], [*NUMBERS, " numbers"]]
        rows = [[0.1 + sum(f" {text}".count(word) for word in topic) for topic in topics] for text in sentences]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_embedding_needs_no_endpoint(planted: Planted, server: FaultyServer) -> None:
    report = scored(planted, server, endpoint=None, scorers=["embedding"], encoder=WordEncoder())
    assert not server.requests
    for score in report.scores:
        assert score.value > 0.9
        assert score.figures["baselines"]["shuffled"]["value"] < 0.5
        assert score.author.name == "all-MiniLM-L6-v2"
        assert set(score.figures["against"]) >= {"random"}
    assert report.spent.tokens == 0


def test_what_asks_needs_an_endpoint(planted: Planted, server: FaultyServer) -> None:
    with pytest.raises(ConfigError, match="detection asks a language model") as caught:
        scored(planted, server, endpoint=None, scorers=["detection", "embedding"], encoder=WordEncoder())
    assert "--scorer embedding" in caught.value.hint


# --- simulation with log-probabilities ----------------------------------------------------------------------------------------


def _with_logprobs(handler: Handler, body: dict[str, Any]) -> None:
    """Log-probabilities 0.75 on the right number and 0.25 on 0; the text itself says 0 everywhere."""
    numbers = re.findall(r"^\d+ (.*)$", body["messages"][1]["content"], flags=re.MULTILINE)
    bare = [word.strip() for word in WINTER]
    content = [{"token": '{"activations": [', "logprob": 0.0, "top_logprobs": []}]
    for place, token in enumerate(numbers):
        right = "8" if token in bare else "0"
        tops = [
            {"token": right, "logprob": math.log(0.75)},
            {"token": "0", "logprob": math.log(0.25)},
            {"token": "x", "logprob": -9.0},
        ]
        content.append({"token": "0", "logprob": -0.1, "top_logprobs": tops})
        content.append({"token": ", " if place < len(numbers) - 1 else "]}", "logprob": 0.0, "top_logprobs": []})
    text = json.dumps({"activations": [0] * len(numbers)})
    handler.send(200, completion(text, logprobs={"content": content}))


def test_simulation_takes_expectations(planted: Planted, server: FaultyServer) -> None:
    server.usual = _with_logprobs
    score = by_feature(scored(planted, server, LABELS[:1], scorers=["simulation"], baselines=()), "simulation@1")[
        WINTER_F
    ]
    assert {one.said for one in score.judgements} == {0.0, 6.0}
    assert score.value > 0.6
    assert score.figures["examples"] >= 8
    truths = {(one.sequence, one.position): one.truth for one in score.judgements}
    for (sequence, position), truth in truths.items():
        assert truth == pytest.approx(float(planted.value_CTF[sequence, position, WINTER_F]), rel=1e-3)


def test_simulation_without_log_probabilities_is_refused_with_the_reason(
    planted: Planted, server: FaultyServer
) -> None:
    server.usual = able
    report = scored(planted, server, scorers=["simulation", "detection"], baselines=())
    assert "no log-probabilities" in report.refused["simulation"]
    assert "simulation-json" in report.refused["simulation"]
    assert len(report.scores) == 3
    asked = [body for body in server.requests if "Tokens:" in body["messages"][1]["content"]]
    assert len(asked) <= 10 * 8, "nobody is asked once it is known"


@pytest.mark.parametrize(
    ("tokens", "numbers"),
    [(["{", '"activations"', ":", " [", "3", ",", " 4", "]", "}"], [3, 4]), (["[3", ",", "4]"], [3, 4]),
     (["7", "[", "1", "]", "5"], [1]), (["12"], [])],
)  # fmt: skip
def test_digits_among_tokens(tokens: list[str], numbers: list[int]) -> None:
    assert expected_digits([TokenChoice(token, ((token, 0.0),)) for token in tokens]) == numbers


# --- a run ----------------------------------------------------------------------------------------------------------------


def test_what_is_known_is_not_judged_again(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    first = scored(planted, server, scorers=["detection", "fuzzing"])
    before = len(server.requests)
    again = scored(planted, server, scorers=["detection", "fuzzing"], known=first.scores)
    assert (again.scores, again.known, len(server.requests)) == ([], 6, before)


def test_what_cannot_be_scored_is_said(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    report = scored(planted, server, [label(FEW_F, "few"), label(WINTER_F, "says snow", side="output"), LABELS[0]])
    assert len(report.scores) == 1
    reasons = {one.feature: one.problem for one in report.impossible}
    assert "output side" in reasons[WINTER_F]
    assert "are needed" in reasons[FEW_F]
    alone = report.scores[0].figures["baselines"]
    assert alone["shuffled"]["feature"] == FEW_F


def test_without_reading_the_model_the_score_says_what_it_lacks(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    score = by_feature(scored(planted, server, LABELS[:1], reader=None))[WINTER_F]
    assert any("neighbours fire" in said for said in score.figures["missing"])
    assert "hard-neighbour" not in {one.group for one in score.judgements}


def test_tokens_are_counted_and_those_of_baselines_apart(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    report = scored(planted, server, scorers=["detection", "fuzzing"])
    own = sum(score.figures["tokens"]["prompt"] + score.figures["tokens"]["completion"] for score in report.scores)
    assert own + report.baseline_tokens == report.spent.tokens
    assert report.scores[0].figures["cost"] == pytest.approx(330e-6)


def test_a_budget_ends_it_and_keeps_scores(planted: Planted, server: FaultyServer) -> None:
    server.usual = able
    kept: list[Score] = []
    report = scored(planted, server, keep=kept.append, limit=Limit(tokens=9000), baselines=())
    assert "is used up" in report.stopped or len(report.scores) == 3
    assert kept == report.scores
    assert report.spent.tokens <= 9000


def test_an_estimate_counts_the_questions(planted: Planted, server: FaultyServer) -> None:
    config = EndpointConfig(base_url=server.address, model="judge", price_in=1.0, price_out=1.0)
    found = estimate_scoring(planted.store, LABELS, config, scorers=["detection", "fuzzing", "intruder", "embedding"])
    assert not server.requests
    server.usual = able
    scored(planted, server, scorers=["detection", "fuzzing", "intruder"])
    assert 0.85 * len(server.requests) <= found.calls <= 1.15 * len(server.requests)
    assert found.money > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [({"scorers": ["magic"]}, "no scorer called 'magic'"), ({"scorers": []}, "No scorer"),
     ({"baselines": ["x"]}, "no baseline 'x'"), ({"batch": 0}, "batch = 0")],
)  # fmt: skip
def test_wrong_settings(planted: Planted, server: FaultyServer, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        scored(planted, server, **options)


def test_labels_of_another_sae_are_refused(planted: Planted, server: FaultyServer) -> None:
    strange = Label.from_dict({**LABELS[0].model_dump(mode="json", exclude={"id"}), "sae": "sha256:" + "9" * 64})
    with pytest.raises(InputError, match="another SAE"):
        scored(planted, server, [strange])


def test_a_plug_in_adds_a_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Scorer):
        name, about = "mine", "my way"

    given: list[Any] = [Mine()]
    monkeypatch.setattr(plugins, "collect", lambda hook: given if hook == "neuronmap_scorers" else [])
    assert "mine" in scorers()
    given[:] = [object()]
    with pytest.raises(PluginError, match="no Scorer"):
        scorers()


def test_prompts_have_a_fixed_part_first() -> None:
    made: Callable[[Scorer], bool] = lambda scorer: scorer.asks  # noqa: E731
    for scorer in filter(made, scorers().values()):
        assert "$" not in scorer.template.system
        assert scorer.prompt_digest == scorer.template.digest
