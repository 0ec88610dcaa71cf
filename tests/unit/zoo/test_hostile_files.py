"""Files that are not what they are said to be."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from neuronmap.errors import InvalidManifestError
from neuronmap.zoo.contents import check_contents, safetensors_faults
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import FileEntry, Manifest, media_type


def reader(data: bytes) -> Any:
    return lambda start, end: iter([data[start:end]])


def checked(files: dict[str, bytes], **more: Any) -> str:
    """Publish these files, as far as looking into them goes."""
    values: dict[str, Any] = {
        "kind": "DATASET",
        "namespace": "ada",
        "name": "demo",
        "version": "1.0",
        "licence": "MIT",
        "created": "2026-11-26T00:00:00Z",
        "record": {"format": "text"},
        "files": [
            {"path": path, "digest": Digest.of(data), "size": len(data), "media_type": media_type(path)}
            for path, data in files.items()
        ],
        **more,
    }
    manifest, _ = Manifest.build(values)

    def opened(entry: FileEntry) -> Any:
        return reader(files[entry.path])

    return check_contents(manifest, opened)


def refused(files: dict[str, bytes], **more: Any) -> str:
    with pytest.raises(InvalidManifestError) as caught:
        checked(files, **more)
    return str(caught.value)


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start: int, stop: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_a_file_of_the_library_itself_is_fine() -> None:
    data = save({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float16), "c": np.zeros((0, 2), np.int64)})
    assert safetensors_faults(reader(data), len(data))[0] == []
    checked({"w.safetensors": data})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "less than 8 bytes"),
        (b"1234567", "less than 8 bytes"),
        (tensors({}, length=2**63), "possible"),
        (tensors({}, length=3), "possible"),
        (tensors(b"x" * 9), "not JSON"),
        (tensors(b"\x80\x04\x95"), "not JSON"),  # a pickle's beginning
        (tensors(b"[" * 50_000), "not JSON"),
        (tensors(b"[]"), "not an object"),
        (tensors(b'{"a":{},"a":{}}'), "twice"),
        (tensors(b'{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}', b"1234"), "twice"),
        (tensors({"__metadata__": {"a": 1}}), "texts only"),
        (tensors({"__metadata__": []}), "texts only"),
        (tensors({"a": 5}), "must have dtype"),
        (tensors({"a": {"dtype": "F32", "shape": [1]}}), "must have dtype"),
        (tensors({"a": {**tensor(0, 4), "code": "x"}}, b"1234"), "must have dtype"),
        (tensors({"a": tensor(0, 4, shape=5)}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, shape={"0": 1})}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, shape=[-1])}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, shape=[True])}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, shape=[1.0])}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, shape=[1] * 17)}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, dtype="OBJECT")}, b"1234"), "cannot be"),
        (tensors({"a": tensor(0, 4, dtype=["F32"])}, b"1234"), "cannot be"),
        (tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": 5}}), "cannot be"),
        (tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}), "cannot be"),
        (tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "cannot be"),
        (tensors({"a": tensor(4, 0, shape=[1])}, b"1234"), "but its place has -4"),
        (tensors({"a": tensor(0, 4, shape=[2])}, b"1234"), "8 bytes"),
        (tensors({"a": tensor(0, 4, shape=[2**40, 2**40])}, b"1234"), "but its place has 4"),
        (tensors({"a": tensor(4, 8)}, b"12345678"), "overlap or leave a gap"),
        (tensors({"a": tensor(0, 4), "b": tensor(8, 12)}, b"123456789012"), "overlap or leave a gap"),
        (tensors({"a": tensor(0, 8), "b": tensor(4, 12)}, b"123456789012"), "overlap or leave a gap"),
        (tensors({"a": tensor(0, 8)}, b"1234"), "cut off or has something added"),
        (tensors({"a": tensor(0, 4)}, b"12345"), "cut off or has something added"),
        (tensors({}, b"hidden"), "cut off or has something added"),
        (tensors({"a": tensor(0, 2**62, shape=[2**60])}), "cut off"),
    ],
)
def test_safetensors_headers(data: bytes, message: str) -> None:
    assert message in refused({"w.safetensors": data})


def test_a_header_is_not_read_beyond_its_limit() -> None:
    size = 9 << 20
    asked: list[int] = []

    def read(start: int, end: int | None) -> Iterator[bytes]:
        asked.append((end or 0) - start)
        return iter([struct.pack("<Q", size - 8)[start:end]])

    faults, _ = safetensors_faults(read, size)
    assert "8,388,608 are possible" in faults[0]
    assert asked == [8]


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"\xff", b"", b"{}{}", b"9" * 5000])
def test_json_that_is_none(text: bytes) -> None:
    assert "it is not JSON" in refused({"a.json": text})


def test_a_bomb_of_json_takes_bounded_memory() -> None:
    bomb = b"[" + b"[]," * (3 << 20) + b"[]]"
    tracemalloc.start()
    checked({"a.json": bomb})  # more than what is read as JSON: whoever loads it parses it with care
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


def parquet(rows: int = 1000) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": list(range(rows))}), sink)
    return sink.getvalue().to_pybytes()


def test_parquet_that_was_cut_off() -> None:
    whole = parquet()
    checked({"a.parquet": whole})
    for data in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[4:],
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + b"\xff" * 8 + b"PAR1",
    ):
        assert "no Parquet file, or it was cut off" in refused({"a.parquet": data})


def test_cards() -> None:
    assert checked({"a.md": b"# Hello"}, card="a.md") == "# Hello"
    assert "not UTF-8" in refused({"a.md": b"\xff\xfe"}, card="a.md")
    assert "2,097,152 at most" in refused({"a.md": b"x" * ((2 << 20) + 1)}, card="a.md")


# --- bundles ------------------------------------------------------------------------------------------------------------------

RECORD = {
    "model": {"name": "gpt2"},
    "hook": {"name": "layers.0.mlp", "layer": 0},
    "architecture": "relu",
    "d_in": 4,
    "d_sae": 8,
}
WEIGHTS = save({"W_dec": np.zeros((8, 4), np.float32)})
CONFIG = json.dumps({"d_in": 4, "d_sae": 8}).encode()


def bundle(**files: bytes) -> dict[str, bytes]:
    return {"cfg.json": CONFIG, "sae_weights.safetensors": WEIGHTS, **files}


def test_a_bundle_says_in_all_its_parts_the_same() -> None:
    sae = {"kind": "SAE_MODEL", "record": RECORD}
    checked(bundle(), **sae)
    cases = [
        ({"cfg.json": CONFIG}, "needs sae_weights.safetensors"),
        ({"sae_weights.safetensors": WEIGHTS}, "needs cfg.json"),
        (bundle(**{"cfg.json": b"[]"}), "must be an object"),
        (bundle(**{"cfg.json": b'{"d_in": 4, "d_sae": 9}'}), "cfg.json says 9"),
        (bundle(**{"cfg.json": b'{"d_in": {}, "d_sae": 8}'}), "cfg.json says {}"),
        (bundle(**{"cfg.json": b" " * (9 << 20)}), "8,388,608 at most"),
        (bundle(**{"sae_weights.safetensors": save({"W_dec": np.zeros((9, 4), np.float32)})}), "W_dec has 9 rows"),
    ]
    for files, message in cases:
        assert message in refused(files, **sae)
