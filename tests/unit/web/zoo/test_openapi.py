"""The zoo's OpenAPI document: an example of every answer, and schemathesis over all routes: no 500, no undocumented status.

After a change of an answer, write the examples anew:

    NEURONMAP_WRITE_EXAMPLES=1 python -m pytest -q tests/unit/web/zoo/test_openapi.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.unit.web.zoo.conftest import PLENTY, Served
from tests.unit.web.zoo.tour import walk

from neuronmap.web.api.examples import example_key, stored_examples
from neuronmap.web.measuring import Measures
from neuronmap.web.zoo import api
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.server import create_zoo_app
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.registry.registry import Registry

PACKAGE = "neuronmap.web.zoo.api"
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
REAL: dict[str, Any] = {
    "namespace": "ada", "name": "demo", "version": "1.0", "path": "a.txt", "user": "bob", "alias": "best", "q": "text",
    "token": 1, "comment": 1, "size": 5, "successor": "1.1",
}  # fmt: skip


def described(zoo: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document, and the content of every JSON answer that is no error."""
    document = zoo.app.state.zoo.app.openapi()
    found = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if status.startswith("2") and content is not None:
                    found[example_key(method, path, status)] = content
    return document, found


def test_every_answer_has_an_example_that_fits_its_schema(zoo: Served) -> None:
    document, found = described(zoo)
    written = walk(zoo)
    target = Path(str(api.__file__)).with_name("examples.json")
    if os.environ.get("NEURONMAP_WRITE_EXAMPLES"):
        target.write_text(json.dumps(written, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    stored = stored_examples(PACKAGE)
    assert set(stored) == set(written) == set(found)
    for examples in (stored, written):
        for key, value in examples.items():
            whole = {**found[key]["schema"], "components": document["components"]}
            faults = [f"{key}: {one.message[:200]}" for one in Draft202012Validator(whole).iter_errors(value)]
            assert not faults
    assert "/tmp" not in json.dumps(stored)


def test_everything_is_described(zoo: Served) -> None:
    document, _ = described(zoo)
    assert document["paths"].keys() >= {"/api/zoo", "/api/zoo/search", "/health"}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            where = f"{method} {path}"
            assert route.get("summary"), where
            assert route.get("description"), where
            for status, answer in route["responses"].items():
                if status.startswith("4"):
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("ProblemDocument"), where
            for parameter in route.get("parameters", []):
                assert parameter.get("description") or parameter["schema"].get("description"), (
                    where,
                    parameter["name"],
                )
                limits = str(parameter["schema"])
                free_text = "'type': 'string'" in limits and "enum" not in limits
                bounded = any(word in limits for word in ("maxLength", "pattern", "format", "const"))
                own_rule = parameter["name"] in ("metric", "licence", "sort")  # read by a rule that no schema can state
                assert not free_text or bounded or own_rule, (where, parameter["name"])


# --- made-up requests ----------------------------------------------------------------------------------------------------------

SETTINGS = ZooServerSettings(allowed_hosts=("testserver",), **PLENTY)


def _not_yet() -> Registry:
    raise AssertionError("the registry is set by a fixture")


CONTEXT = ZooContext(_not_yet, embedded=False, rates=SETTINGS.rates)
CONTEXT.measures = Measures()
APP = create_zoo_app(SETTINGS, CONTEXT)
schema = schemathesis.openapi.from_asgi("/api/zoo/openapi.json", APP)
TURNS = iter(range(1 << 30))


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, str]]]:
    """The application on a small zoo; headers of its administrator, of a reader, and of nobody."""
    served = Served(tmp_path_factory.mktemp("routes"))
    browser = served.browser("ada")
    for version in ("1.0", "1.1"):
        browser.publish(version.encode(), version=version)
    browser.put("/api/zoo/artefacts/ada/demo/aliases/best", json={"version": "1.0"})
    CONTEXT.registry, CONTEXT.people = served.context.registry, served.people
    ada, bob = served.token("ada"), served.token("bob", "read")
    yield [{"Authorization": f"Bearer {token}"} for token in (ada, bob)] + [{}]
    served.context.close()


def towards_real_things(case: Any, turn: int) -> None:
    """Put names that exist into two of three requests, so that not all of them end at "not found"."""
    if turn % 3 == 2:
        return
    for part in (case.query, case.path_parameters, case.body):
        if isinstance(part, dict):
            part.update({name: value for name, value in REAL.items() if name in part})


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
def test_routes_keep_their_promises(case: Any, identities: list[dict[str, str]]) -> None:
    turn = next(TURNS)
    towards_real_things(case, turn)
    response = case.call_and_validate(checks=CHECKS, headers=identities[(turn // 2) % 4 // 2 if turn % 8 else 2])
    assert response.status_code != 500
