"""Manifests that somebody wrote to do harm: refused, with the place of the fault, in little time and memory."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from neuronmap.errors import InvalidManifestError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import MOST_BYTES, Manifest, media_type

DIGEST = Digest.of(b"hello")


def entry(path: str = "a.txt", **more: Any) -> dict[str, Any]:
    return {"path": path, "digest": DIGEST, "size": 5, "media_type": "text/plain", **more}


def values(**more: Any) -> dict[str, Any]:
    return {
        "schema": "neuronmap/zoo.manifest/1.0",
        "kind": "DATASET",
        "namespace": "ada",
        "name": "demo",
        "version": "1.0",
        "licence": "MIT",
        "created": "2026-11-26T00:00:00Z",
        "files": [entry()],
        "record": {"format": "text"},
        **more,
    }


def refused(data: bytes | dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidManifestError) as caught:
        Manifest.parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    return dict(caught.value.faults)


def test_the_values_that_the_cases_start_from_are_fine() -> None:
    assert Manifest.parse(json.dumps(values()).encode()).name == "demo"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a list, not an object"),
        (b'"text"', "a str, not an object"),
        (b"null", "a NoneType, not an object"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"x": {"kind": 1, "kind": 1}}', "'kind' stands twice"),
        (b'{"x": NaN}', "NaN is not allowed"),
        (b'{"x": -Infinity}', "-Infinity is not allowed"),
        (b'{"x": 1e999}', "beyond what a number can be"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"x": ' + b"[" * 100_000, "not JSON"),
        (b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than 64 deep"),
        (b'{"x": ' + b'{"y":' * 100 + b"1" + b"}" * 101, "nested more than 64 deep"),
        (b'{"x": "\\u0000"}', "control characters"),
        (b'{"x": "\\u001b[31m"}', "control characters"),
        (b'{"x": "\\ud800"}', "control characters or halves"),
        (b'{"\\u0000": 1}', "control characters"),
        (b" " * (MOST_BYTES + 1), "at most"),
    ],
)
def test_bytes_that_are_no_manifest(data: bytes, message: str) -> None:
    began = time.process_time()
    assert message in " ".join(refused(data).values())
    assert time.process_time() - began < 5


def test_every_fault_is_listed_with_its_place() -> None:
    faults = refused(
        values(kind="NOTHING", namespace="Admin", version="x", licence="?", files=[entry("../a.txt", size=-1)], extra=1)
    )
    assert set(faults) >= {"kind", "namespace", "version", "licence", "files.0.path", "files.0.size", "extra"}


@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        ([], "files", "at least 1"),
        ([entry(), entry()], "files.1.path", "the same file"),
        ([entry("a.txt"), entry("A.TXT")], "files.1.path", "the same file"),
        ([entry("a.txt"), entry("a.txt/b.txt")], "files.0.path", "a file and a folder"),
        ([entry("x/y.txt/z.txt"), entry("X/Y.txt")], "files.1.path", "a file and a folder"),
        ([entry(), entry("b.txt", size=6)], "files.1.size", "two sizes"),
        ([entry(media_type="text/html")], "files.0.media_type", "ending stands for"),
        ([entry(media_type="text/plain; charset=x")], "files.0.media_type", "match pattern"),
        ([entry(digest="sha256:../../x")], "files.0.digest", "not a digest"),
        ([entry(size=2**70)], "files.0.size", "less than or equal"),
        ([entry(size=1.5)], "files.0.size", "integer"),
        ([entry(url="http://elsewhere/a.txt")], "files.0.url", "no field"),  # clients name no locations
    ],
)
def test_files_that_cannot_be(files: list[dict[str, Any]], place: str, message: str) -> None:
    faults = refused(values(files=files))
    assert message in faults[place]


PROGRAMS = """
weights.pt w.pth w.pkl w.pickle w.bin.pt w.PT w.joblib w.ckpt w.h5 w.npz a.zip a.tar a.tgz a.7z run.py run.sh lib.so a.exe noending
a.json.pkl notes.ipynb a.jar a.
"""


@pytest.mark.parametrize("path", PROGRAMS.split())
def test_formats_that_can_run_a_program_are_not_taken(path: str) -> None:
    faults = refused(values(files=[entry(path, media_type="application/octet-stream")]))
    assert "files.0.path" in faults


def test_formats_are_known_by_their_last_ending() -> None:
    assert (
        media_type("w.pkl.safetensors") == "application/x-safetensors"
    )  # and read by its parser, whatever it is called
    assert media_type("deep/LICENSE") == "text/plain"


def test_very_many_files() -> None:
    many = [
        {"path": f"f{number}.txt", "digest": DIGEST, "size": 5, "media_type": "text/plain"} for number in range(30_000)
    ]
    began = time.process_time()
    assert "20000" in refused(values(files=many))["files"].replace(",", "")
    hundred_thousand = json.dumps(values(files=[{"path": f"{number}.txt"} for number in range(100_000)])).encode()
    assert refused(hundred_thousand)
    assert time.process_time() - began < 20


def test_a_key_that_stands_twice_among_very_many() -> None:
    data = b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b',"7":1}'
    began = time.process_time()
    assert "'7' stands twice" in refused(data)[""]
    assert time.process_time() - began < 10


def test_very_many_dependencies_are_compared_in_little_time() -> None:
    many = [{"digest": Digest.of(str(number).encode()), "role": "base"} for number in range(1000)]
    began = time.process_time()
    assert len(Manifest.parse(json.dumps(values(depends_on=many)).encode()).depends_on) == 1000
    assert "stands there twice" in refused(values(depends_on=[*many[:999], many[0]]))["depends_on.999"]
    assert "depends_on" in refused(values(depends_on=[*many, {"digest": DIGEST, "role": "base"}]))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"tags": ["x" * 51]}, "tags.0"),
        ({"tags": [str(number) for number in range(51)]}, "tags"),
        ({"title": "x" * 201}, "title"),
        ({"card": "a.txt"}, "card"),
        ({"card": "missing.md"}, "card"),
        ({"card": "../a.md"}, "card"),
        ({"created": "yesterday"}, "created"),
        ({"schema": "neuronmap/zoo.manifest/2.0"}, "schema"),
        ({"subject": "sha256:x"}, "subject"),
        ({"authors": [{"name": ""}]}, "authors.0.name"),
        ({"authors": [{"name": "x", "orcid": "0000-0002-1825-0098"}]}, "authors.0.orcid"),
        ({"software": {"x" * 61: "1"}}, "software"),
        ({"record": {"format": "text", "unknown": 1}}, "record.unknown"),
        ({"record": {"format": "text", "rows": 2**60}}, "record.rows"),
        ({"record": None}, "record"),
        ({"record": []}, "record"),
        ({"kind": "SAE_MODEL", "record": {}}, "record.model"),
    ],
)
def test_fields_that_cannot_be(more: dict[str, Any], place: str) -> None:
    assert any(found.startswith(place) for found in refused(values(**more)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_in", 2**31),
        ("d_in", 0),
        ("d_sae", 2**60),
        ("k", 10**6),
        ("architecture", "../x"),
        ("architecture", "x" * 62),
        ("metrics", {"l0": 1e400}),
        ("metrics", {"x" * 121: 1}),
        ("hook", {"name": "x", "layer": 2**31}),
        ("dtype", "object"),
    ],
)
def test_an_sae_that_no_database_could_hold(field: str, value: Any) -> None:
    record = {
        "model": {"name": "gpt2"},
        "hook": {"name": "layers.0.mlp", "layer": 0},
        "architecture": "relu",
        "d_in": 8,
        "d_sae": 16,
    }
    Manifest.parse(json.dumps(values(kind="SAE_MODEL", record=record)).encode())
    faults = refused(values(kind="SAE_MODEL", record={**record, field: value}))
    assert any(place.startswith("record") or "not allowed" in message for place, message in faults.items())


def test_fields_of_a_newer_minor_version_are_passed_over_and_of_ours_refused() -> None:
    newer = values(schema="neuronmap/zoo.manifest/1.7", new_field={"a": 1})
    assert Manifest.parse(json.dumps(newer).encode()).name == "demo"
    assert "new_field" in refused(values(new_field=1))
