"""A walk through all JSON routes of a zoo's server, as ada, and what each answered: the examples of the OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute
from tests.unit.web.zoo.conftest import Browser, Served, manifest_of

from neuronmap.web.zoo.server import create_zoo_app
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest

SAE = {
    "kind": "DATASET", "name": "demo", "title": "Sentences about rivers", "summary": "Forty short texts.", "tags": ["english", "small"],
}  # fmt: skip


class Guide(Browser):
    """A browser that writes down what JSON routes answer, by method, route and status."""

    seen: dict[str, Any]

    def request(self, method: str, url: Any, **more: Any) -> Any:  # type: ignore[override]
        answer = super().request(method, url, **more)
        path = str(url).partition("?")[0]
        assert answer.status_code < 400, (method, url, answer.text)
        route = next(one for one in self.routes if method in one.methods and re.fullmatch(one.path_regex, path))
        if "json" in answer.headers.get("content-type", ""):
            self.seen.setdefault(f"{method} {route.path} {answer.status_code}", shortened(answer.json()))
        return answer

    @property
    def routes(self) -> list[APIRoute]:
        from tests.unit.web.zoo.test_access import MODULES

        found = [route for module in MODULES for route in module.router.routes]
        return [route for route in found if isinstance(route, APIRoute)]


def shortened(value: Any) -> Any:
    """Lists of two, without secrets."""
    if isinstance(value, dict):
        return {name: shortened(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shortened(one) for one in value[:2]]
    if isinstance(value, str):
        return re.sub(r"\bnm[zs]_[A-Za-z0-9_-]{43}", "nmz_" + "x" * 43, value)
    return value


def walk(served: Served) -> dict[str, Any]:
    """The walk."""
    headers = {"Authorization": f"Bearer {served.token('ada')}"}
    ada = Guide(served.app, base_url="http://localhost", headers=headers, follow_redirects=False)
    ada.seen = {}
    here, api = "/api/zoo/artefacts/ada/demo", "/api/zoo"
    for path in ("", "/schemas", "/schemas/DATASET", "/me", "/tokens", "/users", "/audit", "/namespaces/lab"):
        ada.get(f"{api}{path}")
    ada.get("/health")
    made = ada.publish(b"The river froze.", version="1.0", **SAE)
    ada.publish(b"Again.", version="1.1", depends_on=[{"digest": made["digest"], "role": "base"}], **SAE)
    again(ada)
    ada.put(f"{here}/aliases/production", json={"version": "1.0", "reason": "checked by hand"})
    ada.post(f"{here}/versions/1.0/deprecate", json={"reason": "There are more texts now.", "successor": "1.1"})
    ada.post(f"{here}/versions/1.0/yank", json={"reason": "Two texts were not free."})
    ada.post(f"{here}/versions/1.0/restore")
    ada.post(f"{here}/versions/1.1/release")
    for path in ("", "/versions/1.1", "/versions/1.1/lineage", "/alias-log", "/star", "/comments"):
        ada.get(f"{here}{path}")
    ada.get(f"{api}/manifests/{made['digest']}")
    for query in ("search?q=river", "facets?kind=DATASET", "compatible?d_in=768"):
        ada.get(f"{api}/{query}")
    ada.put(f"{here}/star")
    ada.delete(f"{here}/star")
    ada.post(f"{here}/comments", json={"text": "Used it with **SmolLM2**: good.", "version": "1.1"})
    items = [{"artefact": "ada/demo", "note": "Small enough for a first try."}]
    ada.post(
        f"{api}/collections",
        json={"namespace": "ada", "name": "to-begin-with", "title": "To begin with", "items": items},
    )
    ada.get(f"{api}/collections")
    ada.get(f"{api}/collections/ada/to-begin-with")
    ada.put(f"{api}/collections/ada/to-begin-with", json={"title": "To begin with", "items": items})
    ada.post(f"{api}/tokens", json={"title": "cluster", "scopes": ["write"], "namespace": "lab"})
    ada.post(f"{api}/namespaces", json={"name": "group", "title": "A group"})
    ada.put(f"{api}/namespaces/group/members/bob", json={"role": "writer"})
    ada.put(f"{api}/namespaces/group/quota", json={"bytes": 1 << 40})
    ada.post(
        f"{api}/users", json={"name": "grace", "email": "grace@example.org", "password": "four words nobody guesses"}
    )
    ada.patch(f"{api}/users/grace", json={"disabled": True})
    ada.post(f"{api}/gc", json={})
    ada.post(f"{api}/verify", json={})
    ada.put(f"{here}/visibility", json={"private": False})
    ada.delete(f"{here}/versions/1.1", params={"reason": "A person asked for it."})
    signing(served, ada)
    return {key: ada.seen[key] for key in sorted(ada.seen)}


def again(ada: Guide) -> None:
    """What a publication answers on its way, and publishing what is there."""
    manifest, written = manifest_of(b"The river froze.", version="1.0", **SAE)
    key = ada.post("/api/zoo/publications", json={"namespace": "ada", "size": manifest.size}).json()["key"]
    other = {"digest": Digest.of(b"more"), "size": 4}
    ada.post(f"/api/zoo/publications/{key}/uploads", json={**other, "size": 4})
    ada.get(f"/api/zoo/publications/{key}")
    assert Manifest.parse(written) == manifest
    ada.put(f"/api/zoo/publications/{key}/manifest", content=written, headers={"content-type": "application/json"})


def signing(served: Served, ada: Guide) -> None:
    """Signing in, with a password."""
    ada.patch("/api/zoo/users/grace", json={"disabled": False})
    grace = Guide(served.app, base_url="http://localhost")
    grace.seen = ada.seen
    grace.post("/api/zoo/sign-in", json={"name": "grace", "password": "four words nobody guesses"})
    new = create_zoo_app(ZooServerSettings(folder=Path(str(served.settings.folder), "new")))
    token = new.state.zoo.context.people.accounts.new_setup_token()
    first = Guide(new, base_url="http://localhost")
    first.seen = ada.seen
    first.post("/api/zoo/setup", json={"token": token, "name": "ada", "password": "four words nobody guesses"})
    new.state.zoo.close()
