"""One request to an endpoint, and what its outcome means: the one module of this room that knows the HTTP library.

| outcome | kind |
| --- | --- |
| 200 with a chat completion | ``answer`` |
| 400, 413, 422 | ``refused``: this question, in this form |
| 408, 409, 425, 429, 5xx; a body that is no chat completion | ``again``; with the wait of ``Retry-After`` if given |
| no connection, or broken off, or no whole answer in time | ``again``; once the request was out the endpoint may have worked |
| 401, 403, 404, other | ``fatal`` |

Redirects are not followed, so a key never goes elsewhere. What an endpoint says is shown without control signs, and without the key,
should it repeat it.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Literal

import httpx2

from neuronmap.interpretation.endpoint.config import EndpointConfig

__all__ = ["Outcome", "Transport", "waiting_time"]

_MOST_BYTES = 16 << 20
_AGAIN = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({400, 413, 422})
_MOST_SAID = 600


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        kind: see the module.
        status: of HTTP; 0 where none came.
        body: the chat completion.
        said: what was wrong, in the endpoint's words or ours.
        wait_s: seconds to wait, as the endpoint asked; None if it did not.
        uncertain: whether the endpoint may have worked, and charged, all the same.
    """

    kind: Literal["answer", "refused", "again", "fatal"]
    status: int = 0
    body: dict[str, Any] | None = None
    said: str = ""
    wait_s: float | None = None
    uncertain: bool = False


class Transport:
    """Connections to one endpoint; close it with :meth:`close`.

    Args:
        config: the endpoint.

    Raises:
        ConfigError: the variable that should hold the key is not set.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._key = config.key()
        headers = {"User-Agent": f"neuronmap/{version('neuronmap')}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(config.timeout_s, connect=min(config.timeout_s, 15.0), pool=None),
            limits=httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def post(self, body: dict[str, Any]) -> Outcome:
        """Send a request and read the answer; faults come back as outcomes, never as errors."""
        try:
            async with asyncio.timeout(self.config.timeout_s):
                return await self._post(body)
        except (TimeoutError, httpx2.ReadTimeout):
            said = f"no whole answer within {self.config.timeout_s:g} s"
            return Outcome("again", said=said, uncertain=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return Outcome("again", said=self._plain(f"no connection: {error or type(error).__name__}"))
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            return Outcome("fatal", said=self._plain(str(error)))
        except httpx2.HTTPError as error:
            return Outcome(
                "again", said=self._plain(f"the connection broke: {error or type(error).__name__}"), uncertain=True
            )

    async def _post(self, body: dict[str, Any]) -> Outcome:
        address = f"{self.config.base_url}/chat/completions"
        async with self._client.stream("POST", address, json=body) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    return Outcome(
                        "fatal", response.status_code, said=f"its answer has more than {_MOST_BYTES:,} bytes"
                    )
            status, headers = response.status_code, response.headers
        if status == 200:
            content = _completion(bytes(data))
            if content is None:
                return Outcome("again", status, said="its answer is no chat completion", uncertain=True)
            return Outcome("answer", status, content)
        said = self._plain(_message(bytes(data)) or f"status {status}")
        if status in _REFUSED:
            return Outcome("refused", status, said=said)
        if status in _AGAIN or status >= 500:
            return Outcome("again", status, said=said, wait_s=waiting_time(headers))
        return Outcome("fatal", status, said=said)

    def _plain(self, text: str) -> str:
        """What an endpoint says, safe to show."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(sign if sign.isprintable() else " " for sign in text)[:_MOST_SAID].strip()


def waiting_time(headers: Any) -> float | None:
    """Seconds that ``retry-after-ms`` or ``Retry-After`` (seconds, or an HTTP date) asks to wait; None if neither is there or readable."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                until = parsedate_to_datetime(value)
            except ValueError:
                continue
            if until.tzinfo is None:
                until = until.replace(tzinfo=datetime.UTC)
            seconds = (until - datetime.datetime.now(datetime.UTC)).total_seconds()
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def _completion(data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
        message = body["choices"][0]["message"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return body if isinstance(message, dict) and isinstance(body, dict) else None


def _message(data: bytes) -> str:
    """What an error's body says: OpenAI's ``error.message``, FastAPI's ``detail``, or its text."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return data[:_MOST_SAID].decode(errors="replace")
    if not isinstance(body, dict):
        return str(body)
    error = body.get("error", body.get("detail", body.get("message", body)))
    if isinstance(error, dict):
        return " ".join(str(error[name]) for name in ("message", "param") if error.get(name)) or json.dumps(error)
    return str(error)
