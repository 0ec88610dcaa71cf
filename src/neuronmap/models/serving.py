"""``ChatServer``: a language model behind an OpenAI-compatible address on this machine, for labels without anybody's service.

``POST /v1/chat/completions`` (messages, max_tokens or max_completion_tokens, temperature, seed, response_format, logprobs) and
``GET /v1/models``. One answer at a time; others wait. It has no accounts: it listens on loopback unless told otherwise.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from neuronmap.errors import InputError, NeuronMapError, ResourceError
from neuronmap.models.answering import ChatAnswer, ChatModel

__all__ = ["ChatServer"]

_MOST_BYTES = 4 << 20
_MOST_TOKENS = 4096
_USUAL_TOKENS = 256


class ChatServer:
    """Serves one model; in ``with`` it does so in the background.

    Args:
        chat: the model.
        name: what it is called at the address.
        host, port: where it listens; port 0 takes a free one.

    Raises:
        ResourceError: the port is taken.

    Example:
        >>> with ChatServer(ChatModel(load_model("smollm2-135m")), "smollm2-135m") as server:      # doctest: +SKIP
        ...     print(server.address)
        http://127.0.0.1:8000/v1
    """

    def __init__(self, chat: ChatModel, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.chat, self.name = chat, name
        self.answered = 0
        self.one = threading.Lock()
        try:
            self._http = _HTTP((host, port), _Handler)
        except OSError as error:
            raise ResourceError(
                f"Cannot listen on {host}:{port}: {error.strerror or error}.", hint="Choose another --port."
            ) from error
        self._http.owner = self
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """What ``--endpoint`` takes."""
        host, port = self._http.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}/v1"

    def serve(self) -> None:
        """Answer until the process is stopped."""
        self._http.serve_forever(poll_interval=0.2)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve, name="neuronmap-chat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.shutdown()
        if self._thread is not None:
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Give the port back."""
        self._http.server_close()

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request's body.

        Raises:
            InputError: the request cannot be answered.
        """
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(_is_message(one) for one in messages):
            raise InputError("messages: a list of objects with role and content, both text, is needed.")
        limit = body.get("max_completion_tokens", body.get("max_tokens", _USUAL_TOKENS))
        temperature, top = body.get("temperature", 0.0), body.get("top_logprobs", 0) if body.get("logprobs") else 0
        if type(limit) is not int or not 1 <= limit <= _MOST_TOKENS:
            raise InputError(f"max_tokens: a whole number from 1 to {_MOST_TOKENS} is needed.")
        if (
            not isinstance(temperature, int | float)
            or not 0 <= temperature <= 2
            or type(top) is not int
            or not 0 <= top <= 20
        ):
            raise InputError("temperature is from 0 to 2, top_logprobs from 0 to 20.")
        with self.one:
            answer = self.chat.answer(
                messages,
                max_tokens=limit,
                temperature=float(temperature),
                seed=int(body.get("seed") or 0),
                schema=_schema(body.get("response_format")),
                top_logprobs=top,
            )
            self.answered += 1
        return _document(self.name, answer, with_logprobs=bool(body.get("logprobs")))


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    owner: ChatServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTP

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": self.server.owner.name, "object": "model"}]})
        else:
            self._fail(404, f"There is nothing at {self.path}.")

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > _MOST_BYTES:
            self.close_connection = True
            self._fail(413, f"A body with a Content-Length of at most {_MOST_BYTES:,} bytes is needed.")
            return
        data = self.rfile.read(int(size))
        if self.path.rstrip("/") != "/v1/chat/completions":
            self._fail(404, f"There is nothing at {self.path}.")
            return
        try:
            body = json.loads(data)
            if not isinstance(body, dict):
                raise InputError("The body is no JSON object.")
            self._send(200, self.server.owner.completion(body))
        except (ValueError, RecursionError) as error:  # our InputError is one
            self._fail(400, error.message if isinstance(error, NeuronMapError) else "The body is no JSON.")
        except NeuronMapError as error:
            self._fail(500, error.message)

    def _fail(self, status: int, message: str) -> None:
        self._send(
            status, {"error": {"message": message, "type": "invalid_request_error" if status < 500 else "server_error"}}
        )

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # who asked has left
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Prompts and addresses are nobody's business."""


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)


def _schema(form: Any) -> dict[str, Any] | None:
    if form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
        if isinstance(schema, dict):
            return schema
    raise InputError("response_format: only json_schema with a schema, or text, is known here.")


def _document(name: str, answer: ChatAnswer, *, with_logprobs: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": answer.finish,
        "logprobs": None,
    }
    if with_logprobs:
        choice["logprobs"] = {
            "content": [
                {"token": text, "logprob": value, "top_logprobs": [{"token": t, "logprob": v} for t, v in tops]}
                for text, value, tops in answer.tokens
            ]
        }
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [choice],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": total,
        },
    }
