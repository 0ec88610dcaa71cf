"""The first page is there before the rest is imported, and nothing else about an answer tells when it was asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

from neuronmap.web import warming as warming_module
from neuronmap.web.app import Application
from neuronmap.web.fetch import fetch_now
from neuronmap.web.rest import Rest

HEAVY = [
    "fastapi",
    "numpy",
    "pyarrow",
    "duckdb",
    "pandas",
    "scipy",
    "torch",
    "structlog",
    "transformers",
    "neuronmap.training.config",
    "neuronmap.features.storage.store",
    "neuronmap.web.pages",
    "neuronmap.web.api",
    "neuronmap.zoo",
]
LISTING = f"import sys; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
PAGE = {"accept": "text/html"}


def loaded_after(statements: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{LISTING}"], capture_output=True, text=True, timeout=120, check=True
    )
    return ran.stdout.splitlines()[-1].split()


def test_the_first_page_needs_none_of_the_heavy_libraries(library: Path) -> None:
    del library
    answered = (
        "import asyncio\nfrom neuronmap.web.app import create_app\nfrom neuronmap.web.fetch import fetch\n"
        "answer = asyncio.run(fetch(create_app(), '/'))\nassert answer.status == 200 and b'/sae/first' in answer.body"
    )
    assert loaded_after(answered) == []


def test_the_page_of_an_sae_needs_neither_fastapi_nor_other_pages(library: Path) -> None:
    del library
    answered = (
        "import asyncio\nfrom neuronmap.web import explorer\nfrom neuronmap.web.app import create_app\n"
        "from neuronmap.web.fetch import fetch\n"
        "explorer._AHEAD_S = 60\n"  # what is read after the answer is not this test's
        "answer = asyncio.run(fetch(create_app(), '/sae/first'))\nassert answer.status == 200 and b'Features together' in answer.body"
    )
    assert not set(loaded_after(answered)) & {"fastapi", "duckdb", "pandas", "scipy", "torch", "neuronmap.web.pages"}


def test_serve_is_there_without_the_other_commands() -> None:
    serving = (
        "import contextlib, sys\nfrom neuronmap.cli import main\nsys.argv = ['neuronmap', 'serve', '--port', '70000']\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert loaded_after(serving) == []
    help_of = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
        for code in (
            "import sys; from neuronmap.cli import main; sys.argv = ['neuronmap', 'serve', '--help']; main()",
            "import sys; from neuronmap.cli import app; sys.argv = ['neuronmap', 'serve', '--help']; app()",
        )
    ]
    assert help_of[0] == help_of[1]
    assert "--user-header" in help_of[0]


def test_the_commands_are_found_by_their_name_however_they_are_imported() -> None:
    for first in ("import neuronmap.cli", "from neuronmap.cli import serve", "from neuronmap.cli import app as before"):
        code = f"{first}\nfrom neuronmap.cli import app\nassert type(app).__name__ == 'Typer', app"
        subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", PAGE),
        ("HEAD", PAGE),
        ("GET", {"accept": "application/json"}),
        ("GET", {"accept-encoding": "gzip"}),
        ("GET", {"host": "rebound.example"}),
        ("POST", PAGE),
        ("POST", {"origin": "https://elsewhere.example"}),
        ("OPTIONS", {}),
        ("DELETE", PAGE),
    ],
)
@pytest.mark.parametrize("path", ["/", "/?a=b", "//"])
def test_the_first_page_is_the_same_whoever_answers(
    library: Path, method: str, headers: dict[str, str], path: str
) -> None:
    """With its own route, and with the route of :mod:`neuronmap.web.pages.home` alone."""
    del library
    early, late = made_app(), made_app()
    late.router.routes[:] = [route for route in late.router.routes if getattr(route, "name", "") != "home"]
    answers = []
    for app in (early, late):
        with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
            client.headers.pop("accept-encoding")
            answers.append(client.request(method, f"http://localhost{path}", headers=headers))
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content
    assert sorted(answers[0].headers.items()) == sorted(answers[1].headers.items())


SAE_ADDRESSES = [
    "/sae/first",
    "/sae/first/",
    "/sae/second",
    "/sae/first?colour=class",
    "/sae/first?colour=taste",
    "/sae/first.json",
    "/sae/first/-",
    "/sae/first/-/nothing",
    "/sae/fir",
    "/sae/none",
    "/sae/",
    f"/sae/{'n' * 700}",
    "/sae/..%2Ffirst",
]


def test_the_page_of_an_sae_is_the_same_whoever_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its route, and as before the whole is there."""

    def answers() -> list[tuple[int, bytes, list[tuple[str, str]]]]:
        found = []
        for path in SAE_ADDRESSES:
            for method, headers in (("GET", PAGE), ("GET", {}), ("HEAD", PAGE), ("POST", PAGE)):
                answer = client.request(method, path, headers=headers)
                found.append((answer.status_code, answer.content, sorted(answer.headers.items())))
        return found

    def counted() -> dict[str, str]:
        lines = client.get("/api/metrics").text.splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if "requests_total{" in line and "/sae/{" in line)

    late, once = answers(), counted()
    monkeypatch.setattr(Rest, "made", False)
    assert answers() == late
    assert counted() == {name: f"{2 * float(count)}" for name, count in once.items()} != {}
    assert {status for status, *_ in late} == {200, 404, 405, 422}


