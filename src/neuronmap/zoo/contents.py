"""What the files of an artefact hold: checked by the parser that will load them, before anybody can pull them.

Formats are an allow-list (:func:`neuronmap.zoo.manifest.media_type`). Of a safetensors file the header is checked whole: its length, that
every tensor's type and shape fill exactly its bytes, that the tensors lie one behind the other, and that nothing else is in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from neuronmap.errors import InvalidManifestError
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.manifest import FileEntry, Manifest
from neuronmap.zoo.records import SAEModelRecord

__all__ = ["Reader", "check_contents", "safetensors_faults"]

Reader = Callable[[int, int | None], Iterator[bytes]]
"""Gives bytes ``start`` to ``end`` of a file (None: to its last)."""

_MOST_HEADER = 8 << 20  # safetensors allows 100 MB; read as JSON, a hostile header takes twenty times its bytes
_MOST_JSON = 8 << 20
_MOST_CARD = 2 << 20
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


def check_contents(manifest: Manifest, reader: Callable[[FileEntry], Reader]) -> str:
    """Look into the files.

    Args:
        manifest: what they are said to be.
        reader: opens a file.

    Returns:
        The text of the card; empty without one.

    Raises:
        InvalidManifestError: lists every fault with the file's path.
    """
    faults: list[Fault] = []
    card = ""
    headers: dict[str, dict[str, Any]] = {}
    for entry in manifest.files:
        read = reader(entry)
        if entry.media_type == "application/x-safetensors":
            found, header = safetensors_faults(read, entry.size)
            headers[entry.path] = header
            faults += [Fault(entry.path, message) for message in found]
        elif entry.media_type == "application/vnd.apache.parquet":
            if not _is_parquet(read, entry.size):
                faults.append(Fault(entry.path, "it is no Parquet file, or it was cut off"))
        elif entry.media_type == "application/json" and entry.path.endswith(".json"):
            faults += _json_faults(entry, read)
        if entry.path == manifest.card:
            if entry.size > _MOST_CARD:
                faults.append(Fault(entry.path, f"the card has {entry.size:,} bytes; {_MOST_CARD:,} at most"))
                continue
            try:
                card = _bytes(read, 0, None).decode()
            except UnicodeDecodeError:
                faults.append(Fault(entry.path, "the card is not UTF-8"))
    if not faults:
        faults += _bundle_faults(manifest, reader, headers)
    if faults:
        raise InvalidManifestError(faults, "What is in the files")
    return card


def safetensors_faults(read: Reader, size: int) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with a safetensors file of ``size`` bytes, and its header's tensors."""
    if size < 8:
        return ["it is no safetensors file: it has less than 8 bytes"], {}
    length = int.from_bytes(_bytes(read, 0, 8), "little")
    if length > min(size - 8, _MOST_HEADER):
        return [f"its header is said to have {length:,} bytes; {min(size - 8, _MOST_HEADER):,} are possible"], {}
    try:
        header = json.loads(_bytes(read, 8, 8 + length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return [f"its header is not JSON: {error}"], {}
    if not isinstance(header, dict):
        return ["its header is not an object"], {}
    notes = header.pop("__metadata__", {})
    faults = []
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        faults.append("its __metadata__ must hold texts only")
    spans = []
    for name, tensor in header.items():
        fault, span = _tensor(name, tensor)
        faults += [fault] if fault else []
        spans += [span] if span else []
    if faults:
        return faults, {}
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            return [
                f"the tensor {name!r} begins at byte {start}, where {end} is due: tensors overlap or leave a gap"
            ], {}
        end = stop
    if 8 + length + end != size:
        return [
            f"it has {size:,} bytes, but its header says {8 + length + end:,}: it was cut off or has something added"
        ], {}
    return [], header


def _tensor(name: str, tensor: Any) -> tuple[str, tuple[int, int, str] | None]:
    """(fault or empty, place of its bytes)."""
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        return f"the tensor {name[:80]!r} must have dtype, shape and data_offsets", None
    shape, offsets, dtype = tensor["shape"], tensor["data_offsets"], tensor["dtype"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or not isinstance(dtype, str):
        return f"the tensor {name[:80]!r} has a dtype, shape or offsets that cannot be", None
    if (
        dtype not in _BITS
        or len(shape) > 16
        or len(offsets) != 2
        or not all(type(one) is int and one >= 0 for one in (*shape, *offsets))
    ):
        return f"the tensor {name[:80]!r} has a dtype, shape or offsets that cannot be", None
    needed = math.prod(shape) * _BITS[dtype] // 8
    if offsets[1] - offsets[0] != needed:
        shown = f"{dtype} {shape}"
        return (
            f"the tensor {name[:80]!r} is {shown} ({needed} bytes), but its place has {offsets[1] - offsets[0]}",
            None,
        )
    return "", (offsets[0], offsets[1], name)


def _is_parquet(read: Reader, size: int) -> bool:
    """Whether it begins and ends as one, with a footer that fits in."""
    if size < 12 or _bytes(read, 0, 4) != b"PAR1":
        return False
    end = _bytes(read, size - 8, None)
    return end[4:] == b"PAR1" and int.from_bytes(end[:4], "little") <= size - 12


def _json_faults(entry: FileEntry, read: Reader) -> list[Fault]:
    if entry.size > _MOST_JSON:
        return []  # a large table of results; whoever reads it parses it with care
    try:
        json.loads(_bytes(read, 0, None))
    except (ValueError, RecursionError) as error:
        return [Fault(entry.path, f"it is not JSON: {error}")]
    return []


def _bundle_faults(
    manifest: Manifest, reader: Callable[[FileEntry], Reader], headers: dict[str, dict[str, Any]]
) -> list[Fault]:
    """Of an SAE that is stored as a bundle: record, configuration and weights must say the same."""
    record = manifest.read_record()
    if not isinstance(record, SAEModelRecord) or record.format not in ("neuronmap-bundle", "saelens"):
        return []
    by_path = {entry.path: entry for entry in manifest.files}
    missing = [name for name in ("cfg.json", "sae_weights.safetensors") if name not in by_path]
    if missing:
        return [Fault("files", f"a bundle needs {name}") for name in missing]
    if by_path["cfg.json"].size > _MOST_JSON:  # type: ignore[index]
        return [Fault("cfg.json", f"it has {by_path['cfg.json'].size:,} bytes; {_MOST_JSON:,} at most")]  # type: ignore[index]
    config = json.loads(_bytes(reader(by_path["cfg.json"]), 0, None))  # type: ignore[index]
    if not isinstance(config, dict):
        return [Fault("cfg.json", "it must be an object")]
    faults = [
        Fault(f"record.{name}", f"it is {ours}, but cfg.json says {config.get(name)}")
        for name, ours in (("d_in", record.d_in), ("d_sae", record.d_sae))
        if config.get(name) != ours
    ]
    shape = headers["sae_weights.safetensors"].get("W_dec", {}).get("shape")
    if shape is not None and len(shape) == 2 and shape[0] != record.d_sae:
        faults.append(Fault("record.d_sae", f"it is {record.d_sae}, but W_dec has {shape[0]} rows"))
    return faults


def _bytes(read: Reader, start: int, end: int | None) -> bytes:
    return b"".join(read(start, end))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found
