"""A hub of a few lines on this machine: what is sent is what lies in the folder, and collections are not fetched whole."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from neuronmap.errors import InputError, ModelGatedError, ModelOfflineError
from neuronmap.hub.formats.huggingface import push_repository
from neuronmap.hub.formats.sources import fetch

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


class Hub(BaseHTTPRequestHandler):
    """A few answers of the hub's API; small files come inside the commit."""

    received: dict[str, bytes]
    created: list[dict[str, Any]]
    files: ClassVar[dict[str, int]] = {}
    status = 200

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        owner = type(self)
        if owner.status != 200:
            return self._answer({"error": "no"}, owner.status)
        if self.path.endswith("/repos/create"):
            owner.created.append(json.loads(body))
            return self._answer({"url": f"{self._root()}/me/saes", "id": "me/saes"})
        if self.path.endswith("/validate-yaml"):
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if "/commit/" in self.path:
            for line in body.splitlines():
                record = json.loads(line)
                if record["key"] == "file":
                    owner.received[record["value"]["path"]] = base64.b64decode(record["value"]["content"])
            return self._answer(
                {"commitUrl": f"{self._root()}/me/saes/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""}
            )
        return self._answer({"error": "unknown"}, 404)

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            return self._answer(
                [
                    {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                    for name, size in type(self).files.items()
                ]
            )
        return self._answer(
            {"id": "me/saes", "sha": COMMIT, "siblings": [], "private": False, "tags": [], "downloads": 0}
        )

    def _root(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants, hf_api

    handler = type("OneHub", (Hub,), {"received": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    made = hf_api.HfApi.__init__
    monkeypatch.setattr(hf_api.HfApi, "__init__", lambda self, *a, **k: made(self, *a, **{"endpoint": address, **k}))
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sae").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "sae" / "cfg.json").write_text("{}")
    return tmp_path


def test_the_folder_arrives(folder: Path, local_hub: type[Hub]) -> None:
    address = push_repository(folder, "me/saes", private=True)
    assert address.endswith(f"/me/saes/commit/{COMMIT}")
    assert {name: data for name, data in local_hub.received.items() if name != ".gitattributes"} == {
        "README.md": b"---\nlicense: mit\n---\n", "sae/cfg.json": b"{}",
    }  # fmt: skip
    assert local_hub.created[0] == {"name": "saes", "organization": "me", "visibility": "private"}


def test_a_whole_collection_is_not_fetched(local_hub: type[Hub]) -> None:
    local_hub.files = {f"layers.{layer}/sae.safetensors": 3 << 30 for layer in range(12)} | {"README.md": 10}
    with pytest.raises(InputError, match=r"me/saes has 36\.0 GiB of files.*layers\.0, layers\.1") as caught:
        fetch("hf://me/saes")
    assert caught.value.hint == "Name one: hf://me/saes/layers.0"


def test_no_right_to_write(folder: Path, local_hub: type[Hub]) -> None:
    local_hub.status = 403
    with pytest.raises(ModelGatedError, match=r"write to me/saes \(HTTP 403\)"):
        push_repository(folder, "me/saes")


def test_offline(folder: Path) -> None:
    with pytest.raises(ModelOfflineError, match="me/saes cannot be uploaded"):
        push_repository(folder, "me/saes")


def test_what_cannot_be_pushed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="owner/name"):
        push_repository(folder, "saes")
    (tmp_path / "README.md").unlink()
    with pytest.raises(InputError, match=r"no README\.md"):
        push_repository(tmp_path, "me/saes")
