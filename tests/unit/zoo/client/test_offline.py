"""Offline mode: no server is asked anything, and what is known to be withdrawn is not taken for the newest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from zoos import QUICKLY, HostileServer, package

from neuronmap.cli import app
from neuronmap.errors import InputError, NotInZooError, ZooOfflineError
from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.zoo import Zoo


def opened(address: str, *, offline: bool = False) -> Zoo:
    return Zoo(address, "", offline=offline, patience=QUICKLY, progress=SilentProgress())


def test_no_server_is_asked(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    zoo = Zoo(hostile.address, "", patience=QUICKLY, progress=SilentProgress())
    for call in (zoo.search_page, zoo.whoami, lambda: zoo.show("ada/numbers"), lambda: zoo.verify("ada/numbers")):
        with pytest.raises(ZooOfflineError, match=r"offline mode|not known here"):
            call()
    assert hostile.requests == []


def test_latest_is_not_a_version_that_is_known_to_be_yanked(hostile: HostileServer, tmp_path: Path) -> None:
    with opened(hostile.address) as zoo:
        zoo.pull("ada/numbers", tmp_path / "before")
    offline = opened(hostile.address, offline=True)
    assert offline.pull("ada/numbers", tmp_path / "known").warnings == ()
    hostile.view.update(state="yanked", reason="wrong numbers")
    with opened(hostile.address) as zoo:
        zoo.show("ada/numbers@1.0")
    with pytest.raises(ZooOfflineError, match=r"yanked since \(wrong numbers\)"):
        offline.pull("ada/numbers", tmp_path / "latest")
    assert not (tmp_path / "latest").exists()
    exact = offline.pull("ada/numbers@1.0", tmp_path / "exact")
    assert exact.state == "yanked"
    assert "wrong numbers" in exact.warnings[0]


def test_a_folder_without_a_zoo_stays_without(tmp_path: Path) -> None:
    with pytest.raises(NotInZooError, match="There is no zoo in"):
        Zoo(tmp_path / "mistyped", must_exist=True)
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo, pytest.raises(NotInZooError, match="There is no zoo"):
        zoo.mirror(str(tmp_path / "mistyped"), ["ada/numbers"])
    assert not (tmp_path / "mistyped").exists()
    with Zoo(tmp_path / "zoo", must_exist=True, progress=SilentProgress()) as again:
        assert again.publish(package(tmp_path / "data"), "ada/numbers@1.0", licence="MIT").label == "1.0"


# --- the Hugging Face hub -----------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORD = {"format": "bytes"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on loopback that has nothing, and its cache on this machine, with owner/numbers; what the hub was asked for."""
    import huggingface_hub.constants

    asked: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    repo = tmp_path / "hub" / "models--owner--numbers"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "data.bin").write_bytes(b"numbers")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def test_the_hub_is_not_asked_and_its_cache_is_used(
    hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {"kind": "DATASET", "record": RECORD, "licence": "MIT"}
    online = Zoo(tmp_path / "zoo", offline=False, progress=SilentProgress())
    with online, pytest.raises(InputError, match="The hub has no owner/other"):
        online.publish_from_hub("owner/other", "ada/other@1.0", **values)
    assert hub, "online it is asked"
    hub.clear()
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        for number, revision in enumerate((None, "main", COMMIT)):
            view = zoo.publish_from_hub("owner/numbers", f"ada/numbers@{number}.0", revision=revision, **values)
            assert view.manifest["record"]["source"] == f"hf://owner/numbers@{COMMIT}"
        with pytest.raises(ZooOfflineError, match=r"owner/other is not whole in the .* this is offline mode"):
            zoo.publish_from_hub("owner/other", "ada/other@1.0", **values)
        with pytest.raises(ZooOfflineError, match=f"owner/numbers at {COMMIT[::-1]} is not whole"):
            zoo.publish_from_hub("owner/numbers", "ada/other@1.0", revision=COMMIT[::-1], **values)
    assert hub == []


def test_publishing_from_the_hub_offline_as_it_is_typed(
    hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    monkeypatch.setenv("NEURONMAP_ZOO", str(tmp_path / "zoo"))
    (tmp_path / "record.json").write_text('{"format": "bytes"}')
    about = ("--kind", "DATASET", "--record", str(tmp_path / "record.json"), "--licence", "MIT")
    lost = CliRunner().invoke(app, ["zoo", "publish", "hf://owner/other", "--as", "ada/other@1.0", *about])
    assert (lost.exit_code, "this is offline mode" in lost.stderr) == (10, True), lost.output
    done = CliRunner().invoke(app, ["zoo", "publish", "hf://owner/numbers", "--as", "ada/numbers@1.0", *about])
    assert (done.exit_code, "ada/numbers@1.0" in done.stdout) == (0, True), done.output
    assert hub == []
