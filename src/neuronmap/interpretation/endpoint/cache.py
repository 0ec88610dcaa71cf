"""Answers kept on disk by the digest of their question, and what an endpoint was found not to take.

    <home>/cache/endpoint/<2 digits>/<digest>.json    an answer
    <home>/cache/endpoint/known/<digest>.json         parameters that an endpoint refused, forgotten after a day

The digest is over address, model, messages, form and settings; never over the key. Only good answers are kept: what could not be read is
asked again the next time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from neuronmap.errors import DamagedError
from neuronmap.hashing import digest_json, short
from neuronmap.interpretation.endpoint.config import EndpointConfig
from neuronmap.interpretation.endpoint.question import Question
from neuronmap.paths import cache_folder, new_folder, read_json, write_json

__all__ = ["AnswerCache", "question_digest"]

_VERSION = 1
_REMEMBERED_S = 86_400.0


def question_digest(config: EndpointConfig, question: Question) -> str:
    """Digest of all that decides the answer."""
    return digest_json(
        {
            "version": _VERSION,
            "address": config.base_url,
            "model": config.model,
            "temperature": config.temperature,
            "seed": config.seed,
            "messages": question.messages,
            "max_tokens": question.max_tokens,
            "schema": question.schema,
            "top_logprobs": question.top_logprobs,
        }
    )


class AnswerCache:
    """The answers of this machine. Several processes may use it at once: files are written whole.

    Args:
        folder: where it lies; the house's cache when left out.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder("endpoint")

    def get(self, digest: str) -> dict[str, Any] | None:
        """The body of the answer, as the endpoint sent it; None if it is not there or damaged."""
        return _read(self._path(digest))

    def put(self, digest: str, body: dict[str, Any]) -> None:
        """Keep a body."""
        path = self._path(digest)
        new_folder(path.parent)
        write_json(path, body)

    def refused(self, config: EndpointConfig) -> dict[str, Any]:
        """What the endpoint was found not to take within the last day."""
        known = _read(self._known(config)) or {}
        at = known.get("at")
        return known.get("refused", {}) if isinstance(at, int | float) and 0 <= time.time() - at < _REMEMBERED_S else {}

    def remember(self, config: EndpointConfig, refused: dict[str, Any]) -> None:
        """Keep what the endpoint does not take."""
        path = self._known(config)
        new_folder(path.parent)
        write_json(path, {"address": config.base_url, "model": config.model, "at": time.time(), "refused": refused})

    def _path(self, digest: str) -> Path:
        name = short(digest, 64)
        return self.folder / name[:2] / f"{name}.json"

    def _known(self, config: EndpointConfig) -> Path:
        return self.folder / "known" / f"{short(digest_json([config.base_url, config.model]), 32)}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except (FileNotFoundError, DamagedError):
        return None
    return found if isinstance(found, dict) else None
