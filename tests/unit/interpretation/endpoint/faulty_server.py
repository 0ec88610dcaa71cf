"""An endpoint on loopback that misbehaves as real ones were seen to; each request takes the next act of its script."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Act = Callable[["Handler", dict[str, Any]], None]
GOOD = '{"label": "winter", "explanation": "It fires on winter."}'


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: FaultyServer._HTTP
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.server.owner
        with owner.lock:
            owner.requests.append(body)
            owner.headers.append(dict(self.headers))
            owner.times.append(time.monotonic())
            owner.under_way += 1
            owner.most_under_way = max(owner.most_under_way, owner.under_way)
            act = owner.script.pop(0) if owner.script else owner.usual
        try:
            act(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.under_way -= 1

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class FaultyServer:
    """Started in ``with``; ``script`` holds what comes next, ``usual`` what comes after it."""

    class _HTTP(ThreadingHTTPServer):
        daemon_threads = True
        owner: FaultyServer

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.usual: Act = says(GOOD)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    def __enter__(self) -> Self:
        self._http = self._HTTP(("127.0.0.1", 0), Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"


def completion(text: str | None, finish: str = "stop", usage: dict[str, int] | None = None, **more: Any) -> bytes:
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}],
    }
    if usage is None:
        usage = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


def says(text: str | None, finish: str = "stop", usage: dict[str, int] | None = None, **more: Any) -> Act:
    return lambda handler, _: handler.send(200, completion(text, finish, usage, **more))


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Act:
    content = json.dumps({"error": {"message": message, "type": "some_error"}}).encode()
    return lambda handler, _: handler.send(status, content, headers)


def sends(status: int, content: bytes) -> Act:
    return lambda handler, _: handler.send(status, content)


def slow(seconds: float, then: Act) -> Act:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        then(handler, body)

    return act


def drops(after: bytes = b"") -> Act:
    """The connection is reset, after some bytes of the answer."""

    def act(handler: Handler, _: dict[str, Any]) -> None:
        if after:
            handler.wfile.write(after)
            handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.connection.close()
        handler.close_connection = True

    return act


def refuses(*names: str, then: Act) -> Act:
    """400 for a request with one of some parameters (or one of its values), in OpenAI's words."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        text = json.dumps(body)
        for name in names:
            if f'"{name}"' in text:
                fails(400, f"Unsupported parameter: '{name}' is not supported with this model.")(handler, body)
                return
        then(handler, body)

    return act
