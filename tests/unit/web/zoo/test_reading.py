"""What is answered about artefacts: bytes as they were published, parts of files, no word about what is not for the asker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.unit.web.zoo.conftest import Browser, Served, manifest_of

from neuronmap.web.app import create_app
from neuronmap.web.settings import TOKEN_VARIABLE, ServerSettings
from neuronmap.zoo.digests import Digest

DATA = bytes(range(256)) * 8192  # two of the pieces in which a store gives it
DEMO = "/api/zoo/artefacts/ada/demo"
FILE = f"{DEMO}/versions/1.0/files/a.txt"
TAG = f'"{Digest.of(DATA)}"'


@pytest.fixture(scope="module")
def published(zoo: Served) -> dict[str, Any]:
    return zoo.browser("ada").publish(DATA)


@pytest.fixture(scope="module")
def reader(zoo: Served, published: dict[str, Any]) -> Browser:
    return zoo.browser("eve", "read")


def test_the_server_says_what_it_is(zoo: Served) -> None:
    found = zoo.browser().get("/api/zoo").json()
    assert (found["protocol"], found["anonymous_read"], found["features"]) == (1, False, ["accounts"])
    assert found["most_piece_bytes"] == 64 << 20


def test_the_manifest_is_sent_as_it_was_published(reader: Browser, published: dict[str, Any]) -> None:
    for version in ("1.0", "latest", published["digest"]):
        answer = reader.get(f"{DEMO}/versions/{version}/manifest")
        assert answer.content == manifest_of(DATA)[1]
        assert Digest.of(answer.content) == published["digest"] == answer.headers["zoo-digest"]
        assert answer.headers["etag"] == f'"{published["digest"]}"'
    again = reader.get(f"{DEMO}/versions/1.0/manifest", headers={"if-none-match": f'"{published["digest"]}"'})
    assert (again.status_code, again.content) == (304, b"")


def test_only_a_pull_is_counted(reader: Browser) -> None:
    def count() -> int:
        return int(reader.get(f"{DEMO}/versions/1.0").json()["downloads"])

    before = count()
    reader.get(f"{DEMO}/versions/1.0/manifest")
    assert count() == before
    reader.get(f"{DEMO}/versions/1.0/manifest?pulled=true")
    assert count() == before + 1


def test_a_file_is_an_attachment_that_no_browser_runs(reader: Browser) -> None:
    answer = reader.get(FILE)
    assert answer.content == DATA
    assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["etag"] == TAG
    assert "content-encoding" not in answer.headers  # although text is otherwise compressed


SIZE = len(DATA)


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=5-9", 206, (5, 10)),
        ("bytes=1048570-1048585", 206, (1048570, 1048586)),
        (f"bytes={SIZE - 1}-", 206, (SIZE - 1, SIZE)),
        ("bytes=-7", 206, (SIZE - 7, SIZE)),
        (f"bytes=-{SIZE * 2}", 206, (0, SIZE)),
        (f"bytes=10-{SIZE * 9}", 206, (10, SIZE)),
        (f"bytes={SIZE}-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-5", 200, (0, SIZE)),
        ("bytes=0-1,4-5", 200, (0, SIZE)),
        ("lines=0-1", 200, (0, SIZE)),
        ("bytes=a-b", 200, (0, SIZE)),
        ("bytes=", 200, (0, SIZE)),
    ],
)
def test_parts_of_a_file(reader: Browser, wanted: str, status: int, part: tuple[int, int] | None) -> None:
    answer = reader.get(FILE, headers={"range": wanted})
    assert answer.status_code == status
    if part is None:
        assert answer.headers["content-range"] == f"bytes */{SIZE}"
        assert answer.json()["error"]["code"] == "range"
        return
    assert answer.content == DATA[slice(*part)]
    assert answer.headers["content-length"] == str(part[1] - part[0])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {part[0]}-{part[1] - 1}/{SIZE}"


def test_a_part_is_sent_only_of_the_file_that_was_begun(reader: Browser) -> None:
    part = {"range": "bytes=2-3"}
    assert reader.get(FILE, headers={**part, "if-range": TAG}).status_code == 206
    for other in ('"sha256:other"', f"W/{TAG}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        answer = reader.get(FILE, headers={**part, "if-range": other})
        assert (answer.status_code, len(answer.content)) == (200, SIZE)
    assert reader.get(FILE, headers={"if-match": '"sha256:other"'}).status_code == 412
    assert reader.get(FILE, headers={"if-match": f'"x", {TAG}'}).status_code == 200


@pytest.mark.parametrize("tag", [TAG, f"W/{TAG}", f'"x", {TAG}', "*"])
def test_what_the_asker_has_is_not_sent_again(reader: Browser, tag: str) -> None:
    answer = reader.get(FILE, headers={"if-none-match": tag, "range": "bytes=0-1"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", TAG)


def test_the_head_of_a_file_opens_nothing(zoo: Served, reader: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.context.registry, "open_blob", None)
    answer = reader.head(FILE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["etag"] == TAG
    assert reader.head(f"{DEMO}/versions/1.0/files/other.txt").status_code == 404


@pytest.mark.parametrize(
    "path", ["../a.txt", "%2e%2e/a.txt", "..%2fa.txt", "/etc/passwd", "b.txt", ".hidden", "con.txt", "a%5cb", "a%00b"]
)
def test_other_paths_are_no_files(reader: Browser, path: str) -> None:
    answer = reader.get(f"{DEMO}/versions/1.0/files/{path}")
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["error"]["message"]


def test_an_empty_file(zoo: Served) -> None:
    ada = zoo.browser("ada")
    ada.publish(b"", name="empty")
    address = "/api/zoo/artefacts/ada/empty/versions/1.0/files/a.txt"
    assert (ada.get(address).status_code, ada.get(address).content) == (200, b"")
    assert ada.get(address, headers={"range": "bytes=0-"}).status_code == 416


def test_what_is_private_does_not_exist_for_others(zoo: Served) -> None:
    zoo.browser("ada").publish(b"hidden", namespace="lab", name="hidden", query="?private=true")
    bob, eve = zoo.browser("bob", "read"), zoo.browser("eve", "read")
    for path in (
        "",
        "/versions/1.0",
        "/versions/1.0/manifest",
        "/versions/1.0/files/a.txt",
        "/alias-log",
        "/star",
        "/comments",
    ):
        there = eve.get(f"/api/zoo/artefacts/lab/hidden{path}")
        never = eve.get(f"/api/zoo/artefacts/lab/nothing{path}")
        assert (there.status_code, never.status_code) == (404, 404)
        assert there.text.replace("hidden", "nothing") == never.text
        assert bob.get(f"/api/zoo/artefacts/lab/hidden{path}").status_code == 200
    digest = bob.get("/api/zoo/artefacts/lab/hidden/versions/1.0").json()["digest"]
    assert eve.get(f"/api/zoo/manifests/{digest}").json() == {"references": []}
    assert bob.get(f"/api/zoo/manifests/{digest}").json() == {"references": [f"lab/hidden@{digest}"]}
    assert eve.get("/api/zoo/search", params={"namespace": "lab"}).json()["hits"] == []
    assert [hit["reference"] for hit in bob.get("/api/zoo/search", params={"namespace": "lab"}).json()["hits"]] == [
        "lab/hidden@1.0"
    ]


def test_whether_others_hold_a_file_is_not_told(zoo: Served) -> None:
    """Eve knows a digest; whether the zoo has it she learns only if she may read it."""
    zoo.browser("ada").publish(b"private bytes", namespace="lab", name="bytes", query="?private=true")
    eve = zoo.browser("eve")
    key = eve.post("/api/zoo/publications", json={"namespace": "eve", "size": 100}).json()["key"]
    asked = {"digests": [Digest.of(b"private bytes"), Digest.of(DATA), Digest.of(b"nowhere")]}
    missing = eve.post(f"/api/zoo/publications/{key}/missing", json=asked).json()["missing"]
    assert missing == [Digest.of(b"private bytes"), Digest.of(b"nowhere")]


def test_schemas_are_published(zoo: Served) -> None:
    reader = zoo.browser()  # a stranger, who may not read anything else
    assert reader.get("/api/zoo/search").status_code == 401
    names = [one["name"] for one in reader.get("/api/zoo/schemas").json()["schemas"]]
    assert names[:2] == ["manifest", "SAE_MODEL"]
    for name in names:
        schema = reader.get(f"/api/zoo/schemas/{name}").json()
        Draft202012Validator.check_schema(schema)
        identity = "neuronmap/zoo.manifest/1.0" if name == "manifest" else f"neuronmap/zoo.record.{name}/1.0"
        said = (schema["$schema"], schema["$id"], schema["version"])
        assert said == ("https://json-schema.org/draft/2020-12/schema", identity, "1.0")
    Draft202012Validator(reader.get("/api/zoo/schemas/manifest").json()).validate(json.loads(manifest_of()[1]))
    manifest = reader.get("/api/zoo/schemas/manifest").json()
    assert "schema" in manifest["properties"]
    assert reader.get("/api/zoo/schemas/NOTHING").status_code == 404


def test_lineage_and_search(zoo: Served, reader: Browser, published: dict[str, Any]) -> None:
    made = zoo.browser("ada").publish(
        b"other text", name="made-from", depends_on=[{"digest": published["digest"], "role": "base"}]
    )
    found = reader.get("/api/zoo/artefacts/ada/made-from/versions/1.0/lineage").json()
    assert found["edges"] == [{"child": made["digest"], "parent": published["digest"], "role": "base"}]
    assert reader.get(f"{DEMO}/versions/1.0/lineage", params={"up": True, "down": False}).json()["edges"] == []
    assert reader.get(f"{DEMO}/versions/1.0/lineage", params={"depth": 0}).status_code == 422
    hits = reader.get("/api/zoo/search", params={"q": "text", "sort": "name", "namespace": "ada"}).json()["hits"]
    assert {"ada/demo@1.0", "ada/made-from@1.0"} <= {hit["reference"] for hit in hits}
    wrong = reader.get("/api/zoo/search", params={"modell": "gpt2"})
    assert (wrong.status_code, wrong.json()["error"]["hint"]) == (422, "Did you mean model?")
    assert reader.get("/api/zoo/compatible", params={"d_in": 768}).json()["hits"] == []
    assert reader.get("/api/zoo/compatible").status_code == 422


def test_the_explorers_token_guards_this_machines_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-long-and-random-token")
    with Browser(create_app(ServerSettings(supervise=False)), base_url="http://localhost") as stranger:
        assert stranger.get("/api/zoo").status_code == 401
        assert stranger.post("/api/zoo/publications", json={"namespace": "ada", "size": 1}).status_code == 401
        assert stranger.get("/api/zoo", headers={"authorization": "Bearer a-long-and-random-token"}).status_code == 200


def test_the_explorer_serves_this_machines_zoo(home: Path) -> None:
    """`neuronmap serve`: everything is allowed, nobody signs in, and its own guard stands before it."""
    app = create_app(ServerSettings(supervise=False))
    with Browser(app, base_url="http://localhost") as local:
        assert not (home / "zoo").exists()  # nothing is made before it is used
        made = local.publish(b"x" * 3_000_000)  # larger than what the explorer takes otherwise
        assert made["reference"] == "ada/demo@1.0"
        file = local.get(FILE, headers={"range": "bytes=1-2"})
        assert (file.status_code, file.content) == (206, b"xx")
        assert local.head(FILE).headers["content-length"] == "3000000"
        assert local.get("/api/zoo/me").json()["is_local"]
        assert local.put(f"{DEMO}/star").status_code == 403
        assert local.post("/api/zoo/sign-in", json={"name": "ada", "password": "x"}).status_code == 403
        assert local.get("/api/zoo", headers={"host": "evil.example"}).status_code == 421
        other = {"origin": "http://evil.example"}
        assert local.post("/api/zoo/publications", json={}, headers=other).status_code == 403
        assert local.get("/health").status_code == 404
        assert json.loads((local.get("/api/zoo/openapi.json")).content)["paths"]