def test_it_is_not_sent_again_where_it_has_not_changed(client: TestClient) -> None:
    tag = client.get("/").headers["etag"]
    assert client.get("/", headers={"if-none-match": tag}).status_code == 304


def test_what_is_asked_for_before_the_rest_is_made_waits_for_it(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del library
    app, made, go = made_app(), [], threading.Event()
    making = app.rest._making

    def slowly() -> FastAPI:
        made.append(1)
        assert go.wait(60)
        return making()

    monkeypatch.setattr(app.rest, "_making", slowly)
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        answers: dict[str, int] = {}

        def ask(path: str) -> None:
            answers[path] = client.get(path, headers=PAGE).status_code

        paths = ["/sae/first.json", "/api/sae/list_models", "/nowhere", "/sae/none?fits=first", "/jobs/"]
        threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        assert client.get("/", headers=PAGE).status_code == 200
        assert client.get("/sae/first", headers=PAGE).status_code == 200
        assert client.get("/static/icon.svg").status_code == 200
        refused = client.get("/sae/first.json", headers={"host": "rebound.example"})
        assert refused.json()["error"]["code"] == "host"
        assert not answers
        go.set()
        for thread in threads:
            thread.join(60)
        later = {path: client.get(path, headers=PAGE).status_code for path in paths}
    assert answers == later
    assert later == {paths[0]: 200, paths[1]: 200, paths[2]: 404, paths[3]: 404, paths[4]: 307}
    assert made == [1]


def test_a_rest_that_cannot_be_made_is_an_error_of_our_shape_and_the_first_page_stays(library: Path) -> None:
    del library
    app = made_app()

    def broken() -> FastAPI:
        raise ImportError("a package is missing")

    app.rest._making = broken
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        for _ in range(2):
            answer = client.get("/api/health")
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
            assert "package" not in answer.text
        assert client.get("/").status_code == 200


def test_the_first_page_is_counted_like_any_other(client: TestClient) -> None:
    for _ in range(3):
        client.get("/")
    client.get("/nowhere")
    figures = client.get("/api/metrics").text
    assert 'neuronmap_requests_total{method="GET",route="/",status="200"} 3.0' in figures
    assert 'neuronmap_requests_total{method="GET",route="none",status="404"} 1.0' in figures


def test_the_rest_is_made_without_being_asked_for_and_jobs_are_run(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del library
    monkeypatch.setattr(warming_module, "_LATEST_S", 0.0)
    app = made_app(supervise=True)
    with TestClient(app, base_url="http://localhost") as client:
        assert app.warming is not None
        app.warming.thread.join(120)
        assert app.rest.begin().done()
        assert app.warming.supervisor is not None
        assert client.get("/api/health").status_code == 200
    assert not any(thread.name == "neuronmap-supervisor" for thread in threading.enumerate())


def test_a_server_that_ends_at_once_starts_no_jobs(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del library
    monkeypatch.setattr(warming_module, "_LATEST_S", 30.0)
    app = made_app(supervise=True)
    with TestClient(app, base_url="http://localhost"):
        pass
    assert app.warming is not None
    app.warming.thread.join(10)
    assert app.warming.supervisor is None


def test_one_answer_without_a_server(library: Path) -> None:
    del library
    app: Application = made_app()
    assert b"/sae/first" in fetch_now(app, "/").body
    assert fetch_now(made_app(), "/api/health").status == 200
