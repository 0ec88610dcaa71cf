"""A real ``neuronmap zoo serve``: its first start, two people, kill -9 in the middle of an upload, a hundred downloads at once."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit.web.zoo.conftest import manifest_of
from tests.unit.zoo.people.provider import CLIENT, SECRET, small_provider

from neuronmap.zoo.conformance import run_conformance
from neuronmap.zoo.digests import Digest

PASSWORD = "four words nobody guesses"
JSON = {"content-type": "application/json"}


class Server:
    """A process of ``neuronmap zoo serve``."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self.folder, self.log, self.options, self.port = folder / "zoo", folder / "log.txt", options, free_port()
        self.env = {**os.environ, "NEURONMAP_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **env}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it and wait until it answers; what it printed."""
        command = [
            sys.executable,
            "-m",
            "neuronmap",
            "zoo",
            "serve",
            "--port",
            str(self.port),
            "--folder",
            str(self.folder),
        ]
        with self.log.open("ab") as out:
            begin = out.tell()
            self.process = subprocess.Popen([*command, *self.options], stdout=out, stderr=out, env=self.env)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            said = self.log.read_bytes()[begin:].decode()
            if "Ctrl-C stops it." in said:
                time.sleep(0.2)
                return self.log.read_bytes()[begin:].decode()
            assert self.process.poll() is None, said
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def admin(self, *arguments: str, answer: str = "") -> str:
        """``neuronmap zoo admin`` beside it."""
        command = [sys.executable, "-m", "neuronmap", "zoo", "admin", *arguments, "--folder", str(self.folder)]
        done = subprocess.run(command, input=answer.encode(), capture_output=True, env=self.env, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def client(self, token: str | None = None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60)

    def token(self, name: str) -> str:
        """Sign in with the password, and make a token."""
        with self.client() as browser:
            signed = browser.post("/api/zoo/sign-in", json={"name": name, "password": PASSWORD})
            assert signed.status_code == 200, signed.text
            body = {"title": "test", "scopes": ["write", "admin"]}
            made = browser.post("/api/zoo/tokens", json=body, headers={"origin": self.url})
            assert made.status_code == 201, made.text
            return str(made.json()["token"])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def begin_upload(client: httpx2.Client, data: bytes, namespace: str = "ada") -> tuple[str, str]:
    """Addresses of a publication and of the upload of its file."""
    begun = client.post("/api/zoo/publications", json={"namespace": namespace, "size": len(data)})
    assert begun.status_code == 201, begun.text
    publication = f"/api/zoo/publications/{begun.json()['key']}"
    started = client.post(f"{publication}/uploads", json={"digest": Digest.of(data), "size": len(data)})
    return publication, f"/api/zoo/uploads/{started.json()['key']}"


def send(client: httpx2.Client, upload: str, data: bytes, offset: int = 0, piece: int = 1 << 20) -> None:
    while offset < len(data):
        answer = client.patch(upload, content=data[offset : offset + piece], headers={"Upload-Offset": str(offset)})
        assert answer.status_code == 200, answer.text
        offset = answer.json()["received"]
    assert client.post(f"{upload}/finish").json()["done"]


def publish(client: httpx2.Client, data: bytes, **values: Any) -> dict[str, Any]:
    publication, upload = begin_upload(client, data, values.get("namespace", "ada"))
    send(client, upload, data)
    done = client.put(f"{publication}/manifest", content=manifest_of(data, **values)[1], headers=JSON)
    assert done.status_code == 201, done.text
    return dict(done.json())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With ada, who came by the setup token and runs it, and bob, whom she made on its machine."""
    made = Server(tmp_path_factory.mktemp("server"))
    said = made.start()
    token = re.search(r"nmsetup_[A-Za-z0-9_-]{43}", said)
    assert token is not None, said
    with made.client() as nobody:
        assert nobody.get("/api/zoo/search").status_code == 401
        assert nobody.post("/api/zoo/sign-in", json={"name": "admin", "password": "admin"}).status_code == 401
        body = {"token": token[0], "name": "ada", "password": PASSWORD}
        assert nobody.post("/api/zoo/setup", json=body).status_code == 201
        assert nobody.post("/api/zoo/setup", json={**body, "name": "eve"}).status_code == 403
    assert "bob has an account" in made.admin("create-user", "bob", "--password-stdin", answer=PASSWORD + "\n")
    yield made
    made.end()
    assert "Traceback" not in made.log.read_text()


def test_it_listens_on_this_machine_alone_and_its_files_are_its_owners(server: Server) -> None:
    with socket.socket() as other:
        other.settimeout(5)
        outside = socket.gethostbyname(socket.gethostname())
        if not outside.startswith("127."):
            assert other.connect_ex((outside, server.port)) != 0
    for path in server.folder.rglob("*"):
        if path.is_file() and "sha256" in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_two_people_publish_pull_and_yank(server: Server) -> None:
    with server.client(server.token("ada")) as ada, server.client(server.token("bob")) as bob:
        data = os.urandom(3_000_000)
        made = publish(ada, data, name="shared")
        here = "/api/zoo/artefacts/ada/shared/versions"
        pulled = bob.get(f"{here}/latest/manifest")
        assert f"sha256:{hashlib.sha256(pulled.content).hexdigest()}" == made["digest"]
        first = bob.get(f"{here}/1.0/files/a.txt", headers={"range": "bytes=0-999999"})
        rest = bob.get(
            f"{here}/1.0/files/a.txt", headers={"range": "bytes=1000000-", "if-range": first.headers["etag"]}
        )
        assert (first.status_code, rest.status_code) == (206, 206)
        assert first.content + rest.content == data
        assert bob.post(f"{here}/1.0/yank", json={"reason": "mine"}).status_code == 403
        assert ada.post(f"{here}/1.0/yank", json={"reason": "a wrong text"}).json()["state"] == "yanked"
        assert bob.get(f"{here}/latest").status_code == 404
        assert bob.get(f"{here}/{made['digest']}/files/a.txt").content == data
        depending = publish(
            bob,
            b"made from it",
            namespace="bob",
            name="derived",
            depends_on=[{"digest": made["digest"], "role": "base"}],
        )
        assert depending["depends_on"][0]["reference"] == "ada/shared@1.0"
        assert ada.delete(f"{here}/1.0", params={"reason": "not needed"}).status_code == 409  # bob's was made from it


def test_it_conforms(server: Server) -> None:
    report = run_conformance(server.url, server.token("ada"), write_namespace="ada")
    assert [(check.name, check.reason) for check in report.checks if check.outcome == "fail"] == []
    assert report.counts()["pass"] == 29


def test_a_hundred_downloads_at_once(server: Server) -> None:
    data = os.urandom(1 << 20)
    token = server.token("ada")
    with server.client(token) as ada:
        publish(ada, data, name="popular")
    address = "/api/zoo/artefacts/ada/popular/versions/1.0/files/a.txt"
    digest = hashlib.sha256(data).digest()
    gate = threading.Barrier(100)

    def pull(_: int) -> float:
        with server.client(token) as client:
            gate.wait(60)
            started = time.perf_counter()
            answer = client.get(address)
            assert answer.status_code == 200
            assert hashlib.sha256(answer.content).digest() == digest
            return time.perf_counter() - started

    begun = time.perf_counter()
    with ThreadPoolExecutor(100) as pool:
        seconds = sorted(pool.map(pull, range(100)))
    print(f"100 x 1 MiB in {time.perf_counter() - begun:.2f} s; p50 {seconds[49]:.2f} s, p95 {seconds[94]:.2f} s")


def test_killed_in_the_middle_of_an_upload(server: Server) -> None:
    """kill -9 while a piece arrives: what was acknowledged is there, the rest is sent again, and nothing half is ever listed."""
    data = os.urandom(6 << 20)
    token = server.token("ada")
    with server.client(token) as ada:
        publish(ada, data[:1000], name="before")
        publication, upload = begin_upload(ada, data)
        sent = ada.patch(upload, content=data[: 1 << 20], headers={"Upload-Offset": "0"})
        assert sent.json()["received"] == 1 << 20
    arriving = threading.Event()

    def slowly() -> Iterator[bytes]:
        for first in range(1 << 20, 3 << 20, 1 << 18):
            yield data[first : first + (1 << 18)]
            arriving.set()
            time.sleep(0.2)

    def interrupted() -> None:
        with server.client(token) as ada, pytest.raises(httpx2.TransportError):
            ada.patch(upload, content=slowly(), headers={"Upload-Offset": str(1 << 20)})

    thread = threading.Thread(target=interrupted)
    thread.start()
    assert arriving.wait(30)
    server.end(signal.SIGKILL)
    thread.join(30)
    assert not thread.is_alive()
    server.start()
    with server.client(token) as ada:
        [left] = ada.get(publication).json()["uploads"]
        assert (left["received"], left["done"]) == (1 << 20, False)
        assert ada.get("/api/zoo/artefacts/ada/interrupted").status_code == 404
        send(ada, upload, data, left["received"])
        done = ada.put(f"{publication}/manifest", content=manifest_of(data, name="interrupted")[1], headers=JSON)
        assert done.status_code == 201, done.text
        assert ada.get("/api/zoo/artefacts/ada/interrupted/versions/1.0/files/a.txt").content == data
        hits = ada.get("/api/zoo/search", params={"limit": 100, "all_versions": True}).json()["hits"]
        for hit in hits:  # whatever is listed can be pulled, and is what it says
            artefact, _, label = hit["reference"].partition("@")
            for file in ada.get(f"/api/zoo/artefacts/{artefact}/versions/{label}").json()["files"]:
                content = ada.get(f"/api/zoo/artefacts/{artefact}/versions/{label}/files/{file['path']}").content
                assert Digest.of(content) == file["digest"]
        assert {hit["reference"] for hit in hits} >= {"ada/before@1.0", "ada/interrupted@1.0"}
        verified = ada.post("/api/zoo/verify", json={"limit": 1000}).json()
        assert verified["damaged"] == verified["missing"] == []


def test_signing_in_through_a_provider(tmp_path: Path) -> None:
    with small_provider() as small:
        server = Server(
            tmp_path, "--oidc-issuer", small.issuer, "--oidc-client-id", CLIENT, NEURONMAP_ZOO_OIDC_SECRET=SECRET
        )
        server.options = (*server.options, "--address", server.url)
        server.start()
        try:
            with httpx2.Client(follow_redirects=False) as browser:
                begun = browser.get(f"{server.url}/api/zoo/oidc/start")
                there = browser.get(begun.headers["location"])
                back = browser.get(there.headers["location"])
                assert (back.status_code, back.headers["location"]) == (303, "/")
                assert browser.get(f"{server.url}/api/zoo/me").json()["name"] == "grace"
        finally:
            server.end()
        assert SECRET not in server.log.read_text()
