"""What a request looks like for an endpoint that does not take everything: what it refused with 400 is left out or put another way.

| parameter | put another way |
| --- | --- |
| ``response_format`` | ``json_schema``, then ``json_object``, then none: the prompt asks for JSON all the same |
| ``max_completion_tokens`` | ``max_tokens``, then none (never with a budget: an answer without a bound could exceed it) |
| ``logprobs``, ``temperature``, ``seed`` | left out |

A refusal that names a parameter changes that one. One that names none changes them one after the other, and if the last is refused as
well, it was none of them: nothing is remembered and the question counts as refused.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from neuronmap.interpretation.endpoint.config import EndpointConfig
from neuronmap.interpretation.endpoint.question import Question

__all__ = ["FORMS", "Manner", "request_body"]

FORMS = ("json_schema", "json_object", "text")
_LIMITS = ("max_completion_tokens", "max_tokens", "")
_NAMED = {
    "form": re.compile(r"response_format|json_schema|json_object|guided|structured output", re.IGNORECASE),
    "limit": re.compile(r"max_completion_tokens|max_tokens", re.IGNORECASE),
    "logprobs": re.compile(r"logprobs", re.IGNORECASE),
    "temperature": re.compile(r"temperature", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
}
_TOO_LONG = re.compile(r"context[ _]length|maximum context|too (long|many tokens)|context window", re.IGNORECASE)


@dataclass(frozen=True)
class Manner:
    """How an endpoint is asked.

    Attributes:
        form: index into :data:`FORMS`.
        limit: index of the name that the bound of the answer is sent under; 2: not sent.
        logprobs, temperature, seed: whether they are sent.
    """

    form: int = 0
    limit: int = 0
    logprobs: bool = True
    temperature: bool = True
    seed: bool = True

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Manner:
        """As written by :meth:`to_dict`; what it does not know is left out."""
        usual = asdict(cls())
        known = {name: value for name, value in values.items() if type(value) is type(usual.get(name))}
        made = cls(**{**usual, **known})
        return replace(made, form=min(max(made.form, 0), 2), limit=min(max(made.limit, 0), 2))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def after_refusal(self, message: str, body: dict[str, Any], *, bounded: bool) -> Manner | None:
        """How to ask after a 400.

        Args:
            message: what the endpoint said.
            body: what had been sent.
            bounded: whether an answer must have a bound.

        Returns:
            None where nothing is left to change, or the prompt is too long.
        """
        if _TOO_LONG.search(message) and not _NAMED["limit"].search(message):
            return None
        sent = {
            "form": "response_format" in body,
            "limit": any(name in body for name in _LIMITS if name) and not (bounded and self.limit == 1),
            "seed": "seed" in body,
            "temperature": "temperature" in body,
            "logprobs": "logprobs" in body,
        }
        named = [name for name, pattern in _NAMED.items() if sent[name] and pattern.search(message)]
        usable = named or [name for name, there in sent.items() if there]
        if not usable:
            return None
        name = usable[0]
        if name in ("form", "limit"):
            return replace(self, **{name: getattr(self, name) + 1})
        return replace(self, **{name: False})


def request_body(config: EndpointConfig, question: Question, manner: Manner) -> dict[str, Any]:
    """The request for a question."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [{"role": role, "content": text} for role, text in question.messages],
    }
    if _LIMITS[manner.limit]:
        body[_LIMITS[manner.limit]] = question.max_tokens
    if config.temperature is not None and manner.temperature:
        body["temperature"] = config.temperature
    if config.seed is not None and manner.seed:
        body["seed"] = config.seed
    if question.top_logprobs and manner.logprobs:
        body |= {"logprobs": True, "top_logprobs": question.top_logprobs}
    if question.schema is not None and manner.form == 0:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": question.schema},
        }
    elif question.schema is not None and manner.form == 1:
        body["response_format"] = {"type": "json_object"}
    return body
