"""Pages of the zoo of this machine: browse, narrow down, a version with its state, which SAEs fit."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from neuronmap.web.app import create_app
from neuronmap.web.settings import ServerSettings
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest, media_type
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.views import VersionView


def put(registry: Registry, values: dict[str, Any], contents: dict[str, bytes]) -> VersionView:
    """Publish an artefact with these files."""
    files = [
        {"path": path, "digest": Digest.of(data), "size": len(data), "media_type": media_type(path)}
        for path, data in contents.items()
    ]
    shared = {"namespace": "ada", "licence": "MIT", "created": "2026-11-26T00:00:00Z", "files": files}
    manifest, written = Manifest.build({**shared, **values})
    begun = registry.uploading.begin(LOCAL, manifest.namespace, manifest.size)
    for data in contents.values():
        if registry.uploading.missing(LOCAL, begun.key, [Digest.of(data)]):
            upload = registry.uploading.start(LOCAL, begun.key, Digest.of(data), len(data))
            registry.uploading.append(LOCAL, upload.key, 0, [data])
            registry.uploading.finish(LOCAL, upload.key)
    return registry.publishing.publish(LOCAL, begun.key, written)


def sae(registry: Registry, name: str, version: str, **record: Any) -> VersionView:
    """An SAE of smollm2-135m."""
    header = json.dumps({"W_dec": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}}).encode()
    contents = {
        "cfg.json": b'{"d_in": 4, "d_sae": 8}',
        "sae_weights.safetensors": struct.pack("<Q", len(header)) + header + bytes(128),
        "README.md": b"# The card\n\n<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://x/y.png)",
    }
    shown = {
        "model": {"name": "HuggingFaceTB/SmolLM2-135M", "num_layers": 30},
        "hook": {"name": "layers.8.residual", "layer": 8, "component": "residual", "width": 4},
        "architecture": "topk", "d_in": 4, "d_sae": 8, "k": 2, "metrics": {"explained_variance": 0.75, "l0": 2.0},
    }  # fmt: skip
    values = {"kind": "SAE_MODEL", "name": name, "version": version, "title": f"Title of {name}", "tags": ["demo"]}
    return put(registry, {**values, "card": "README.md", "record": {**shown, **record}}, contents)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("home")))
        registry = Registry.embedded()
        sae(registry, "first", "1.0")
        better = sae(registry, "first", "1.1")
        sae(registry, "other", "0.1", architecture="jumprelu", k=None)
        analysis = {"analysis": "features", "format": "neuronmap-features", "model": {"name": "smollm2-135m"}}
        values = {"kind": "ANALYSIS_RESULT", "name": "features", "version": "1.0", "record": analysis}
        put(registry, {**values, "depends_on": [{"digest": better.digest, "role": "sae"}]}, {"manifest.json": b"{}"})
        registry.changing.deprecate(
            LOCAL, Reference.parse("ada/first@1.0"), "old one", Reference.parse("ada/first@1.1")
        )
        registry.changing.yank(LOCAL, Reference.parse("ada/other@0.1"), "wrong weights")
        registry.close()
        app = create_app(ServerSettings(supervise=False))
        assert app.state.zoo.context.registry.database is not None  # opened now: each test has a home of its own
        with TestClient(app, base_url="http://localhost") as made:
            made.headers["accept"] = "text/html"
            yield made


def test_browsing_lists_the_newest_version_and_no_yanked_one(client: TestClient) -> None:
    page = client.get("/zoo").text
    assert "ada/first" in page
    assert "ada/features" in page
    assert "ada/other" not in page
    assert "2 found" in page


def test_conditions_narrow_down_and_bad_ones_are_said(client: TestClient) -> None:
    assert (
        "1 found"
        in client.get("/zoo", params={"kind": "SAE_MODEL", "metric": "explained_variance>=0.7", "layer": "8"}).text
    )
    assert "Nothing fits" in client.get("/zoo", params={"width_min": "9"}).text
    bad = client.get("/zoo", params={"metric": "much"})
    assert bad.status_code == 200
    assert "is no condition" in bad.text


def test_a_version_shows_state_card_lineage_and_how_to_get_it(client: TestClient) -> None:
    page = client.get("/zoo/ada/first").text
    assert "neuronmap zoo pull ada/first@1.1 --into-library" in page
    assert "<h3>The card</h3>" in page
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    assert "<img" not in page
    assert 'href="/zoo/ada/features/1.0"' in page
    assert "Open in the explorer" in page
    old = client.get("/zoo/ada/first/1.0").text
    assert "old one" in old
    assert 'href="/zoo/ada/first/1.1"' in old


def test_a_yanked_version_is_found_by_its_exact_label_alone(client: TestClient) -> None:
    assert "wrong weights" in client.get("/zoo/ada/other/0.1").text
    assert client.get("/zoo/ada/other/latest").status_code == 404
    assert "wrong weights" in client.get("/zoo/ada/other").text  # the artefact's page shows what there is


def test_a_digest_finds_the_version(client: TestClient) -> None:
    found = re.search(r"ada/first@(sha256:[0-9a-f]{64})", client.get("/zoo/ada/first/1.0").text)
    assert found is not None
    assert "old one" in client.get(f"/zoo/ada/first/{found[1]}").text


@pytest.mark.parametrize(
    "path", ["/zoo/ada/none", "/zoo/ada/first/9.9", "/zoo/ada/first/%2e%2e", "/zoo/A/B", "/zoo/ada/first/x y"]
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_which_saes_fit(client: TestClient) -> None:
    page = client.get("/zoo/compatible", params={"model": "smollm2-135m", "layer": "8"}).text
    assert "Made for this model" in page
    assert "ada/first" in page
    assert "None fits" in client.get("/zoo/compatible", params={"model": "gpt2"}).text
    assert client.get("/zoo/compatible", params={"layer": "eight", "model": "x"}).status_code == 200


def test_pages_are_json_too(client: TestClient) -> None:
    found = client.get("/zoo/ada/first.json").json()
    assert found["version"]["reference"] == "ada/first@1.1"
    assert [one["name"] for one in found["figures"]] == ["explained_variance", "l0"]
    assert client.get("/zoo.json").json()["total"] == 2


def test_comments_on_the_zoo_of_this_machine(client: TestClient) -> None:
    said = client.post("/zoo/ada/first/comments", data={"text": "mine"})
    assert "mine" in said.text
    [number] = re.findall(r"/comments/(\d+)/remove", said.text)
    assert "None yet" in client.post(f"/zoo/ada/first/comments/{number}/remove").text
