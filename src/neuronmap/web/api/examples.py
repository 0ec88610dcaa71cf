"""An example of every answer, for the OpenAPI document: ``examples.json`` beside this file.

Each was given by the route itself on a small library, and shortened; a test checks that every JSON route has one and that each fits
its route's schema. After a change of an answer, write them anew (a minute):

    NEURONMAP_WRITE_EXAMPLES=1 python -m pytest -q tests/unit/web/test_answers.py
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["add_examples", "example_key", "stored_examples"]


def example_key(method: str, path: str, status: str) -> str:
    """What the example of an answer is called: ``GET /api/jobs 200``."""
    return f"{method.upper()} {path} {status}"


def stored_examples(package: str = "neuronmap.web.api") -> dict[str, Any]:
    """All of an API's, by :func:`example_key`."""
    found: dict[str, Any] = json.loads((files(package) / "examples.json").read_bytes())
    return found


def add_examples(document: dict[str, Any], package: str = "neuronmap.web.api") -> None:
    """Put each example where it belongs in an OpenAPI document; one that a route gives itself stays."""
    examples = stored_examples(package)
    for path, methods in document.get("paths", {}).items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                content = answer.get("content", {}).get("application/json")
                key = example_key(method, path, status)
                if content is not None and key in examples and not {"example", "examples"} & content.keys():
                    content["example"] = examples[key]
