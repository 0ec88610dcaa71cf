"""A server that lies, stalls, or attacks: the client says so, and nothing is written outside its cache."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from zoos import QUICKLY, HostileServer, Notes, break_off, files_below, problem, send, send_json

from neuronmap.errors import (
    DamagedError,
    InvalidManifestError,
    NeuronMapError,
    NotInZooError,
    UnauthorizedError,
    ZooError,
    ZooOfflineError,
)
from neuronmap.zoo.client import cache as cache_module
from neuronmap.zoo.client.cache import Cache
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.digests import Digest


def pulled(server: HostileServer, tmp_path: Path, reference: str = "ada/numbers@1.0") -> Path:
    with Zoo(server.address, "secret-token", patience=QUICKLY, progress=Notes()) as zoo:
        return zoo.pull(reference, tmp_path / "target").folder


def refused(server: HostileServer, tmp_path: Path, home: Path, kind: type[NeuronMapError]) -> NeuronMapError:
    """It is refused, in a few seconds; no target, no file outside the cache, and no blob in it that was not checked."""
    before, there = files_below(tmp_path), files_below(home)
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        pulled(server, tmp_path)
    assert time.monotonic() - started < 20
    assert files_below(tmp_path) == before
    assert not (tmp_path / "target").exists()
    written = files_below(home) - there
    assert all(name.startswith("zoo/cache/") for name in written), written
    for name in written:
        if name.startswith("zoo/cache/sha256/"):
            assert Digest.of((home / name).read_bytes()).hex == name.rpartition("/")[2]
    return caught.value


def rewritten(server: HostileServer, **changes: object) -> None:
    """Serve another manifest, under its own true digest."""
    values = {**json.loads(server.manifest), **changes}
    server.manifest = json.dumps(values).encode()
    server.view = {**server.view, "digest": Digest.of(server.manifest)}


def test_an_honest_server_is_pulled_from(hostile: HostileServer, tmp_path: Path) -> None:
    folder = pulled(hostile, tmp_path)
    assert (folder / "data.bin").read_bytes() == hostile.files["data.bin"]
    assert files_below(folder) == {"README.md", "data.bin", ".neuronmap-zoo.json"}


@pytest.mark.parametrize(
    "path", ["../../evil.bin", "/tmp/evil.bin", "a/../../evil.bin", ".ssh/keys.bin", "..\\evil.bin"]
)
def test_paths_that_climb(hostile: HostileServer, tmp_path: Path, home: Path, path: str) -> None:
    files = json.loads(hostile.manifest)["files"]
    rewritten(hostile, files=[{**files[0], "path": path}, *files[1:]], card=None)
    refused(hostile, tmp_path, home, InvalidManifestError)


def test_a_manifest_with_another_digest_than_was_asked_for(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    hostile.manifest += b" "
    error = refused(hostile, tmp_path, home, DamagedError)
    assert str(hostile.digest) in error.message


def test_another_version_than_the_pinned_one(hostile: HostileServer, tmp_path: Path) -> None:
    pinned = "sha256:" + "0" * 64
    with pytest.raises(ZooError, match="was asked for"):
        pulled(hostile, tmp_path, f"ada/numbers@{pinned}")


def test_a_manifest_of_another_artefact(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    rewritten(hostile, name="other")
    refused(hostile, tmp_path, home, DamagedError)


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_size_that_is_not_true(hostile: HostileServer, tmp_path: Path, home: Path, size: int) -> None:
    files = json.loads(hostile.manifest)["files"]
    rewritten(hostile, files=[{**one, "size": size} if one["path"] == "data.bin" else one for one in files])
    refused(hostile, tmp_path, home, DamagedError)


def test_wrong_bytes_twice(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    wrong = bytes(len(hostile.files["data.bin"]))
    hostile.answers["/files/data.bin"] = lambda handler: send(handler, wrong)
    error = refused(hostile, tmp_path, home, DamagedError)
    assert "twice" in error.message


def test_wrong_bytes_once_are_fetched_again(hostile: HostileServer, tmp_path: Path) -> None:
    wrong = [bytes(len(hostile.files["data.bin"]))]
    hostile.answers["/files/data.bin"] = lambda handler: (
        send(handler, wrong.pop()) if wrong else hostile.file(handler, "data.bin")
    )
    assert (pulled(hostile, tmp_path) / "data.bin").read_bytes() == hostile.files["data.bin"]


def test_another_files_etag(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    data, other = hostile.files["data.bin"], Digest.of(b"other")
    hostile.answers["/files/data.bin"] = lambda handler: send(handler, data, 200, {"ETag": f'"{other}"'})
    refused(hostile, tmp_path, home, DamagedError)


def test_bytes_without_end(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    def endless(handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")

    hostile.answers["/files/data.bin"] = endless
    error = refused(hostile, tmp_path, home, DamagedError)
    assert "more than" in error.message


def test_an_answer_without_end(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    def endless(handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"8\r\n[[[[[[[[\r\n")

    hostile.answers["/versions/1.0"] = endless
    refused(hostile, tmp_path, home, ZooError)


@pytest.mark.parametrize("what", ["/files/data.bin", "/versions/1.0"])
def test_a_slow_drip(hostile: HostileServer, tmp_path: Path, home: Path, what: str) -> None:
    """A byte now and then keeps every single wait short; the whole is given up all the same."""

    def drip(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(hostile.files["data.bin"])))
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    hostile.answers[what] = drip
    refused(hostile, tmp_path, home, ZooOfflineError)


def test_a_server_that_says_nothing(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    hostile.answers["/versions/1.0"] = lambda handler: time.sleep(3)
    refused(hostile, tmp_path, home, ZooOfflineError)


@pytest.mark.parametrize("what", ["/versions/1.0", "/files/data.bin"])
def test_a_redirect_elsewhere_gets_no_token(
    hostile: HostileServer, numbers: Zoo, tmp_path: Path, home: Path, what: str
) -> None:
    other = HostileServer(numbers, "ada/numbers@1.0")
    target = f"{other.address}/api/zoo{hostile.base}/1.0"
    hostile.answers[what] = lambda handler: send(handler, b"", 302, {"Location": target})
    error = refused(hostile, tmp_path, home, ZooError)
    other.close()
    assert "another server is never followed" in error.message
    assert other.requests == []


def test_a_redirect_within_the_server_is_followed(hostile: HostileServer, tmp_path: Path) -> None:
    place = f"/api/zoo{hostile.base}/elsewhere"
    hostile.answers["/versions/1.0"] = lambda handler: send(handler, b"", 307, {"Location": place})
    assert pulled(hostile, tmp_path).is_dir()


def test_redirects_in_a_ring(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    place = f"/api/zoo{hostile.base}/1.0"
    hostile.answers["/versions/1.0"] = lambda handler: send(handler, b"", 307, {"Location": place})
    refused(hostile, tmp_path, home, ZooError)


def test_a_broken_connection_is_taken_up_where_it_broke(hostile: HostileServer, tmp_path: Path) -> None:
    data, broken = hostile.files["data.bin"], [10_000]
    hostile.answers["/files/data.bin"] = lambda handler: (
        break_off(handler, data, broken.pop()) if broken else hostile.file(handler, "data.bin")
    )
    assert (pulled(hostile, tmp_path) / "data.bin").read_bytes() == data
    ranges = [headers.get("range") for _, path, headers in hostile.requests if path.endswith("data.bin")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 10_000


def test_a_server_that_ignores_ranges_is_read_from_the_start(hostile: HostileServer, tmp_path: Path) -> None:
    data, broken = hostile.files["data.bin"], [10_000]
    hostile.answers["/files/data.bin"] = lambda handler: (
        break_off(handler, data, broken.pop()) if broken else send(handler, data)
    )
    assert (pulled(hostile, tmp_path) / "data.bin").read_bytes() == data


def test_a_connection_that_always_breaks_is_given_up_and_kept_for_the_next_time(
    hostile: HostileServer, tmp_path: Path, home: Path
) -> None:
    data = hostile.files["data.bin"]
    hostile.answers["/files/data.bin"] = lambda handler: break_off(handler, data, 10_000)
    refused(hostile, tmp_path, home, ZooOfflineError)
    hostile.answers.clear()
    hostile.requests.clear()
    assert (pulled(hostile, tmp_path) / "data.bin").read_bytes() == data
    [only] = [headers for _, path, headers in hostile.requests if path.endswith("data.bin")]
    assert only["range"].startswith("bytes=")
    assert not list((home / "zoo/cache/partial").iterdir())


def test_an_answer_that_is_compressed_unasked(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    hostile.answers["/versions/1.0"] = lambda handler: send(handler, b"x", 200, {"Content-Encoding": "gzip"})
    refused(hostile, tmp_path, home, ZooError)
    assert all(headers["accept-encoding"] == "identity" for *_, headers in hostile.requests)


@pytest.mark.parametrize("data", [b"<html>", b"[]", b'{"reference": 1}', b"[" * 200_000])
def test_answers_that_are_no_answers(hostile: HostileServer, tmp_path: Path, home: Path, data: bytes) -> None:
    hostile.answers["/versions/1.0"] = lambda handler: send(handler, data)
    refused(hostile, tmp_path, home, ZooError)


def test_fields_of_a_newer_server_are_passed_over(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.view["of_tomorrow"] = 1
    hostile.view["files"][0]["of_tomorrow"] = {"a": 1}
    assert pulled(hostile, tmp_path).is_dir()


def test_texts_cannot_command_the_terminal(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    hostile.answers["/versions/1.0"] = problem("not_in_zoo", "gone\x1b[2J\x1b]0;owned\x07", 404)
    error = refused(hostile, tmp_path, home, NotInZooError)
    assert "\x1b" not in str(error)
    hostile.answers.clear()
    hostile.view |= {"state": "deprecated", "reason": "old\x1b[31m"}
    notes = Notes()
    with Zoo(hostile.address, patience=QUICKLY) as zoo:
        zoo.pull("ada/numbers@1.0", tmp_path / "target", progress=notes)
    assert notes.lines
    assert not any("\x1b" in line for line in notes.lines)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("not_in_zoo", 404, NotInZooError),
        ("unauthorized", 401, UnauthorizedError),
        ("what-is-this", 404, NotInZooError),
        ("internal", 500, ZooError),
    ],
)
def test_errors_are_ours_again(hostile: HostileServer, code: str, status: int, kind: type[NeuronMapError]) -> None:
    hostile.answers["/versions/1.0"] = problem(code, "No.", status)
    with Zoo(hostile.address, patience=QUICKLY) as zoo, pytest.raises(kind, match=r"No\."):
        zoo.show("ada/numbers@1.0")


def test_a_busy_server_is_asked_again_but_changes_are_sent_once(hostile: HostileServer) -> None:
    busy = [1, 1]

    def first_busy(handler) -> None:
        if busy:
            busy.pop()
            problem("busy", "Later.", 503, **{"Retry-After": "0"})(handler)
        else:
            hostile.truth(handler)

    hostile.answers["/versions/1.0"] = first_busy
    with Zoo(hostile.address, patience=QUICKLY) as zoo:
        assert zoo.show("ada/numbers@1.0").label == "1.0"
        assert len(hostile.requests) == 3
        hostile.requests.clear()
        hostile.answers = {"/comments": problem("busy", "Later.", 503)}
        with pytest.raises(ZooOfflineError):
            zoo.comment("ada/numbers", "hello")
        assert len(hostile.requests) == 1


def test_a_busy_server_is_asked_for_a_file_again(hostile: HostileServer, tmp_path: Path) -> None:
    busy = [1, 1]

    def first_busy(handler) -> None:
        if busy:
            busy.pop()
            problem("too_many_requests", "Wait.", 429, **{"Retry-After": "0"})(handler)
        else:
            hostile.file(handler, "data.bin")

    hostile.answers["/files/data.bin"] = first_busy
    assert pulled(hostile, tmp_path).is_dir()


def test_several_pull_the_same_at_once(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    def pull(number: int) -> bytes:
        with Zoo(hostile.address, patience=Patience(), progress=Notes()) as zoo:
            return (zoo.pull("ada/numbers@1.0", tmp_path / str(number)).folder / "data.bin").read_bytes()

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(pull, range(12)))
    assert found == {hostile.files["data.bin"]}
    assert not list((home / "zoo/cache/partial").iterdir())


def test_a_download_that_has_just_begun_is_not_taken_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks for interrupted downloads between the making of a file and the taking of its lock."""
    data = b"what two want at once"
    digest, lock, others = Digest.of(data), cache_module._locked, []

    def locked(file: BinaryIO) -> bool:
        if not others:
            others.append(None)
            others.append(Cache()._adopted(home / "zoo/cache/partial", digest))
        return lock(file)

    monkeypatch.setattr(cache_module, "_locked", locked)
    cache = Cache()
    with cache.partial(digest) as partial:
        partial.write(data)
        assert cache.keep(partial, digest).read_bytes() == data
    assert others == [None, None]


