"""Every JSON route has an example of its answer in the OpenAPI document, and each fits the schema that stands beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from tests.unit.web.answering import answers
from tests.unit.web.concepts.made import report
from tests.unit.web.conftest import made_app
from typer.testing import CliRunner

from neuronmap.cli import app as commands
from neuronmap.hub import SAEModelHub
from neuronmap.hub.reports import store_report
from neuronmap.web.api import examples
from neuronmap.web.api.examples import example_key, stored_examples

DOCUMENT = made_app().openapi()
ZOO = " /zoo"
"""Pages of the registry: they have no examples yet; those that there are must fit."""


def documented() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of every JSON answer that is no error."""
    for path, methods in DOCUMENT["paths"].items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if status.startswith("2") and content is not None:
                    yield example_key(method, path, status), content


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": DOCUMENT["components"]}
    return [
        f"{'/'.join(map(str, one.path))}: {one.message[:200]}" for one in Draft202012Validator(whole).iter_errors(value)
    ]


def given(content: dict[str, Any]) -> list[Any]:
    """The examples of an answer, in either of OpenAPI's two ways."""
    if "example" in content:
        return [content["example"]]
    return [one["value"] for one in content.get("examples", {}).values()]


def test_every_answer_has_an_example_that_fits_its_schema() -> None:
    found = dict(documented())
    assert len(found) > 70
    missing = [key for key, content in found.items() if not given(content) and ZOO not in key]
    assert not missing
    wrong = {key: bad for key, one in found.items() for value in given(one) if (bad := faults(one["schema"], value))}
    assert not wrong


def test_every_example_is_of_a_route_and_tells_nothing_of_a_machine() -> None:
    stored = stored_examples()
    assert not set(stored) - set(dict(documented()))
    text = json.dumps(stored)
    assert "/tmp" not in text
    assert len(text) < 400_000


def test_the_check_sees_a_wrong_example() -> None:
    content = dict(documented())["GET /api/jobs 200"]
    assert faults(content["schema"], {"jobs": [{"id": 3}], "next": None})
    assert not faults(content["schema"], {"jobs": [], "next": None})


def test_the_shape_of_errors_has_an_example() -> None:
    schema = DOCUMENT["components"]["schemas"]["ProblemDocument"]
    assert not faults({"$ref": "#/components/schemas/ProblemDocument"}, schema["examples"][0])


def write(small_home: Path, home: Path) -> None:
    """Ask all routes and write what they answer."""
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    with_map = ["analyze", "first", "--replace"]
    measured = [["evaluate", name, "--tokens", "400", "--ce-tokens", "64"] for name in ("first", "second")]
    for command in (with_map, *measured):
        done = CliRunner().invoke(commands, ["sae", *command])
        assert done.exit_code == 0, done.output
    entry = SAEModelHub().add_tags("first", "examples")
    store_report(report(), "tried")
    models = str(Path(str(entry.model)).parent)
    with TestClient(made_app(text_folder=home), base_url="http://localhost") as client:
        found = dict(
            answers(
                client,
                {models: "<models>", str(home): "<home>", str(small_home): "<home>", socket.gethostname(): "machine"},
            )
        )
    lines = [f"{json.dumps(key)}: {json.dumps(found[key], ensure_ascii=False)}" for key in sorted(found)]
    file = Path(str(examples.__file__)).with_suffix(".json")
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if "NEURONMAP_WRITE_EXAMPLES" in os.environ:  # no test, so none that is skipped

    def test_write_the_examples(small_home: Path, home: Path) -> None:
        write(small_home, home)
