"""Nothing is asked twice, nothing is spent above the budget, and no key is written anywhere."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from faulty_server import GOOD, FaultyServer, Handler, completion, fails, says, slow
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.errors import BudgetError, ConfigError, EndpointError, NeuronMapError
from neuronmap.interpretation.endpoint import Answer, Endpoint, EndpointConfig, Limit, Question, parse_budget
from neuronmap.interpretation.endpoint.cache import AnswerCache, question_digest
from neuronmap.interpretation.endpoint.parsing import conforms, read_json_answer

SECRET = "sk-very-secret-1234567890"


def config(server: FaultyServer, **values: Any) -> EndpointConfig:
    return EndpointConfig(**{"base_url": server.address, "model": "m", "pause_s": 0.01, "tries": 3, **values})


def questions(number: int, length: int = 40) -> list[Question]:
    return [Question((("user", f"{each:04d}" + "x" * length),), 50) for each in range(number)]


async def all_asked(endpoint: Endpoint, wanted: list[Question]) -> list[Answer | BaseException]:
    async with endpoint:
        return await asyncio.gather(*(endpoint.ask(one) for one in wanted), return_exceptions=True)


# --- cache ----------------------------------------------------------------------------------------------------------------


def test_an_answer_is_paid_once(server: FaultyServer) -> None:
    wanted = questions(3)

    async def run() -> tuple[list[Answer | BaseException], int, int, int]:
        endpoint = Endpoint(config(server), cache=AnswerCache())
        found = await all_asked(endpoint, wanted)
        return found, endpoint.spent.calls, endpoint.spent.cached, endpoint.spent.tokens

    first, second = asyncio.run(run()), asyncio.run(run())
    assert (first[1:], second[1:]) == ((3, 0, 180), (0, 3, 0))
    texts = [[one.text for one in run[0] if isinstance(one, Answer)] for run in (first, second)]
    assert texts[0] == texts[1] == [GOOD] * 3
    assert len(server.requests) == 3


def test_a_cached_answer_needs_no_budget(server: FaultyServer) -> None:
    wanted = questions(1)
    asyncio.run(all_asked(_made(config(server), None, AnswerCache()), wanted))
    found = asyncio.run(all_asked(_made(config(server), Limit(tokens=1), AnswerCache()), wanted))
    assert isinstance(found[0], Answer)
    assert found[0].usage.cached


def _made(settings: EndpointConfig, limit: Limit | None, cache: AnswerCache | None) -> Any:
    return Endpoint(settings, limit, cache)


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"temperature": 0.5}, {"seed": 1}, {"base_url": "http://other/v1"}]
)
def test_whatever_decides_an_answer_is_in_its_digest(server: FaultyServer, change: dict[str, Any]) -> None:
    question = questions(1)[0]
    assert question_digest(config(server), question) != question_digest(config(server, **change), question)


def test_a_damaged_file_of_the_cache_is_asked_again(server: FaultyServer, home: Path) -> None:
    asyncio.run(all_asked(_made(config(server), None, AnswerCache()), questions(1)))
    file = next((home / "cache" / "endpoint").glob("??/*.json"))
    file.write_text("{")
    found = asyncio.run(all_asked(_made(config(server), None, AnswerCache()), questions(1)))
    assert isinstance(found[0], Answer)
    assert len(server.requests) == 2


# --- concurrency and budget ----------------------------------------------------------------------------------------------


def test_no_more_are_under_way_than_allowed(server: FaultyServer) -> None:
    server.usual = slow(0.05, says(GOOD))
    asyncio.run(all_asked(_made(config(server, concurrency=3), None, None), questions(12)))
    assert server.most_under_way == 3


def _whims(handler: Handler, body: dict[str, Any]) -> None:
    """Answers of any length up to the bound, failures, and answers that come too late."""
    chance = random.random()
    if chance < 0.15:
        fails(500)(handler, body)
    elif chance < 0.25:
        slow(2.5, says(GOOD))(handler, body)
    else:
        prompt = len(str(body["messages"][0]["content"]).encode())
        written = random.randint(1, body["max_completion_tokens"])
        handler.send(200, completion(GOOD, usage={"prompt_tokens": prompt, "completion_tokens": written}))


@pytest.mark.parametrize("limit", [Limit(tokens=1500), Limit(money=0.002)], ids=["tokens", "money"])
def test_the_budget_is_never_exceeded(server: FaultyServer, limit: Limit) -> None:
    random.seed(0)
    server.usual = _whims
    settings = config(server, concurrency=6, price_in=1.0, price_out=2.0, timeout_s=1.5, tries=20)
    endpoint = _made(settings, limit, None)
    found = asyncio.run(all_asked(endpoint, questions(60)))
    spent = endpoint.spent
    assert any(isinstance(one, BudgetError) for one in found)
    assert any(isinstance(one, Answer) for one in found)
    assert spent.usage.total > 0
    if limit.tokens is not None:
        assert 0.7 * limit.tokens < spent.tokens <= limit.tokens
    else:
        assert limit.money is not None
        assert 0.7 * limit.money < spent.money <= limit.money


def test_what_is_held_for_others_is_waited_for(server: FaultyServer) -> None:
    """The bound of each question is far above what it costs; with eight at once all of them fit all the same."""
    server.usual = slow(0.02, says(GOOD))
    endpoint = _made(config(server, concurrency=8), Limit(tokens=600), None)
    found = asyncio.run(all_asked(endpoint, questions(8)))
    assert all(isinstance(one, Answer) for one in found)
    assert endpoint.spent.tokens == 8 * 60


def test_a_budget_in_money_needs_prices(server: FaultyServer) -> None:
    with pytest.raises(ConfigError, match="needs prices"):
        _made(config(server), Limit(money=1.0), None)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("200000", Limit(200_000)), ("200k", Limit(200_000)), ("2M tokens", Limit(2_000_000)), ("$1.50", Limit(money=1.5)),
     ("0.5usd", Limit(money=0.5))],
)  # fmt: skip
def test_budgets_as_typed(text: str, limit: Limit) -> None:
    assert parse_budget(text) == limit


@pytest.mark.parametrize("text", ["", "0", "-3", "many", "$5 tokens", "1e5"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="neither"):
        parse_budget(text)


# --- keys -----------------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_written_nowhere(
    server: FaultyServer, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    asyncio.run(all_asked(_made(config(server, key_env="MY_KEY"), None, AnswerCache()), questions(1)))
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    server.usual = fails(401, f"Incorrect API key provided: {SECRET}")
    found = asyncio.run(all_asked(_made(config(server, key_env="MY_KEY"), None, AnswerCache()), questions(2)[1:]))
    assert isinstance(found[0], EndpointError)
    written = [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert len(written) == 1
    shown = capfd.readouterr()
    for text in (
        *written,
        str(found[0]).encode(),
        repr(config(server, key_env="MY_KEY")).encode(),
        (shown.out + shown.err).encode(),
    ):
        assert SECRET.encode() not in text


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"key_env": SECRET}, "not the name of an environment variable"),
        ({"base_url": f"https://user:{SECRET}@example.org/v1"}, "a user or a password"),
        ({"key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"base_url": "ftp://example.org"}, "an address with http"),
        ({"base_url": "https://example.org/v1?key=1"}, "without [?]"),
    ],
)
def test_wrong_settings_are_refused_without_repeating_a_key(
    server: FaultyServer, values: dict[str, Any], match: str
) -> None:
    with pytest.raises(NeuronMapError, match=match) as caught:
        _made(config(server, **values), None, None)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_address_may_end_in_the_path_that_is_added() -> None:
    assert EndpointConfig(base_url="http://a/v1/chat/completions", model="m").base_url == "http://a/v1"


# --- reading JSON ---------------------------------------------------------------------------------------------------------

_values = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=4), _values, max_size=3),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_an_object_is_found_in_any_prose_that_has_no_brackets(value: Any, before: str, after: str) -> None:
    import json

    clean = [text.translate(str.maketrans("", "", "{}[]`")) for text in (before, after)]
    found, _, problem = read_json_answer(clean[0] + json.dumps(value) + clean[1], {"type": "object"})
    assert problem == ""
    # the comma that a bracket follows may stand within a string: only then is the repaired value another
    assert found == value


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    read_json_answer(text, {"type": "array", "items": {"type": "integer"}})


def test_conforming() -> None:
    schema = {"type": "array", "items": {"type": "integer", "enum": [0, 1]}, "minItems": 2, "maxItems": 2}
    assert conforms([0, 1], schema) == ""
    assert "3 entries, not 2" in conforms([0, 1, 1], schema)
    assert "none of" in conforms([0, 2], schema)
    assert "type integer" in conforms([0, True], schema)
    assert "not from 0 to 9" in conforms(12, {"type": "integer", "minimum": 0, "maximum": 9})
