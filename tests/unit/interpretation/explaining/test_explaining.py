"""Labels from an endpoint: what it is shown, what is kept, what is not asked twice, and how a run ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from faulty_server import FaultyServer, Handler, completion, fails, says, slow
from planted_store import FEW_F, ID, NEVER_F, NUMBER_F, OF_THE_F, SAE, SUMMER_F, WINTER, WINTER_F, Planted

from neuronmap import plugins
from neuronmap.errors import ConfigError, EndpointError, InputError, PluginError
from neuronmap.interpretation.endpoint import AnswerCache, EndpointConfig, Limit
from neuronmap.interpretation.explaining import Explainer, explain_features, explainers
from neuronmap.interpretation.explaining.brevity import cut, too_long
from neuronmap.interpretation.explaining.making import ExplainReport, _Maker, estimate_explaining
from neuronmap.interpretation.explaining.templates import parse_template
from neuronmap.interpretation.explaining.told import Told
from neuronmap.interpretation.labels.acts import Label
from neuronmap.progress import SilentProgress

ALL = [WINTER_F, SUMMER_F, NUMBER_F, OF_THE_F]


def explained(planted: Planted, server: FaultyServer, features: list[int], **options: Any) -> ExplainReport:
    settings = {
        name: options.pop(name) for name in ("concurrency", "price_in", "price_out", "tries") if name in options
    }
    config = EndpointConfig(
        **{"base_url": server.address, "model": "tiny", "pause_s": 0.01, "concurrency": 2, **settings}
    )
    return explain_features(planted.store, features, config, progress=SilentProgress(), **options)


def sent(server: FaultyServer, number: int = -1) -> tuple[str, str]:
    system, user = (message["content"] for message in server.requests[number]["messages"])
    return system, user


# --- what is asked --------------------------------------------------------------------------------------------------------


def test_the_prompt_shows_marked_texts_and_the_fixed_part_comes_first(planted: Planted, server: FaultyServer) -> None:
    report = explained(planted, server, [WINTER_F, SUMMER_F], concurrency=1)
    system, user = sent(server, 0)
    assert system == sent(server, 1)[0], "endpoints keep what all prompts begin with"
    lines = [line for line in user.splitlines() if re.match(r"\d+\. ", line)]
    assert len(lines) == 20
    texts = " ".join(lines)
    assert any(f"<<{word.strip()}>>" in texts for word in WINTER)
    label = next(label for label in report.labels if label.feature == WINTER_F)
    assert len(label.evidence["examples"]) == 20
    assert json.loads(json.dumps(label.to_dict())) == label.to_dict()


@pytest.mark.parametrize(
    ("method", "holds", "texts"),
    [("top", "strength from 1 to 10", 10), ("quantiles", "weak ones last", 20), ("contrast", "Silent:", 23), ("promoted", "Likelier:", 0)],
)  # fmt: skip
def test_each_method_asks_its_own_way(
    planted: Planted, server: FaultyServer, method: str, holds: str, texts: int
) -> None:
    report = explained(planted, server, [WINTER_F], methods=[method])
    system, user = sent(server)
    assert holds in system + user
    assert len(re.findall(r"^\d+\. ", user, flags=re.MULTILINE)) == texts
    label = report.labels[0]
    assert (label.method, label.side) == (f"{method}@1", "output" if method == "promoted" else "input")
    assert (label.text, label.explanation) == ("winter", "It fires on winter.")
    if method == "promoted":
        assert "' snow', ' ice'" in user


def test_silent_texts_hold_no_firing_token(planted: Planted, server: FaultyServer) -> None:
    explained(planted, server, [WINTER_F], methods=["contrast"])
    silent = sent(server)[1].partition("Silent:")[2]
    assert not any(word in silent for word in WINTER)


def test_a_label_says_what_it_rests_on(planted: Planted, server: FaultyServer) -> None:
    label = explained(planted, server, [OF_THE_F], price_in=1.0, price_out=2.0).labels[0]
    assert label.sae == SAE
    assert (label.author.kind, label.author.name) == ("model", "tiny")
    assert label.evidence["analysis"] == planted.store.key
    assert label.evidence["tokens"]["prompt"] == 50
    assert label.evidence["cost"] == pytest.approx(70e-6)
    assert label.evidence["prompt"] == explainers()["quantiles"].template.digest


# --- answers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label", "repairs"),
    [
        ('{"label": " \\"Snow.\\" ", "explanation": "It\\nsnows."}', "Snow", []),
        ('{"label": "bell\\u0007", "explanation": "\\u001b[31mred"}', "bell", []),
    ],
)
def test_labels_are_tidied(planted: Planted, server: FaultyServer, text: str, label: str, repairs: list[str]) -> None:
    server.usual = says(text)
    made = explained(planted, server, [WINTER_F]).labels[0]
    assert made.text == label
    assert made.evidence.get("repairs", []) == repairs
    assert made.explanation.isprintable()


LONG = "tokens that name a winter month or winter weather"


def short_says(text: str) -> Any:
    """An endpoint whose labels are too long, and what it answers when it is asked to shorten one."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        first = "You shorten names" not in body["messages"][0]["content"]
        answer = json.dumps({"label": LONG, "explanation": "It fires on snow."}) if first else text
        says(answer)(handler, body)

    return act


