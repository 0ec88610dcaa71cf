"""schemathesis over every documented route: no 500, no undocumented status, answers of the documented shape.

Half of the made-up requests are pointed at things that exist, so that not all of them end at "not found".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.unit.web.concepts.made import SUBJECT, report

from neuronmap.hub.reports import store_report
from neuronmap.web.app import create_app
from neuronmap.web.explorer import Explorer
from neuronmap.web.settings import ServerSettings

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
REAL: dict[str, Any] = {
    "sae": "first", "a": "first", "b": "second", "feature": 3, "number": "1", "saes": ["first"],
    "report": "tried", "reports": ["tried"], "concept": SUBJECT, "plot": "complexity",
}  # fmt: skip
LONG = ("/events", "/steer", "/effects", "/text", "top_features", "activation", "search-", "analysis")
"""Routes that run a model or wait: they are tested on their own, and here with fewer requests."""


SETTINGS = ServerSettings(supervise=False, allowed_hosts=("testserver",), inferences_per_minute=100_000)
APP = create_app(SETTINGS)
schema = schemathesis.openapi.from_asgi("/api/openapi.json", APP)


@pytest.fixture(scope="module")
def shared_home(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the small home for all routes: what they queue may pile up."""
    folder = tmp_path_factory.mktemp("routes") / "home"
    shutil.copytree(small_home, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(folder))
        store_report(report(), "tried")
    return folder


@pytest.fixture(autouse=True)
def small_library(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The application on that home."""
    monkeypatch.setenv("NEURONMAP_HOME", str(shared_home))
    APP.state.explorer = Explorer(SETTINGS)
    with TestClient(APP, base_url="http://localhost"):  # starts it, and ends it
        yield


def towards_real_things(case: Any, turn: int) -> None:
    """Put names that exist into every other request."""
    if turn % 2:
        return
    for part in (case.query, case.path_parameters, case.body):
        if isinstance(part, dict):
            part.update({name: value for name, value in REAL.items() if name in part})


TURNS = iter(range(1 << 30))


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
def test_routes_keep_their_promises(case: Any) -> None:
    turn = next(TURNS)
    if any(part in case.path for part in LONG) and turn % 3:
        return
    towards_real_things(case, turn)
    response = case.call_and_validate(checks=CHECKS)
    assert response.status_code != 500


def test_everything_under_api_is_documented_with_its_errors() -> None:
    document = APP.openapi()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            where = f"{method} {path}"
            assert route.get("summary"), where
            assert route.get("tags"), where
            for status, answer in route["responses"].items():
                if status.startswith(("4", "5")):
                    content = answer["content"]["application/json"]["schema"]
                    assert content["$ref"].endswith("ProblemDocument"), (where, status)
            for parameter in route.get("parameters", []):
                limits = str(parameter["schema"])
                free_text = "'type': 'string'" in limits and "enum" not in limits
                in_path = parameter["in"] == "path"  # an address is bounded by the server
                bounded = any(word in limits for word in ("maxLength", "pattern", "format", "const"))
                assert not free_text or in_path or bounded, (where, parameter["name"])
