"""Feature stores written by hand, straight from the schema; importable in this room's tests and the hub's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuronmap.features.collect.layout import EDGES, bin_of
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.manifest import new_manifest, write_manifest
from neuronmap.features.storage.schema import TABLES, arrow_schema

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


# --- a store with everything that can go wrong in a document -------------------------------------------------------------

HOSTILE = [
    b"<s>", b"</script><b>", b"\x00", b"\r", b'"quoted", so', b"\xc3", b"\xa9", b"\n", b" x' onclick='y", b"", b"&amp;", b" plain",
]  # fmt: skip
"""Ids 5 and 6 are the two halves of \u00e9; id 9 stands for nothing."""
HOSTILE_LABEL = '</title><img src=x onerror="alert(1)">'
FIRED = np.array([0.75, 0.9, 1.1, 1.3, 1.7, 2.0, 2.4, 2.9, 3.6, 4.0], np.float32)
"""The firings of feature 0 of :func:`hostile_store`; two in each of the five groups."""


def hostile_store(folder: Path, features: int = 4, without: tuple[str, ...] = ()) -> Path:
    """Feature 0 fires and has every list, 1 never fired, 2 fired once, the rest never did; tokens and labels are markup and worse."""
    rows = [_hostile_row(feature) for feature in range(features)]
    tokens_CT = np.stack([np.roll(np.arange(12), -context) for context in range(CONTEXTS)]).astype("<u2")
    kept = np.ones(tokens_CT.shape, bool)
    kept[:, 0] = False
    found = {
        "features": table("features", rows),
        "details": table("details", [_hostile_details(feature) for feature in range(features)]),
        "examples": table("examples", _hostile_examples()),
        "hints": table("hints", [_hostile_hint(feature) for feature in range(features)]),
        "token_features": table("token_features", []),
        "vocabulary": table(
            "vocabulary",
            [
                {
                    "token": token,
                    "bytes": data,
                    "text": data.decode(errors="replace"),
                    "special": token == 0,
                    "count": 5,
                }
                for token, data in enumerate(HOSTILE)
            ],
        ),
        "documents": table("documents", [{"document": 0, "id": '<a>"b".txt', "sequence": 0, "position": 0}]),
    }
    return write_store(
        folder,
        {name: content for name, content in found.items() if name not in without},
        tokens_CT,
        kept,
        facts={
            "sae": {"id": "made/up", "weights_digest": "sha256:1"},
            "model": {"name": "/data/somebody/models/tiny", "num_layers": 4, "hidden_size": 32},
            "hook": {"name": "model.layers.2:out"},
            "corpus": {"name": "made <up>"},
        },
    )


def _hostile_row(feature: int) -> dict[str, Any]:
    fired = {0: FIRED, 2: FIRED[:1]}.get(feature, FIRED[:0])
    some = {
        "mean": float(fired.mean()), "std": float(fired.std()), "max": float(fired.max()), "top_token": 3,
        "top_token_text": "\r", "token_entropy": float("nan"),
    } if len(fired) else {}  # fmt: skip
    return {
        "feature": feature,
        "status": {0: "alive", 2: "rare"}.get(feature, "never"),
        "firings": len(fired),
        "density": len(fired) / 66,
        "density_low": 0.0,
        "density_high": 0.06,
        "sum": float(fired.sum()),
        "nearest": 1,
        "nearest_cosine": 0.5,
        "logit_mean": 1.0,
        "logit_std": 2.0,
        **some,
    }


def _hostile_details(feature: int) -> dict[str, Any]:
    fired = {0: FIRED, 2: FIRED[:1]}.get(feature, FIRED[:0])
    logits = [{"token": token, "value": 3.0 - token} for token in (1, 2, 9)]
    tokens = [{"token": token, "count": 5, "share": 0.5, "lift": 2.0, "z": 3.0} for token in (1, 3, 5)]
    return {
        "feature": feature,
        "histogram": np.bincount(bin_of(fired / np.float32(0.5)), minlength=64).tolist(),
        "positions": [len(fired)] + [0] * 15,
        "tokens": tokens if len(fired) else [],
        "previous_tokens": [],
        "next_tokens": [],
        "neighbours": [{"feature": 1, "cosine": 0.5}, {"feature": 2, "cosine": float("nan")}],
        "promoted": logits,
        "suppressed": logits[::-1],
        "logit_histogram": [0] * 30 + [3, 0, 4] + [0] * 31,
    }


def _hostile_examples() -> list[dict[str, Any]]:
    def one(feature: int, kind: str, group: int, rank: int, place: tuple[int, int], value: float) -> dict[str, Any]:
        around = ([-1, 0], [5.0 if kind == "quantile" and group == 0 else 0.5, value]) if value else ([], [])
        return {
            "feature": feature, "kind": kind, "group": group, "rank": rank, "sequence": place[0], "position": place[1],
            "activation": value, "offsets": around[0], "activations": around[1],
        }  # fmt: skip

    firings = FIRED.tolist()
    return [
        one(0, "top", 0, 0, (0, 5), firings[9]),
        one(0, "top", 0, 1, (1, 2), firings[8]),
        *(one(0, "quantile", group, 0, (group, 7), firings[2 * group]) for group in range(5)),
        one(0, "bin", 13, 0, (5, 3), firings[1]),
        one(0, "random", 0, 0, (2, 9), 0.0),
        one(0, "hard", 0, 0, (3, 11), 0.0),
        one(2, "top", 0, 0, (4, 1), firings[0]),
    ]


def _hostile_hint(feature: int) -> dict[str, Any]:
    scores = {"precision": 0.5, "precision_low": 0.4, "precision_high": 0.6, "recall": 0.25, "recall_low": 0.2}
    scores |= {"recall_high": 0.3, "f1": 1 / 3, "f1_low": 0.3, "f1_high": 0.4}
    return {
        "feature": feature,
        "class": "token" if feature == 0 else "none",
        "label": {0: HOSTILE_LABEL, 2: "a\x00b"}.get(feature, ""),
        "rule": "token is </p>" if feature == 0 else "",
        "note": "" if feature == 0 else "too few <firings>",
        **(scores if feature == 0 else {}),
    }
