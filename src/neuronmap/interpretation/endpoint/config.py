"""Settings of an endpoint: where a language model answers, by which key, how patiently, and at what price."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = ["EndpointConfig"]

_KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")


class EndpointConfig(FrozenConfig):
    """An OpenAI-compatible endpoint: OpenAI, OpenRouter, vLLM, llama.cpp, Ollama, LM Studio, ``neuronmap models serve``, ..."""

    base_url: str
    """Address that ends before ``/chat/completions``, such as ``http://localhost:8000/v1``."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the language model at the endpoint."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is kept nowhere. None: no key is sent."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most requests under way at once."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds for one whole answer."""
    tries: Annotated[int, Field(ge=1, le=20)] = 6
    """How often a question is sent at most, where sending it again can help: 408, 429, 5xx, no connection, no answer in time."""
    pause_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds before the second try; doubles with each, times 0.5 to 1 by chance. A ``Retry-After`` takes its place."""
    longest_wait_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest wait; an endpoint that asks for more ends the run, which can be taken up later."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """Of sampling; None: not sent."""
    seed: int | None = None
    """Of sampling; None: not sent."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Money for a million prompt tokens."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Money for a million completion tokens."""

    def __init__(self, /, **values: Any) -> None:
        _refuse_secrets(values)  # before pydantic, whose message would repeat them
        super().__init__(**values)

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(
                f"EndpointConfig.base_url = {value[:200]!r}: an address with http:// or https:// and a host is needed, without ? or #.",
                hint="For example http://localhost:8000/v1 or https://api.openai.com/v1",
            )
        return value.rstrip("/").removesuffix("/chat/completions")

    def key(self) -> str | None:
        """The key, read from the environment now.

        Raises:
            ConfigError: the variable is not set, or empty.
        """
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigError(f"The environment variable {self.key_env} is not set.", hint=f"export {self.key_env}=...")
        return key

    def cost(self, prompt: int, completion: int) -> float | None:
        """Money for so many tokens; None where no prices are given."""
        if self.price_in is None or self.price_out is None:
            return None
        return (prompt * self.price_in + completion * self.price_out) / 1e6


def _refuse_secrets(values: dict[str, Any]) -> None:
    """A key where its variable's name belongs, or a password in the address: said without repeating it."""
    name = values.get("key_env")
    if name is not None and not (isinstance(name, str) and _KEY_NAME.fullmatch(name)):
        raise ConfigError(
            "EndpointConfig.key_env is not the name of an environment variable (capital letters, digits and _).",
            hint="Give the variable's name, never the key: export MY_KEY=..., then --key-env MY_KEY",
        )
    address = values.get("base_url")
    if isinstance(address, str) and "@" in urlsplit(address).netloc:
        raise ConfigError(
            "EndpointConfig.base_url holds a user or a password.", hint="Put the key in a variable: --key-env MY_KEY"
        )