def test_a_label_of_too_many_words_is_asked_for_again_once(planted: Planted, server: FaultyServer) -> None:
    server.usual = short_says('{"label": "winter months and weather"}')
    report = explained(planted, server, [WINTER_F], price_in=1.0, price_out=1.0)
    (label,) = report.labels
    assert (label.text, label.explanation) == ("winter months and weather", "It fires on snow.")
    assert len(server.requests) == 2
    system, user = sent(server)
    assert "1 to 6 words" in system
    assert f"Name: {LONG}" in user
    assert "<<" not in user, "the examples are not paid for twice"
    assert label.evidence["whole_label"] == LONG
    assert label.evidence["repairs"] == ["label asked for again: it was too long"]
    assert label.evidence["tokens"]["prompt"] == 100 == report.spent.usage.prompt, "both questions are counted"
    assert label.evidence["cost"] == pytest.approx(120e-6)


@pytest.mark.parametrize(
    "second",
    [json.dumps({"label": LONG}), '{"label": ""}', "I cannot.", None],
    ids=["still too long", "empty", "no JSON", "nothing"],
)
def test_a_label_that_stays_too_long_is_cut_after_a_word_and_kept_whole(
    planted: Planted, server: FaultyServer, second: str | None
) -> None:
    server.usual = short_says(second)  # type: ignore[arg-type]
    (label,) = explained(planted, server, [WINTER_F]).labels
    assert label.text == "tokens that name a winter month…"
    assert label.explanation == f"{LONG}. It fires on snow."
    assert label.evidence["repairs"] == ["label cut: it had 9 words"]
    assert len(server.requests) == 2, "once"


def test_a_label_is_cut_where_no_second_question_can_be_paid(planted: Planted, server: FaultyServer) -> None:
    server.usual = short_says('{"label": "winter"}')
    question = _Maker(planted.store, EndpointConfig(base_url=server.address, model="tiny"), [explainers()["quantiles"]],
                      set(), ExplainReport(), lambda _: None)  # fmt: skip
    (asked,) = question.questions([WINTER_F], None)
    first = asked.question.most_prompt + asked.question.max_tokens
    report = explained(planted, server, [WINTER_F], limit=Limit(tokens=first), concurrency=1)
    server.usual = says(
        json.dumps({"label": LONG, "explanation": ""}), usage={"prompt_tokens": first - 10, "completion_tokens": 9}
    )
    spent = explained(planted, server, [WINTER_F], limit=Limit(tokens=first), concurrency=1)
    assert [label.text for label in report.labels] == ["winter"], "what was put aside and not used pays for it"
    assert [label.text for label in spent.labels] == ["tokens that name a winter month…"]
    assert spent.labels[0].explanation == LONG


@pytest.mark.parametrize(
    ("label", "short"),
    [
        ("very " * 40, "very very very very very very…"),
        ("x" * 200, "x" * 79 + "…"),
        (" ".join(["abcdefghijklmnopqrstuvwxyz"] * 5), " ".join(["abcdefghijklmnopqrstuvwxyz"] * 2) + "…"),
        ("one, two, three, four, five, six, seven", "one, two, three, four, five, six…"),
    ],
)
def test_no_label_has_more_than_six_words_or_eighty_signs(label: str, short: str) -> None:
    made = cut(Told(label.strip(), "why"))
    assert made.label == short
    assert not too_long(made.label)
    assert made.explanation.startswith(label.strip())
    assert too_long(label)


