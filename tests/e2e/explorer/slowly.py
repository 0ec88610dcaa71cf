"""A proxy before the browser through which pages come in pieces and scripts come late.

On a busy machine a reader, and so a test, may act while half of a page is there. ``NEURONMAP_SLOW_PAGES=0.5 pytest tests/e2e`` makes
that the rule: each page stops for that many seconds after its first, second and third quarter, each script comes that late.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit


class SlowProxy:
    """Forwards plain HTTP, one request to a connection, until the process ends.

    Attributes:
        address: ``http://127.0.0.1:{port}``.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._ready, self._tasks = seconds, threading.Event(), set[Any]()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)  # asyncio alone holds it weakly
        try:
            await self._forward(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):  # the browser or the server has gone
            pass
        finally:
            await self._leave(writer)
            self._tasks.discard(task)

    @staticmethod
    async def _leave(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        method, address, version = first.split(" ")
        if method == "CONNECT":  # something of the browser's own, elsewhere
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        to = urlsplit(address)
        kept = [
            line
            for line in lines
            if line.split(":")[0].lower() not in ("connection", "proxy-connection", "accept-encoding")
        ]
        length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
        upstream, ask = await asyncio.open_connection(to.hostname, to.port)
        path = address.removeprefix(f"{to.scheme}://{to.netloc}")
        ask.write("\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode("latin-1"))
        ask.write(await reader.readexactly(length))
        try:
            await self._pass_back(upstream, writer, path)
        finally:
            await self._leave(ask)

    async def _pass_back(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        head = await upstream.readuntil(b"\r\n\r\n")
        kind = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-type:")), b"")
        if b"javascript" in kind and "theme.js" not in path:
            await asyncio.sleep(self._seconds)
        writer.write(head)
        if b"text/html" in kind:
            body = await upstream.read()
            for part in range(4):
                if part:
                    await asyncio.sleep(self._seconds)
                writer.write(body[len(body) * part // 4 : len(body) * (part + 1) // 4])
                await writer.drain()
            return
        while piece := await upstream.read(65536):
            writer.write(piece)
            await writer.drain()


@cache
def slow_proxy(seconds: float) -> SlowProxy:
    """The one of this process."""
    return SlowProxy(seconds)
