"""Each fault of an endpoint has one stated behaviour; the table of docs/how-to/explain-features.md is this file."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from faulty_server import GOOD, Act, FaultyServer, drops, fails, refuses, says, sends, slow

from neuronmap.errors import EndpointError
from neuronmap.interpretation.endpoint import Answer, Endpoint, EndpointConfig, Limit, Question, Spending
from neuronmap.interpretation.endpoint.cache import AnswerCache

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "explanation": {"type": "string"}},
    "required": ["label", "explanation"],
    "additionalProperties": False,
}
QUESTION = Question((("system", "You are careful."), ("user", "What is it?")), max_tokens=100, schema=SCHEMA)
QUICK: dict[str, Any] = {"pause_s": 0.01, "timeout_s": 60.0, "tries": 4}


def asked(
    server: FaultyServer,
    *,
    questions: list[Question] | None = None,
    limit: Limit | None = None,
    cache: AnswerCache | None = None,
    **settings: Any,
) -> tuple[list[Answer], Spending]:
    """Answers to questions that are asked at once."""

    async def run() -> tuple[list[Answer], Spending]:
        config = EndpointConfig(base_url=server.address, model="m", **{**QUICK, **settings})
        async with Endpoint(config, limit, cache) as endpoint:
            found = await asyncio.gather(*(endpoint.ask(one) for one in questions or [QUESTION]))
            return list(found), endpoint.spent

    return asyncio.run(run())


def one(server: FaultyServer, **settings: Any) -> Answer:
    return asked(server, **settings)[0][0]


# --- sent again ----------------------------------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return email.utils.format_datetime(at, usegmt=True)


@pytest.mark.parametrize(
    ("header", "least"),
    [(lambda: {"Retry-After": "1"}, 1.0), (lambda: {"Retry-After": http_date(3)}, 0.5), (lambda: {"retry-after-ms": "600"}, 0.6)],
    ids=["seconds", "date", "milliseconds"],
)  # fmt: skip
def test_429_waits_as_long_as_it_is_told(
    server: FaultyServer, header: Callable[[], dict[str, str]], least: float
) -> None:
    server.script = [fails(429, "slow down", header())]
    assert one(server).value["label"] == "winter"
    assert server.times[1] - server.times[0] >= least


def test_after_429_nobody_else_is_sent_either(server: FaultyServer) -> None:
    server.script = [fails(429, "slow down", {"Retry-After": "0.7"})]
    questions = [Question((("user", f"question {number}"),), 10) for number in range(4)]
    found, spent = asked(server, questions=questions, concurrency=1)
    assert [answer.problem for answer in found] == [""] * 4
    assert min(server.times[1:]) - server.times[0] >= 0.7
    assert (spent.calls, spent.retries) == (4, 1)


def test_a_wait_that_is_too_long_ends_the_run(server: FaultyServer) -> None:
    server.script = [fails(429, "quota of the day", {"Retry-After": "7200"})]
    with pytest.raises(EndpointError, match=r"wait 7,200 s \(quota of the day\)") as caught:
        one(server, longest_wait_s=60.0)
    assert "goes on from there" in caught.value.hint
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        fails(500), fails(502), fails(503), fails(529), fails(408),
        sends(200, b"<html>gateway</html>"), sends(200, b'{"choices": []}'),
        drops(), drops(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"),
    ],
    ids=["500", "502", "503", "529", "408", "no JSON", "no choice", "dropped", "dropped in the answer"],
)  # fmt: skip
def test_what_may_pass_is_sent_again(server: FaultyServer, fault: Act) -> None:
    server.script = [fault, fault]
    found, spent = asked(server)
    assert found[0].value == {"label": "winter", "explanation": "It fires on winter."}
    assert (len(server.requests), spent.calls, spent.retries) == (3, 1, 2)


def test_pauses_grow(server: FaultyServer) -> None:
    server.script = [fails(500)] * 3
    one(server, pause_s=0.2)
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    for number, gap in enumerate(gaps):
        assert gap >= 0.1 * 2**number  # how much more it is depends on what else the machine does


def test_it_gives_up_in_the_end_and_says_so(server: FaultyServer) -> None:
    server.usual = fails(503, "overloaded")
    with pytest.raises(EndpointError, match="no answer in 4 tries; the last: status 503: overloaded"):
        one(server)
    assert len(server.requests) == 4


def test_a_slow_answer_is_asked_for_again(server: FaultyServer) -> None:
    server.script = [slow(20.0, says(GOOD))]
    started = time.monotonic()
    assert one(server, timeout_s=2.0).value["label"] == "winter"
    assert time.monotonic() - started < 15
    assert len(server.requests) >= 2


def test_a_server_that_is_not_there(server: FaultyServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def ask() -> None:
        async with Endpoint(EndpointConfig(base_url=address, model="m", **{**QUICK, "tries": 2})) as endpoint:
            await endpoint.ask(QUESTION)

    with pytest.raises(EndpointError, match="no answer in 2 tries; the last: no connection"):
        asyncio.run(ask())


# --- at once fatal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_what_will_not_pass_is_not_sent_again(server: FaultyServer, status: int) -> None:
    server.script = [fails(status, "go away", {"Location": "http://elsewhere.example"})]
    with pytest.raises(EndpointError, match=f"status {status}: go away"):
        one(server)
    assert len(server.requests) == 1


# --- a form that is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "form"),
    [(("json_schema",), "json_object"), (("response_format",), "text"), (("max_completion_tokens",), "json_schema"),
     (("json_schema", "max_completion_tokens", "temperature", "seed", "logprobs"), "json_object")],
    ids=["json_schema", "response_format", "max_completion_tokens", "nearly all"],
)  # fmt: skip
def test_a_refused_parameter_is_put_another_way_and_remembered(
    server: FaultyServer, names: tuple[str, ...], form: str
) -> None:
    server.usual = refuses(*names, then=says(GOOD))
    cache = AnswerCache()
    question = Question(QUESTION.messages, 100, SCHEMA, top_logprobs=5)
    answer = one(server, cache=cache, seed=3, questions=[question])
    assert (answer.problem, answer.form, answer.value["label"]) == ("", form, "winter")
    refused = len(server.requests) - 1
    assert refused >= len(names)
    last = server.requests[-1]
    assert ("max_tokens" in last) == ("max_completion_tokens" in names)
    # another run asks in the right way at once
    assert one(server, cache=cache, seed=3, questions=[Question((("user", "another"),), 100, SCHEMA, 5)]).form == form
    assert len(server.requests) == refused + 2


def test_a_refusal_without_a_reason_changes_one_thing_after_the_other(server: FaultyServer) -> None:
    def act(handler: Any, body: dict[str, Any]) -> None:
        (fails(400, "Bad request") if "temperature" in body else says(GOOD))(handler, body)

    server.usual = act
    assert one(server).value["label"] == "winter"
    sent = [set(body) - {"model", "messages"} for body in server.requests]
    assert sent[0] == {"response_format", "max_completion_tokens", "temperature"}
    assert "temperature" not in sent[-1]


def test_a_question_that_is_refused_in_every_form_is_a_failure_and_teaches_nothing(server: FaultyServer) -> None:
    cache = AnswerCache()
    server.usual = fails(400, "I do not like this question")
    assert one(server, cache=cache).problem == "refused: I do not like this question"
    server.usual = says(GOOD)
    one(server, cache=cache)
    assert "json_schema" in str(server.requests[-1])


def test_a_prompt_that_is_too_long_is_refused_at_once(server: FaultyServer) -> None:
    server.usual = fails(400, "This model's maximum context length is 8192 tokens.")
    assert one(server).problem.startswith("refused: This model's maximum context length")
    assert len(server.requests) == 1


def test_with_a_budget_an_answer_is_never_without_a_bound(server: FaultyServer) -> None:
    server.usual = refuses("max_completion_tokens", "max_tokens", then=says(GOOD))
    assert one(server).value["label"] == "winter"
    assert one(server, limit=Limit(tokens=10_000)).problem.startswith("refused")


# --- answers that cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        (GOOD, ()),
        (f"<think>It may be {{}} or so.</think>\n{GOOD}", ()),
        (f"thinking that was opened in the prompt</think>{GOOD}", ()),
        (f"```json\n{GOOD}\n```", ("code fence",)),
        (f"Here you are: {GOOD} I hope it helps.", ("text around it",)),
        ('{"label": "winter", "explanation": "It fires on winter.",}', ("text around it", "comma before a bracket")),
    ],
    ids=["plain", "thinking", "end of thinking", "fence", "prose", "comma"],
)
def test_json_is_repaired_in_stated_ways(server: FaultyServer, text: str, repairs: tuple[str, ...]) -> None:
    server.script = [says(text)]
    answer = one(server)
    assert (answer.value, answer.repairs) == ({"label": "winter", "explanation": "It fires on winter."}, repairs)
    assert answer.raw == text


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        ("{'label': 'winter'}", "stop", "malformed: there is no whole JSON value in it"),
        ('{"label": "winter"}', "stop", "malformed: the answer lacks explanation"),
        ('{"label": 3, "explanation": ""}', "stop", "malformed: label is not of type string"),
        ('{"label": "winter", "expl', "length", "truncated: it was cut off after 10 tokens"),
        ("<think>I wonder whether", "length", "truncated: it was cut off after 10 tokens"),
        ("", "stop", "empty: there is no text in it"),
        (None, "content_filter", "empty: there is no text in it"),
    ],
)
def test_what_cannot_be_read_is_a_failure_with_its_text_kept(
    server: FaultyServer, text: str | None, finish: str, problem: str
) -> None:
    server.script = [says(text, finish)]
    answer = one(server, cache=AnswerCache())
    assert (answer.value, answer.problem, answer.raw) == (None, problem, text or "")
    assert len(server.requests) == 1  # asking again at temperature 0 gives the same
    assert one(server, cache=AnswerCache()).value is not None, "a bad answer is not kept: the next run asks again"


def test_free_text_that_was_cut_off_is_a_failure_too(server: FaultyServer) -> None:
    server.script = [says("and so", "length")]
    answer = one(server, questions=[Question((("user", "Go on"),), 10)])
    assert (answer.text, answer.problem[:9]) == ("and so", "truncated")


def test_a_missing_usage_is_estimated_and_said_to_be(server: FaultyServer) -> None:
    server.script = [says(GOOD, usage={})]
    found, spent = asked(server)
    assert found[0].usage.estimated
    assert spent.usage.estimated
    assert found[0].usage.prompt == QUESTION.expected_prompt > 0
    assert 10 <= found[0].usage.completion <= 25


def test_logprobs_are_given_where_the_endpoint_has_them(server: FaultyServer) -> None:
    content = [
        {
            "token": "7",
            "logprob": -0.1,
            "top_logprobs": [{"token": "7", "logprob": -0.1}, {"token": "8", "logprob": -2.5}],
        }
    ]
    server.script = [says("7", logprobs={"content": content}), says("8")]
    question = Question((("user", "How much?"),), 5, top_logprobs=2)
    tokens = one(server, questions=[question]).tokens
    assert tokens is not None
    assert (tokens[0].token, tokens[0].alternatives) == ("7", (("7", -0.1), ("8", -2.5)))
    assert one(server, questions=[question]).tokens is None