def test_lines_do_where_no_json_can_be_asked_for(planted: Planted, server: FaultyServer) -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        if "response_format" in body:
            fails(400, "response_format is not supported")(handler, body)
        else:
            says("Well.\n**Label:** cold weather\nExplanation: Fires on snow.")(handler, body)

    server.usual = act
    label = explained(planted, server, [WINTER_F]).labels[0]
    assert (label.text, label.explanation) == ("cold weather", "Fires on snow.")
    assert label.evidence["repairs"] == ["lines instead of JSON"]


def test_what_cannot_be_read_is_reported_with_its_text(planted: Planted, server: FaultyServer) -> None:
    server.script = [says("It is about winter, I think.")]
    report = explained(planted, server, [WINTER_F, SUMMER_F], concurrency=1)
    assert [label.feature for label in report.labels] == [SUMMER_F]
    failure = report.failures[0]
    assert (failure.feature, failure.method, failure.raw) == (WINTER_F, "quantiles@1", "It is about winter, I think.")
    assert failure.problem.startswith("malformed")
    again = explained(planted, server, [WINTER_F, SUMMER_F], known=report.labels)
    assert ([label.feature for label in again.labels], again.known) == ([WINTER_F], 1)


def test_too_few_examples_are_said(planted: Planted, server: FaultyServer) -> None:
    report = explained(planted, server, [FEW_F, NEVER_F])
    assert [one.feature for one in report.impossible] == [FEW_F, NEVER_F]
    assert "3 are needed" in report.impossible[0].problem
    assert not server.requests


# --- not twice ------------------------------------------------------------------------------------------------------------


def test_what_is_known_is_not_asked_again(planted: Planted, server: FaultyServer) -> None:
    first = explained(planted, server, ALL)
    assert len(first.labels) == len(server.requests) == 4
    again = explained(planted, server, ALL, known=first.labels)
    assert (again.labels, again.known, len(server.requests)) == ([], 4, 4)
    other = []
    for label in first.labels:
        said = label.model_dump(mode="json", exclude={"id"})
        other.append(Label.from_dict({**said, "evidence": {**label.evidence, "prompt": "sha256:other"}}))
    assert len(explained(planted, server, ALL, known=other).labels) == 4, "another prompt is another label"


def test_answers_on_disk_cost_nothing(planted: Planted, server: FaultyServer) -> None:
    explained(planted, server, ALL, cache=AnswerCache())
    report = explained(planted, server, ALL, cache=AnswerCache())
    assert (len(report.labels), report.spent.cached, report.spent.tokens, len(server.requests)) == (4, 4, 0, 4)


# --- how it ends ----------------------------------------------------------------------------------------------------------


def test_a_budget_ends_the_run_and_keeps_what_was_made(planted: Planted, server: FaultyServer) -> None:
    kept: list[Label] = []
    bound = estimate_explaining(planted.store, [WINTER_F], EndpointConfig(base_url=server.address, model="tiny")).most
    server.usual = says('{"label": "a", "explanation": ""}', usage={"prompt_tokens": 1900, "completion_tokens": 9})
    report = explained(planted, server, ALL, limit=Limit(tokens=bound + 1000), keep=kept.append, concurrency=1)
    assert 1 <= len(report.labels) < 4
    assert "is used up" in report.stopped
    assert kept == report.labels
    assert report.spent.tokens <= bound + 1000


def test_an_endpoint_that_fails_in_the_middle_leaves_what_was_made(planted: Planted, server: FaultyServer) -> None:
    kept: list[Label] = []
    server.script = [says('{"label": "a", "explanation": ""}')] * 2
    server.usual = fails(401, "key expired")
    with pytest.raises(EndpointError, match="key expired"):
        explained(planted, server, ALL, keep=kept.append, concurrency=1)
    assert [label.feature for label in kept] == ALL[:2]


def test_answers_under_way_are_waited_for(planted: Planted, server: FaultyServer) -> None:
    kept: list[Label] = []
    server.script = [slow(0.5, says('{"label": "late", "explanation": ""}')), fails(403)]
    with pytest.raises(EndpointError):
        explained(planted, server, ALL, keep=kept.append, concurrency=2)
    assert [label.text for label in kept] == ["late"]


