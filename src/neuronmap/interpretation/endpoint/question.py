"""What is asked of a language model, and what comes back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from neuronmap.hashing import canonical_json

__all__ = ["Answer", "Question", "TokenChoice", "Usage", "estimated_tokens", "most_tokens"]

_CHARACTERS_A_TOKEN = 3.7
_MESSAGE_TOKENS = 4
"""What chat formats add around a message, in an estimate."""
_MOST_MESSAGE_TOKENS = 32
"""The same, at most."""


@dataclass(frozen=True)
class Question:
    """One question: messages, and the form of the answer.

    Attributes:
        messages: (role, text) pairs.
        max_tokens: most tokens of the answer.
        schema: JSON schema of the answer; None for free text.
        top_logprobs: alternatives with log-probabilities wanted at each token of the answer; 0 for none.
    """

    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    top_logprobs: int = 0

    @property
    def expected_prompt(self) -> int:
        """Tokens of the prompt, estimated."""
        return sum(estimated_tokens(text) + _MESSAGE_TOKENS for _, text in self.messages)

    @property
    def most_prompt(self) -> int:
        """Tokens of the prompt, at most; some endpoints put the schema into it."""
        schema = most_tokens(canonical_json(self.schema)) + _MOST_MESSAGE_TOKENS if self.schema is not None else 0
        return schema + sum(most_tokens(text) + _MOST_MESSAGE_TOKENS for _, text in self.messages)


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, or of several.

    Attributes:
        prompt, completion: tokens.
        estimated: whether the endpoint did not say and they are estimated.
        cached: whether the answer was on this machine already, at no cost.
    """

    prompt: int = 0
    completion: int = 0
    estimated: bool = False
    cached: bool = False

    @property
    def total(self) -> int:
        """Both."""
        return self.prompt + self.completion

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.estimated or other.estimated,
            self.cached and other.cached,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class TokenChoice:
    """One token of an answer with the log-probabilities of what could have stood there.

    Attributes:
        token: its text.
        alternatives: (text, natural log-probability) pairs, the token's own among them.
    """

    token: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Answer:
    """What a language model said.

    Attributes:
        text: its text, thinking taken out.
        raw: its text as it came.
        finish: why it ended: ``stop``, ``length`` (cut off), ...
        usage: tokens.
        value: the JSON value, if one was asked for and could be read.
        problem: why there is no value (``truncated: ...``, ``malformed: ...``, ``refused: ...``, ``empty: ...``); empty for a good answer.
        repairs: what was done to read the value, in words.
        form: how the form was asked for: ``json_schema``, ``json_object`` or ``text``.
        tokens: the answer's tokens with log-probabilities; None where the endpoint gives none.
    """

    text: str
    raw: str
    finish: str
    usage: Usage
    value: Any = None
    problem: str = ""
    repairs: tuple[str, ...] = ()
    form: str = "text"
    tokens: tuple[TokenChoice, ...] | None = None


def estimated_tokens(text: str) -> int:
    """Tokens of a text, about: a token for every 3.7 characters, or for every 3 bytes where that is more (other scripts)."""
    return math.ceil(max(len(text) / _CHARACTERS_A_TOKEN, len(text.encode()) / 3 if not text.isascii() else 0))


def most_tokens(text: str) -> int:
    """Tokens of a text, at most: byte-level vocabularies never have more tokens than bytes."""
    return len(text.encode())