def test_too_many_requests_are_sent_again_whatever_they_do(hostile: HostileServer) -> None:
    often = [1]

    def first_too_often(handler) -> None:
        if often:
            often.pop()
            problem("too_many_requests", "Wait.", 429, **{"Retry-After": "0"})(handler)
        else:
            send_json(handler, {"id": 1}, 201)

    hostile.answers["/comments"] = first_too_often
    with Zoo(hostile.address, patience=QUICKLY) as zoo:
        assert zoo.comment("ada/numbers", "hello") == {"id": 1}


def test_what_is_cached_asks_for_no_bytes(hostile: HostileServer, tmp_path: Path) -> None:
    pulled(hostile, tmp_path)
    hostile.requests.clear()
    with Zoo(hostile.address, patience=QUICKLY, progress=Notes()) as zoo:
        again = zoo.pull("ada/numbers@1.0", tmp_path / "again")
    assert again.fetched_bytes == 0
    assert [path for _, path, _ in hostile.requests] == [f"{hostile.base}/1.0"]


def test_a_damaged_cache_is_noticed_and_mended(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    pulled(hostile, tmp_path)
    data = hostile.files["data.bin"]
    cached = home / "zoo/cache" / Digest.of(data).key
    cached.chmod(0o600)
    cached.write_bytes(data[:-1] + b"!")
    notes = Notes()
    with Zoo(hostile.address, patience=QUICKLY) as zoo:
        again = zoo.pull("ada/numbers@1.0", tmp_path / "again", progress=notes)
    assert (again.folder / "data.bin").read_bytes() == data
    assert any("damaged" in line for line in notes.lines)


def test_offline_only_what_was_pulled(hostile: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled(hostile, tmp_path)
    hostile.requests.clear()
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    with Zoo(hostile.address, progress=Notes()) as zoo:
        for number, reference in enumerate(("ada/numbers@1.0", f"ada/numbers@{hostile.digest}")):
            assert zoo.pull(reference, tmp_path / f"offline-{number}").manifest.version == "1.0"
        for reference in ("ada/numbers", "ada/numbers@2.0", "ada/other"):
            with pytest.raises(ZooOfflineError, match="offline mode"):
                zoo.pull(reference, tmp_path / "never")
    assert hostile.requests == []


def test_a_cache_that_cannot_be_written(hostile: HostileServer, tmp_path: Path, home: Path) -> None:
    (home / "zoo").mkdir(exist_ok=True)
    (home / "zoo" / "cache").write_text("a file is in its place")
    with pytest.raises(NeuronMapError, match="Cannot") as caught:
        pulled(hostile, tmp_path)
    assert caught.value.code == "unwritable"
    assert not (tmp_path / "target").exists()


def test_no_space(hostile: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=1000))
    with pytest.raises(NeuronMapError) as caught:
        pulled(hostile, tmp_path)
    assert caught.value.code == "disk_space"