def test_questions_that_are_all_refused_end_the_run(planted: Planted, server: FaultyServer) -> None:
    server.usual = fails(400, "The context length is exceeded")
    methods = ["quantiles", "top"]
    with pytest.raises(EndpointError, match="first 5 questions were all refused"):
        explained(planted, server, ALL, methods=methods, concurrency=1)


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.endpoint import EndpointConfig
from neuronmap.interpretation.explaining import explain_features
from neuronmap.errors import Interrupted
config = EndpointConfig(base_url={address!r}, model="tiny", concurrency=2)
store = FeatureStore.open({folder!r})
try:
    explain_features(store, [0, 1, 2, 3], config, keep=lambda label: print(label.feature, flush=True))
except Interrupted as error:
    print("interrupted", error.hint)
"""


def test_ctrl_c_waits_for_what_is_paid(planted: Planted, server: FaultyServer) -> None:
    server.usual = slow(1.0, says('{"label": "a", "explanation": ""}'))
    script = SCRIPT.format(paths=sys.path, address=server.address, folder=str(planted.store.path))
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(server.requests) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    shown, _ = running.communicate(timeout=60)
    lines = shown.splitlines()
    assert sorted(lines[:2]) == ["0", "1"]
    assert lines[2].startswith("interrupted What was finished is kept")
    assert running.returncode == 0
    assert os.name != "posix" or len(server.requests) == 2


def test_it_runs_where_a_loop_runs_already(planted: Planted, server: FaultyServer) -> None:
    import asyncio

    async def notebook() -> ExplainReport:
        return explained(planted, server, [WINTER_F])

    assert len(asyncio.run(notebook()).labels) == 1
    assert threading.active_count() < 20


# --- estimates, settings, plug-ins ------------------------------------------------------------------------------------------


def test_an_estimate_is_near_what_is_counted_and_asks_nothing(planted: Planted, server: FaultyServer) -> None:
    config = EndpointConfig(base_url=server.address, model="tiny", price_in=1.0, price_out=4.0)
    found = estimate_explaining(planted.store, [*ALL, FEW_F], config, methods=["quantiles", "promoted"])
    assert not server.requests
    assert (found.calls, found.impossible) == (5, 5)  # only one has promoted tokens
    assert found.money == pytest.approx((found.prompt + 4 * found.completion) / 1e6)

    def act(handler: Handler, body: dict[str, Any]) -> None:
        prompt = sum(len(message["content"]) for message in body["messages"])
        handler.send(
            200,
            completion('{"label": "a", "explanation": "b"}', usage={"prompt_tokens": prompt, "completion_tokens": 9}),
        )

    server.usual = act
    report = explained(planted, server, [*ALL, FEW_F], methods=["quantiles", "promoted"])
    assert report.spent.usage.prompt / 4.2 < found.prompt < report.spent.usage.prompt / 3.2
    assert found.most > report.spent.usage.total


def test_wrong_input_is_answered(planted: Planted, server: FaultyServer) -> None:
    with pytest.raises(ConfigError, match="no way to explain called 'magic'") as caught:
        explained(planted, server, [0], methods=["magic"])
    assert "quantiles, top, contrast, promoted" in caught.value.hint
    with pytest.raises(InputError, match="no feature 99"):
        explained(planted, server, [99])
    assert not server.requests


def test_a_plug_in_adds_a_way_to_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Explainer):
        name, about = "mine", "my way"

    given: list[Any] = [Mine()]
    monkeypatch.setattr(plugins, "collect", lambda hook: given if hook == "neuronmap_explainers" else [])
    assert "mine" in explainers()
    given[:] = [Mine(), Mine()]
    with pytest.raises(PluginError, match="Explainer called 'mine'"):
        explainers()
    given[:] = [object()]
    with pytest.raises(PluginError, match="no Explainer"):
        explainers()


def test_prompts_are_files_of_two_parts() -> None:
    for explainer in explainers().values():
        template = explainer.template
        assert template.method == explainer.method
        assert "$" not in template.system, "the fixed part is the same for every feature"
        assert "JSON object" in template.system
    with pytest.raises(InputError, match="not a part"):
        parse_template("x", 1, "--- user\n$texts\n")
    assert ID
