"""How long a feature store takes to answer: a made-up store of many features, every query many times, in one process.

    python benchmarks/queries.py                        # 65,536 features
    python benchmarks/queries.py --features 1048576 --examples 8

The numbers in the store are drawn at random, with the sizes of a real one: what is measured is reading, not meaning. Prints a
table, in milliseconds: the first call of each query, then median and slowest of the rest, and the median of processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuronmap.features.collect.layout import EDGES
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.manifest import MANIFEST, new_manifest, write_manifest
from neuronmap.features.storage.schema import TABLES, arrow_schema
from neuronmap.features.storage.store import FeatureStore

VOCABULARY = 49_152
CONTEXTS, CONTEXT_LENGTH = 4096, 128
LIST = 20
TOKENS_OF_A_FEATURE = 30
CLASSES = ("token", "punctuation", "number", "topic", "suffix", "none")


def numbers(rng: np.random.Generator, field: pa.Field, rows: int) -> pa.Array:
    """A column of made-up numbers or texts."""
    if pa.types.is_floating(field.type):
        return pa.array(rng.random(rows).astype(field.type.to_pandas_dtype()))
    if pa.types.is_integer(field.type):
        return pa.array(rng.integers(0, 100, rows).astype(field.type.to_pandas_dtype()))
    words = np.array([f" word{number}" for number in range(5000)], object)
    return pa.array(words[rng.integers(0, 5000, rows)], pa.string())


def lists(rng: np.random.Generator, kind: pa.ListType, rows: int, length: int) -> pa.Array:
    """A column of lists of one length."""
    inner = kind.value_type
    fields = list(inner) if pa.types.is_struct(inner) else [pa.field("value", inner)]
    parts = [numbers(rng, field, rows * length) for field in fields]
    values = pa.StructArray.from_arrays(parts, fields=fields) if pa.types.is_struct(inner) else parts[0]
    return pa.ListArray.from_arrays(np.arange(0, rows * length + 1, length, dtype=np.int32), values)


def write(
    folder: Path, name: str, columns: dict[str, Any], rows: int, rng: np.random.Generator, length: int = LIST
) -> None:
    """One table: the given columns, the rest made up."""
    schema = arrow_schema(name)
    arrays = []
    for field in schema:
        if field.name in columns:
            arrays.append(pa.array(columns[field.name], field.type))
        elif pa.types.is_list(field.type):
            long = {"histogram": 64, "logit_histogram": 64, "positions": 16}.get(field.name, length)
            arrays.append(lists(rng, field.type, rows, long))
        else:
            arrays.append(numbers(rng, field, rows))
    table = TABLES[name]
    pq.write_table(
        pa.table(arrays, schema=schema), folder / table.file, row_group_size=table.row_group, compression="zstd"
    )


def make_store(folder: Path, features: int, examples: int) -> None:
    """A store of made-up numbers, 5 % of it dead."""
    rng = np.random.default_rng(0)
    ids = np.arange(features, dtype=np.int32)
    status = np.where(rng.random(features) < 0.05, "never", np.where(rng.random(features) < 0.01, "dense", "alive"))
    density = 10.0 ** rng.uniform(-6, -1, features)
    write(folder, "features", {"feature": ids, "status": status, "density": density}, features, rng)
    write(folder, "details", {"feature": ids}, features, rng)
    labels = {"feature": ids, "class": np.array(CLASSES)[rng.integers(0, len(CLASSES), features)]}
    write(folder, "hints", labels, features, rng)
    place = np.tile(np.arange(examples), features)
    drawn = {
        "feature": np.repeat(ids, examples),
        "kind": pa.DictionaryArray.from_arrays(pa.array((place % 2).astype(np.int8)), ["top", "quantile"]),
        "group": np.zeros(len(place), np.int8),
        "rank": place.astype(np.int16),
        "sequence": rng.integers(0, CONTEXTS, len(place)).astype(np.uint32),
        "position": rng.integers(23, CONTEXT_LENGTH - 8, len(place)).astype(np.uint16),
        "offsets": pa.ListArray.from_arrays(
            np.arange(0, 6 * len(place) + 1, 6, dtype=np.int32),
            pa.array(np.tile(np.arange(-5, 1, dtype=np.int8), len(place))),
        ),
    }
    write(folder, "examples", drawn, len(place), rng, length=6)
    for name in ("token_features", "promoted"):
        token = np.sort((VOCABULARY * rng.random(features * TOKENS_OF_A_FEATURE) ** 4).astype(np.int32))
        first = np.searchsorted(token, token)
        columns = {"token": token, "rank": (np.arange(len(token)) - first).astype(np.int32)}
        write(
            folder,
            name,
            {**columns, "feature": rng.integers(0, features, len(token)).astype(np.int32)},
            len(token),
            rng,
        )
    texts = [f" word{token}" for token in range(VOCABULARY)]
    vocabulary = {
        "token": np.arange(VOCABULARY, dtype=np.int32),
        "bytes": [text.encode() for text in texts],
        "text": texts,
    }
    write(folder, "vocabulary", {**vocabulary, "special": [False] * VOCABULARY}, VOCABULARY, rng)
    documents = np.arange(0, CONTEXTS, 4, dtype=np.uint32)
    columns = {
        "document": np.arange(len(documents), dtype=np.int32),
        "sequence": documents,
        "position": [0] * len(documents),
    }
    write(folder, "documents", columns, len(documents), rng)
    np.save(folder / "tokens.npy", rng.integers(0, VOCABULARY, (CONTEXTS, CONTEXT_LENGTH)).astype("<u2"))
    np.save(folder / "kept.npy", np.full((CONTEXTS, CONTEXT_LENGTH // 8), 255, np.uint8))
    manifest = new_manifest(
        key="sha256:" + "0" * 64,
        features=features,
        contexts=CONTEXTS,
        context_length=CONTEXT_LENGTH,
        vocabulary=VOCABULARY,
        rows=CONTEXTS * CONTEXT_LENGTH,
        unit=1.0,
        edges=EDGES.tolist(),
        config=AnalysisConfig().model_dump(),
        facts={},
        overview=made_overview(features, status, rng),
    )
    write_manifest(folder, manifest, [file.name for file in folder.iterdir()])


def made_overview(features: int, status: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Figures over the dictionary, with the fields of a real analysis."""
    rows = CONTEXTS * CONTEXT_LENGTH
    by_position = [None, *rng.uniform(20, 40, CONTEXT_LENGTH - 1).round(3).tolist()]
    counts = rng.multinomial(features, np.full(12, 1 / 12)).tolist()
    return {
        "rows": rows,
        "firings": 32 * rows,
        "status": {name: int((status == name).sum()) for name in ("never", "rare", "alive", "dense")},
        "never_density_bound": 3.7 / rows,
        "never_density_rule_of_three": 3 / rows,
        "density_histogram": {"edges": np.arange(-6, 0.5, 0.5).tolist(), "counts": counts, "never": 0, "rows": rows},
        "l0": {
            "mean": 32.0,
            "std": 10.0,
            "percentiles": {str(share): share for share in (1, 5, 25, 50, 75, 95, 99)},
            "histogram": [[count, int(number)] for count, number in enumerate(rng.integers(0, 5000, 100))],
            "overflow": 0,
            "by_position": by_position,
            "by_token": [{"token": token, "rows": 1000, "mean": 30.0} for token in range(20)],
        },
        "explained_variance": {
            "value": 0.8,
            "by_position": [None, *rng.uniform(0.7, 0.9, CONTEXT_LENGTH - 1).round(4).tolist()],
            "rows_by_position": [0, *[CONTEXTS] * (CONTEXT_LENGTH - 1)],
            "rows": rows // 2,
            "mean_from": "nothing: it is made up",
        },
        "most_frequent": [{"feature": one, "firings": rows // 4, "density": 0.25} for one in range(20)],
    }


def questions(store: FeatureStore) -> dict[str, Callable[[int], Any]]:
    """What is asked, by name; the argument differs from call to call."""
    queries, features = store.queries, store.num_features
    alive = np.flatnonzero(store.alive)

    def record(call: int) -> Any:
        return store.feature(call * 7919 % features).details

    return {
        "filter on numbers, sorted": lambda call: queries.select(
            ["status=alive", f"density>={0.0001 * (1 + call % 10)}"], sort="-max", limit=50
        ),
        "filter on class, sorted by F1": lambda call: queries.select(
            f"class={CLASSES[call % len(CLASSES)]}", sort="-f1", limit=50
        ),
        "label holds a word": lambda call: queries.select(f"label~word{call % 100}", sort="label", limit=50),
        "page deep in a sort": lambda call: queries.select(
            "status=alive", sort="-density", limit=50, after=int(alive[call * 131 % len(alive)])
        ),
        "first page, all columns": lambda _: queries.select(limit=50),
        "count": lambda call: queries.count(["status=alive", f"density>={0.0001 * (1 + call % 10)}"]),
        "features that fire on a token": lambda call: queries.firing_on(f"word{call * 37 % VOCABULARY}"),
        "features that promote a token": lambda call: queries.promoting(f"word{call * 37 % VOCABULARY}"),
        "filter on fires_on": lambda call: queries.select(
            f"fires_on=word{call * 37 % VOCABULARY}", sort="-max", limit=50
        ),
        "search in labels": lambda call: queries.search_labels(f"word{call % 500}"),
        "random alive feature": lambda call: queries.random_alive(call),
        "next alive feature": lambda call: queries.nearest_alive(call * 7919 % features, 1),
        "one feature with details": record,
        "its examples": lambda call: store.examples(call * 7919 % features),
        "its examples as pieces": lambda call: [one.pieces() for one in store.examples(call * 7919 % features)],
    }


def measure(ask: Callable[[int], Any], repeats: int) -> list[float]:
    """Milliseconds: first call, median and slowest of the others, and the median of processor time (all threads together)."""
    took, worked = [], []
    for call in range(repeats + 1):
        started, begun = time.perf_counter(), time.process_time()
        ask(call)
        took.append(1000 * (time.perf_counter() - started))
        worked.append(1000 * (time.process_time() - begun))
    return [took[0], statistics.median(took[1:]), max(took[1:]), statistics.median(worked[1:])]


def main() -> None:
    """Make a store, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=65_536, help="features of the store [65536]")
    parser.add_argument("--examples", type=int, default=40, help="examples of each feature [40]")
    parser.add_argument("--keep", type=Path, help="folder for the store, used again if it is there [a temporary one]")
    parser.add_argument("--repeats", type=int, default=30, help="calls of each query after the first [30]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.keep or Path(made)
        if not (folder / MANIFEST).exists():
            print(f"Making a store of {given.features:,} features ...", file=sys.stderr, flush=True)
            folder.mkdir(exist_ok=True)
            make_store(folder, given.features, given.examples)
        size = sum(file.stat().st_size for file in folder.iterdir())
        started = time.perf_counter()
        with FeatureStore.open(folder) as store:
            opened = 1000 * (time.perf_counter() - started)
            print(f"{store.num_features:,} features, {size / 2**20:,.0f} MiB, opened in {opened:.1f} ms\n")
            print(
                "| question | first, ms | median, ms | slowest, ms | processor, ms |\n| --- | --: | --: | --: | --: |"
            )
            for name, ask in questions(store).items():
                print(f"| {name} | {' | '.join(f'{one:.1f}' for one in measure(ask, given.repeats))} |", flush=True)


if __name__ == "__main__":
    main()
