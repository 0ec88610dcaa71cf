"""The API's routes as people read them, from the OpenAPI document."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

__all__ = ["Parameter", "Route", "RouteGroup", "route_groups"]

_METHODS = ("get", "post", "put", "patch", "delete")


class Parameter(BaseModel):
    """Something a route takes."""

    name: str
    place: str = Field(description="path, query, header or body.")
    type: str
    required: bool
    default: str
    about: str


class Route(BaseModel):
    """One method of one address."""

    method: str
    path: str
    summary: str
    about: str
    parameters: list[Parameter]
    statuses: list[str]
    curl: str = Field(description="A command that calls it; the address is to be put before it.")


class RouteGroup(BaseModel):
    """Routes that belong together."""

    name: str
    routes: list[Route]


def route_groups(document: dict[str, Any]) -> list[RouteGroup]:
    """All routes by their first tag, in the document's order; those of pages last.

    Args:
        document: ``app.openapi()``.
    """
    groups: dict[str, list[Route]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                route = methods[method]
                groups.setdefault((route.get("tags") or ["other"])[0], []).append(_route(document, path, method, route))
    found = [RouteGroup(name=name, routes=routes) for name, routes in groups.items()]
    return sorted(found, key=lambda group: group.name == "pages")


def _route(document: dict[str, Any], path: str, method: str, route: dict[str, Any]) -> Route:
    parameters = [_parameter(document, one) for one in route.get("parameters", [])]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    schema = _resolved(document, body or {})
    parameters += [
        _field(document, name, field, "body", name in schema.get("required", ()))
        for name, field in schema.get("properties", {}).items()
    ]
    return Route(
        method=method.upper(),
        path=path,
        summary=route.get("summary", ""),
        about=route.get("description", ""),
        parameters=parameters,
        statuses=list(route.get("responses", {})),
        curl=_curl(path, method, parameters, _example(document, schema) if body else None),
    )


def _parameter(document: dict[str, Any], one: dict[str, Any]) -> Parameter:
    found = _field(document, one["name"], one.get("schema", {}), one["in"], bool(one.get("required")))
    return found.model_copy(update={"about": one.get("description", "") or found.about})


def _field(document: dict[str, Any], name: str, schema: dict[str, Any], place: str, required: bool) -> Parameter:
    default = schema.get("default")
    shown = "" if default in (None, "", []) else json.dumps(default)
    about = schema.get("description", "")
    return Parameter(
        name=name, place=place, type=_type(document, schema), required=required, default=shown, about=about
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return dict(document["components"]["schemas"][reference.rsplit("/", 1)[-1]]) if reference else schema


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    found = _resolved(document, schema)
    if "enum" in found:
        return " | ".join(map(str, found["enum"]))
    if "const" in found:
        return str(found["const"])
    choices = found.get("anyOf") or found.get("oneOf")
    if choices:
        return " | ".join(dict.fromkeys(_type(document, one) for one in choices if one.get("type") != "null"))
    kind = str(found.get("type", "any"))
    if kind == "array":
        return f"list of {_type(document, found.get('items', {}))}"
    limits = [
        f"{sign} {found[key]}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("maxLength", "at most"))
        if key in found
    ]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """An example of a body: its own, or its required fields."""
    given = schema.get("example") or next(iter(schema.get("examples", ())), None)
    if given is not None:
        return given
    samples: dict[str, Any] = {"integer": 0, "number": 0.5, "boolean": True, "array": [], "object": {}}
    found = {}
    for name in schema.get("required", ()):
        field = _resolved(document, schema["properties"][name])
        found[name] = samples.get(str(field.get("type")), "demo" if name == "sae" else "text")
    return found


def _curl(path: str, method: str, parameters: list[Parameter], body: Any) -> str:
    for one in parameters:
        if one.place == "path":
            path = path.replace(f"{{{one.name}:path}}", "demo").replace(
                f"{{{one.name}}}", "demo" if one.name == "sae" else "0"
            )
    needed = {
        one.name: "demo" if one.name == "sae" else "0" for one in parameters if one.place == "query" and one.required
    }
    address = f"http://127.0.0.1:8765{path}" + (f"?{urlencode(needed)}" if needed else "")
    parts = ["curl"] + ([] if method == "get" else ["-X", method.upper()])
    if body is not None:
        parts += ["-H", "content-type: application/json", "-d", json.dumps(body)]
    return shlex.join([*parts, address])
