"""A model behind an OpenAI-compatible address: answers of a schema can always be read, log-probabilities are the model's."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from neuronmap.errors import InputError, ResourceError
from neuronmap.models import LanguageModel
from neuronmap.models.answering import ChatModel
from neuronmap.models.serving import ChatServer

CHAT = [{"role": "user", "content": "The river"}]
CHOICES = {"type": "array", "items": {"type": "integer", "enum": [0, 1]}, "minItems": 3, "maxItems": 3}
SCHEMA = {"type": "object", "properties": {"a": CHOICES, "b": {"type": "boolean"}}, "required": ["a", "b"]}

NUMBER = {"type": "json_schema", "json_schema": {"schema": {"type": "number"}}}


@pytest.fixture(scope="module")
def chat(tiny_llama: LanguageModel) -> ChatModel:
    return ChatModel(tiny_llama)


@pytest.fixture(scope="module")
def server(chat: ChatModel) -> Iterator[ChatServer]:
    with ChatServer(chat, "tiny") as running:
        yield running


def posted(server: ChatServer, body: Any, path: str = "/chat/completions") -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_free_text_is_the_likeliest_continuation(chat: ChatModel, tiny_llama: LanguageModel) -> None:
    found = chat.answer(CHAT, max_tokens=6)
    ids = torch.tensor([tiny_llama.tokenizer("The river\n\n")["input_ids"]])
    for token, value, _ in found.tokens:
        logits = tiny_llama.logits(ids)[0, -1].float()
        assert tiny_llama.tokenizer.decode([int(logits.argmax())]) == token
        assert value == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    assert found.completion_tokens == len(found.tokens)


def test_what_prompts_share_changes_nothing(tiny_llama: LanguageModel) -> None:
    used = ChatModel(tiny_llama)
    for text in ("The river froze", "The river", "The river froze in winter", "A fox", "A fox"):
        chat = [{"role": "user", "content": text}]
        fresh = ChatModel(tiny_llama).answer(chat, max_tokens=5)
        assert used.answer(chat, max_tokens=5).text == fresh.text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_of_a_schema_can_be_read(tiny_llama: LanguageModel, temperature: float) -> None:
    found = ChatModel(tiny_llama).answer(CHAT, max_tokens=50, schema=SCHEMA, temperature=temperature, seed=3)
    value = json.loads(found.text)
    assert found.finish == "stop"
    assert len(value["a"]) == 3
    assert set(value["a"]) <= {0, 1}
    assert isinstance(value["b"], bool)


def test_strings_of_a_schema_are_json_whatever_the_model_writes(tiny_llama: LanguageModel) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    chat = ChatModel(tiny_llama)
    for seed in range(6):
        found = chat.answer(CHAT, max_tokens=40, schema=schema, temperature=2.0, seed=seed)
        if found.finish == "stop":
            assert isinstance(json.loads(found.text)["label"], str)
    short = chat.answer(CHAT, max_tokens=3, schema=schema)
    assert short.finish == "length"


def test_alternatives_of_a_choice_are_only_those_allowed(chat: ChatModel) -> None:
    found = chat.answer(CHAT, max_tokens=50, schema=SCHEMA, top_logprobs=5)
    chosen = [tops for token, _, tops in found.tokens if token in ("0", "1") and tops]
    assert len(chosen) == 3
    for tops in chosen:
        assert {text for text, _ in tops} == {"0", "1"}
        assert sum(torch.tensor([value for _, value in tops]).exp()) == pytest.approx(1.0, abs=1e-4)


def test_over_http(server: ChatServer) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    body = {
        "model": "tiny",
        "messages": CHAT,
        "max_completion_tokens": 50,
        "response_format": form,
        "logprobs": True,
        "top_logprobs": 2,
    }
    status, found = posted(server, body)
    assert status == 200
    choice = found["choices"][0]
    assert len(json.loads(choice["message"]["content"])["a"]) == 3
    assert len(choice["logprobs"]["content"]) == found["usage"]["completion_tokens"]
    with urllib.request.urlopen(server.address + "/models", timeout=60) as response:
        assert json.loads(response.read())["data"][0]["id"] == "tiny"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"), (b"[]", "no JSON object"), ({"messages": []}, "messages"), ({"messages": CHAT, "max_tokens": 0}, "max_tokens"),
        ({"messages": CHAT, "temperature": 9}, "temperature"),
        ({"messages": CHAT, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": CHAT, "max_tokens": 9, "response_format": NUMBER}, "response_format"),
        ({"messages": CHAT, "max_tokens": 100}, "maximum context length"),
    ],
)  # fmt: skip
def test_what_it_cannot_answer_is_said(server: ChatServer, body: Any, said: str) -> None:
    status, found = posted(server, body)
    assert status == 400
    assert said in found["error"]["message"]


def test_other_paths_and_large_bodies(server: ChatServer) -> None:
    assert posted(server, {}, "/nothing")[0] == 404
    request = urllib.request.Request(server.address + "/chat/completions", b"x", {"Content-Length": "99999999"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    caught.value.close()
    assert caught.value.code == 413


def test_a_port_that_is_taken(server: ChatServer, chat: ChatModel) -> None:
    port = int(server.address.split(":")[2].partition("/")[0])
    with pytest.raises(ResourceError, match="Cannot listen"):
        ChatServer(chat, "tiny", port=port)


def test_many_at_once_are_answered_one_by_one(server: ChatServer) -> None:
    found: list[str] = []
    body = {"messages": CHAT, "max_tokens": 4}
    asking = [
        threading.Thread(target=lambda: found.append(posted(server, body)[1]["choices"][0]["message"]["content"]))
        for _ in range(5)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(found) == 5
    assert len(set(found)) == 1


def test_a_model_without_a_head_cannot_answer(tiny_llama: LanguageModel) -> None:
    with pytest.raises(InputError, match="maximum context length"):
        ChatModel(tiny_llama).answer([{"role": "user", "content": "river " * 100}], max_tokens=5)
