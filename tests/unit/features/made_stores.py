"""Feature stores written by hand, straight from the schema; importable in this room's tests and the hub's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuronmap.features.config import AnalysisConfig
from neuronmap.features.layout import EDGES
from neuronmap.features.manifest import new_manifest, write_manifest
from neuronmap.features.schema import TABLES, arrow_schema

CONFIG = AnalysisConfig(before=3, after=2, top_examples=2)
BYTES = [b"<s>", b"a", b" a", b" the", b"The", b" Berlin", b"berlin", b"\xc3", b"\xa9", b"\n"]
"""Ids 7 and 8 are the two halves of \u00e9."""
CONTEXTS, CONTEXT_LENGTH = 6, 10


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a table by its schema; what is not given is null."""
    schema = arrow_schema(name)
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in schema} for row in rows], schema=schema)


def write_store(
    folder: Path,
    tables: dict[str, pa.Table],
    tokens_CT: np.ndarray[Any, Any],
    kept_CT: np.ndarray[Any, Any],
    row_group: int | None = None,
    **changes: Any,
) -> Path:
    """Write tables and tokens as a store.

    Args:
        folder: must not exist.
        tables: by name.
        tokens_CT: uint16 or uint32.
        kept_CT: bool.
        row_group: rows in a row group; None for the schema's.
        changes: fields of the manifest.
    """
    folder.mkdir(parents=True)
    for name, content in tables.items():
        assert content.schema.equals(arrow_schema(name)), name
        pq.write_table(content, folder / TABLES[name].file, row_group_size=row_group or TABLES[name].row_group)
    np.save(folder / "tokens.npy", tokens_CT)
    np.save(folder / "kept.npy", np.packbits(kept_CT, axis=1))
    manifest = new_manifest(
        **{
            "key": "sha256:" + "a" * 64,
            "features": tables["features"].num_rows,
            "contexts": len(tokens_CT),
            "context_length": tokens_CT.shape[1],
            "vocabulary": tables["vocabulary"].num_rows,
            "rows": int(kept_CT.sum()),
            "unit": 0.5,
            "edges": (EDGES * 0.5).tolist(),
            "config": CONFIG.model_dump(),
            "facts": {"corpus": {"name": "made-up", "tokens": int(kept_CT.sum())}},
            "overview": {"alive": 4},
            **changes,
        }
    )
    write_manifest(folder, manifest, [file.name for file in folder.iterdir()])
    return folder


def vocabulary() -> pa.Table:
    return table(
        "vocabulary",
        [
            {
                "token": token,
                "bytes": data,
                "text": data.decode(errors="replace"),
                "special": token == 0,
                "count": token,
            }
            for token, data in enumerate(BYTES)
        ],
    )


FEATURES = [
    # status, density, max, top token, class, label, f1
    ("alive", 0.010, 4.0, 5, "token", "Berlin", 0.9),
    ("alive", 0.002, 9.0, 3, "token", "the", 0.8),
    ("never", 0.000, None, None, "none", "", None),
    ("rare", 0.001, 1.0, 9, "punctuation", "newline", 0.5),
    ("dense", 0.500, 2.5, 3, "dense", "everywhere", 0.2),
    ("never", 0.000, None, None, "none", "", None),
    ("alive", 0.002, 9.0, 6, "topic", "cities: berlin, paris", 0.4),
    ("alive", 0.002, 3.0, 8, "number", "100% of '12'", None),
]


def feature_rows() -> list[dict[str, Any]]:
    return [
        {
            "feature": feature,
            "status": status,
            "density": density,
            "firings": round(1000 * density),
            "max": top,
            "top_token": token,
            "top_token_text": None if token is None else BYTES[token].decode(errors="replace"),
        }
        for feature, (status, density, top, token, _, _, _) in enumerate(FEATURES)
    ]


def hint_rows() -> list[dict[str, Any]]:
    return [
        {"feature": feature, "class": kind, "label": label, "output_label": "say é" if feature == 1 else "", "f1": f1}
        for feature, (_, _, _, _, kind, label, f1) in enumerate(FEATURES)
    ]


def example_rows() -> list[dict[str, Any]]:
    """Of feature 0: two top examples, one at a context's begin and one at its end, and a random one. Of feature 1: one."""
    return [
        {"feature": 0, "kind": "random", "group": 0, "rank": 0, "sequence": 2, "position": 5, "activation": 0.0,
         "offsets": [], "activations": []},
        {"feature": 0, "kind": "top", "group": 0, "rank": 0, "sequence": 1, "position": 9, "activation": 4.0,
         "offsets": [-3, 0], "activations": [1.5, 3.998]},
        {"feature": 0, "kind": "top", "group": 0, "rank": 1, "sequence": 0, "position": 1, "activation": 2.0,
         "offsets": [0, 1], "activations": [2.0, 0.25]},
        {"feature": 1, "kind": "top", "group": 0, "rank": 0, "sequence": 5, "position": 4, "activation": 9.0,
         "offsets": [0], "activations": [9.0]},
    ]  # fmt: skip


def tokens() -> np.ndarray[Any, Any]:
    """Contexts of 10 tokens; each is a rotation of all ids, so that every token is in every context."""
    return np.stack([np.roll(np.arange(10), -context) for context in range(CONTEXTS)]).astype("<u2")


def small_tables() -> dict[str, pa.Table]:
    """Every table, small enough to know by heart."""
    details = [{"feature": feature, "histogram": [feature] * 64} for feature in range(len(FEATURES))]
    by_token = [(3, 0, 4, 0.9), (3, 1, 1, 0.5), (5, 0, 0, 0.7), (5, 1, 4, 0.2), (6, 0, 6, 0.6)]
    promoted = [(2, 0, 7, 0.5), (3, 0, 0, 3.5), (3, 1, 1, 1.0), (4, 0, 6, 2.0)]
    return {
        "features": table("features", feature_rows()),
        "details": table("details", details),
        "examples": table("examples", example_rows()),
        "hints": table("hints", hint_rows()),
        "token_features": table(
            "token_features",
            [dict(zip(("token", "rank", "feature", "share_of_token"), row, strict=True)) for row in by_token],
        ),
        "promoted": table(
            "promoted", [dict(zip(("token", "rank", "feature", "logit"), row, strict=True)) for row in promoted]
        ),
        "vocabulary": vocabulary(),
        "documents": table(
            "documents",
            [
                {"document": 0, "id": "a.txt", "sequence": 0, "position": 1},
                {"document": 1, "id": "b.jsonl:7", "sequence": 1, "position": 4},
                {"document": 2, "id": "c.txt", "sequence": 4, "position": 0},
            ],
        ),
    }


def small_store(folder: Path, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """A store of eight features; positions 0 are masked."""
    tables = {name: content for name, content in small_tables().items() if name not in without}
    kept = np.ones((CONTEXTS, CONTEXT_LENGTH), bool)
    kept[:, 0] = False
    return write_store(folder, tables, tokens(), kept, **changes)
