"""Small artefacts and servers for the tests of this room."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.packing import Package, pack_folder

QUICKLY = Patience(connect_s=5, read_s=0.4, answer_s=1.0, window_s=0.3, least_bytes=3000, pause_s=0.001)
"""For servers that keep one waiting."""


class Notes(SilentProgress):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


def data_folder(folder: Path, **files: bytes) -> Path:
    """A folder with a card and some bytes."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Numbers\n\nSome bytes.\n")
    for name, data in (files or {"data": bytes(range(256)) * 100}).items():
        (folder / f"{name}.bin").write_bytes(data)
    return folder


def package(folder: Path, **files: bytes) -> Package:
    """The same, packed as a data set."""
    return pack_folder(data_folder(folder, **files), "DATASET", {"format": "bytes", "description": "numbers"})


def files_below(folder: Path) -> set[str]:
    """Every file, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class HostileServer:
    """Serves one real version; what a request gets may be changed.

    Attributes:
        answers: path (after ``/api/zoo``) -> function of the handler that answers in place of the true one.
        requests: (method, path, headers) of all.
    """

    def __init__(self, zoo: Zoo, reference: str) -> None:
        view = zoo.show(reference)
        self.view: dict[str, Any] = view.to_dict()
        self.manifest = zoo.backend.manifest(_parsed(reference))
        self.files = {file.path: zoo.open_file(reference, file.path) for file in view.files}
        self.base = f"/artefacts/{view.namespace}/{view.name}/versions"
        self.digest = view.digest
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    outer.answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/api/zoo").partition("?")[0]
        length = int(handler.headers.get("content-length") or 0)
        handler.rfile.read(length)
        self.requests.append((handler.command, path, {name.lower(): text for name, text in handler.headers.items()}))
        for end, answer in self.answers.items():
            if path.endswith(end):
                answer(handler)
                return
        self.truth(handler, path)

    def truth(self, handler: BaseHTTPRequestHandler, path: str | None = None) -> None:
        """What an honest server says."""
        path = path or handler.path.removeprefix("/api/zoo").partition("?")[0]
        version, _, rest = path.removeprefix(f"{self.base}/").partition("/")
        del version
        if path == "":
            send_json(handler, {"protocol": 1, "most_piece_bytes": 1 << 20})
        elif not rest:
            send_json(handler, self.view)
        elif rest == "manifest":
            send(handler, self.manifest)
        else:
            self.file(handler, rest.removeprefix("files/"))

    def file(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        wanted = handler.headers.get("Range")
        tag = {"ETag": f'"{Digest.of(data)}"'}
        if wanted and handler.headers.get("If-Range") == tag["ETag"]:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            send(handler, data[start:], 206, {**tag, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            send(handler, data, 200, tag)


def _parsed(reference: str) -> Any:
    from neuronmap.zoo.names import Reference

    return Reference.parse(reference)


def send(
    handler: BaseHTTPRequestHandler, data: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(data)


def send_json(
    handler: BaseHTTPRequestHandler, value: Any, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    send(handler, json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def problem(code: str, message: str, status: int, **headers: str) -> Any:
    """An answer that refuses."""
    return lambda handler: send_json(
        handler, {"error": {"code": code, "message": message, "hint": "", "status": status}}, status, headers
    )


def break_off(handler: BaseHTTPRequestHandler, data: bytes, after: int) -> None:
    """Announce all, send a part, and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:after])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def breaking_line(port: int, lives: list[int]) -> Iterator[str]:
    """A line to a server that goes dead after so many bytes towards it: once for each number, from then on it is sound."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []
    carriers: list[threading.Thread] = []

    def carry(source: socket.socket, target: socket.socket, life: int | None) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if life is not None:
                    life -= len(piece)
                    if life < 0:
                        break
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            ends.extend((client, server))
            life = lives.pop(0) if lives else None
            for pair in ((client, server, life), (server, client, None)):
                carriers.append(threading.Thread(target=carry, args=pair, daemon=True))
                carriers[-1].start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for carrier in carriers:
            carrier.join(5)
        for one in ends:
            one.close()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
