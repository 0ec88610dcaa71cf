"""The formats of ``neuronmap sae export-features`` and what each writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import paths
from neuronmap import progress as progress_module
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError
from neuronmap.features.export.html import feature_page
from neuronmap.features.export.neuronpedia import NeuronpediaNames, write_bundle
from neuronmap.features.export.records import feature_record, scalar_record
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.features.store import FeatureStore

__all__ = ["FORMATS", "export_features"]

FORMATS = {
    "json": "one JSON document: every feature with lists and examples",
    "jsonl": "the same, one feature a line",
    "csv": "one row a feature: numbers, label, scores",
    "parquet": "the same for pandas, polars and DuckDB",
    "html": "one self-contained page to read and to send",
    "neuronpedia": "a folder in Neuronpedia's bulk format",
}


def export_features(
    store: FeatureStore,
    features: Sequence[int],
    form: str,
    target: str | Path,
    *,
    title: str = "SAE",
    names: NeuronpediaNames | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write features of a store to a file (``neuronpedia``: a folder), whole or not at all.

    Args:
        store: the analysis.
        features: which, in this order.
        form: one of :data:`FORMATS`.
        target: where to; its folder is made if it is missing.
        title: what the SAE is called on the page.
        names: how model and source are called on Neuronpedia; needed for that format only.
        overwrite: replace what is there.
        progress: where the bar goes.

    Returns:
        The file or folder.

    Raises:
        ConfigError: an unknown format, or Neuronpedia without names.
        InputError: no features, or one that there is not.
        AlreadyExistsError: the target is there.
    """
    target = Path(target)
    if form not in FORMATS:
        raise ConfigError(f"There is no format {form!r}; there are {', '.join(FORMATS)}.")
    if not features:
        raise InputError("No feature was chosen, so there is nothing to export.")
    for feature in features:
        store.check_feature(feature)
    if target.exists() and not overwrite:
        raise AlreadyExistsError(f"{target} exists already.", hint="Choose another name, or overwrite it.")
    if target.is_dir() != (form == "neuronpedia") and target.exists():
        raise AlreadyExistsError(f"{target} is {'a folder' if target.is_dir() else 'a file'}; it is left alone.")
    paths.new_folder(target.parent)
    progress = progress or progress_module.default()
    with progress.task(f"Exporting as {form}", len(features), "features") as task:
        if form == "neuronpedia":
            if names is None:
                raise ConfigError("A Neuronpedia bundle needs names for the model and the source.")
            write_bundle(store, features, target, names, task)
        else:
            paths.write_bytes(target, _WRITERS[form](store, features, title, task.advance))
    return target


Writer = Callable[["FeatureStore", Sequence[int], str, Callable[[int], None]], bytes]


def _records(store: FeatureStore, features: Sequence[int], advance: Callable[[int], None]) -> Iterable[dict[str, Any]]:
    for feature in features:
        yield feature_record(store, feature)
        advance(1)


def _json(store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None]) -> bytes:
    document = {
        "schema": "neuronmap/features/1",
        "sae": title,
        "key": store.key,
        "rows": store.manifest["rows"],
        "facts": store.facts,
        "features": list(_records(store, features, advance)),
    }
    return (json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


def _jsonl(store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None]) -> bytes:
    del title
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in _records(store, features, advance))
    return ("\n".join(lines) + "\n").encode()


def _csv(store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None]) -> bytes:
    del title
    rows = _scalars(store, features)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    advance(len(rows))
    return file.getvalue().encode()


def _parquet(store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    del title
    table = store.queries.select(limit=None).to_arrow().take(pa.array(features))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    advance(len(features))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _html(store: FeatureStore, features: Sequence[int], title: str, advance: Callable[[int], None]) -> bytes:
    return feature_page(store, features, title, advance).encode()


def _scalars(store: FeatureStore, features: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of all columns; in one query where there are many."""
    if len(features) <= 16:
        found = [scalar_record(store, feature) for feature in features]
        return [{name: row.get(name) for name in found[0]} for row in found]
    rows = store.queries.select(limit=None)
    return [rows[feature] for feature in features]


_WRITERS: dict[str, Writer] = {"json": _json, "jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "html": _html}
