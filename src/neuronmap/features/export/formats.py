"""The formats of ``neuronmap sae export-features`` and what each writes. Features are written one after the other, not held."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from neuronmap import paths
from neuronmap import progress as progress_module
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError
from neuronmap.features.export.html import feature_page
from neuronmap.features.export.neuronpedia import NeuronpediaNames, write_bundle
from neuronmap.features.export.records import feature_record, finite
from neuronmap.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from neuronmap.features.storage.store import FeatureStore

__all__ = ["FORMATS", "export_features"]

FORMATS = {
    "json": "one JSON document: every feature with lists and examples",
    "jsonl": "the same, one feature a line",
    "csv": "one row a feature: numbers, label, scores",
    "parquet": "the same for pandas, polars and DuckDB",
    "html": "one self-contained page to read and to send",
    "neuronpedia": "a folder in Neuronpedia's bulk format",
}
_MANY = 500
"""Features from which on a page is slow to open."""

Advance = Callable[[int], None]
Writer = Callable[[BinaryIO, "FeatureStore", Sequence[int], str, Advance], None]


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
        features: which, in this order, each once.
        form: one of :data:`FORMATS`.
        target: where to; its folder is made if it is missing.
        title: what the SAE is called in the document and on the page.
        names: how model and source are called on Neuronpedia; needed for that format only.
        overwrite: replace what is there: a file by a file, a folder by a folder.
        progress: where notes and the bar go.

    Returns:
        The file or folder.

    Raises:
        ConfigError: an unknown format, or Neuronpedia without names.
        InputError: no features, one that there is not, or one twice.
        AlreadyExistsError: the target is there.
        UnwritablePathError: it cannot be written.

    Example:
        >>> export_features(store, chosen_features(store, top=100, by="score"), "html", "features.html")
    """
    target = Path(target)
    if form not in FORMATS:
        raise ConfigError(f"There is no format {form!r}; there are {', '.join(FORMATS)}.")
    if form == "neuronpedia" and names is None:
        raise ConfigError("A Neuronpedia bundle needs names for the model and the source.", hint="Give names=.")
    _check_features(store, features)
    if target.exists() and target.is_dir() != (form == "neuronpedia"):
        raise AlreadyExistsError(f"{target} is {'a folder' if target.is_dir() else 'a file'}; it is left alone.")
    if target.exists() and not overwrite:
        raise AlreadyExistsError(f"{target} exists already.", hint="Choose another name, or overwrite it.")
    paths.new_folder(target.parent)
    progress = progress or progress_module.default()
    if form == "html" and len(features) > _MANY:
        progress.note(f"A page of {len(features):,} features is slow to open; a part of them reads better.")
    with progress.task(f"Exporting as {form}", len(features), "features") as task:
        if names is not None and form == "neuronpedia":
            write_bundle(store, features, target, names, task.advance)
        else:
            with paths.new_file(target) as file:
                _WRITERS[form](file, store, features, title, task.advance)
    return target


def _check_features(store: FeatureStore, features: Sequence[int]) -> None:
    if not features:
        raise InputError("No feature was chosen, so there is nothing to export.")
    seen = set[int]()
    for feature in features:
        if store.check_feature(feature) in seen:
            raise InputError(f"Feature {feature} was chosen twice.")
        seen.add(int(feature))


def _records(store: FeatureStore, features: Sequence[int], advance: Advance) -> Iterator[dict[str, Any]]:
    for feature in features:
        yield feature_record(store, feature)
        advance(1)


def _json(file: BinaryIO, store: FeatureStore, features: Sequence[int], title: str, advance: Advance) -> None:
    head = {
        "schema": "neuronmap/features/1",
        "sae": title,
        "key": store.key,
        "rows": store.manifest["rows"],
        "facts": store.facts,
    }
    text = json.dumps(head, ensure_ascii=False, allow_nan=False, indent=1)
    file.write(text.removesuffix("\n}").encode() + b',\n "features": [')
    for number, record in enumerate(_records(store, features, advance)):
        file.write(b",\n" if number else b"\n")
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode())
    file.write(b"\n ]\n}\n")


def _jsonl(file: BinaryIO, store: FeatureStore, features: Sequence[int], title: str, advance: Advance) -> None:
    del title
    for record in _records(store, features, advance):
        file.write((json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _csv(file: BinaryIO, store: FeatureStore, features: Sequence[int], title: str, advance: Advance) -> None:
    del title
    rows = _scalars(store, features)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    # RFC 4180's line ends; with a bare \n a token that is a \r would not be quoted
    writer = csv.DictWriter(text, fieldnames=rows.column_names, lineterminator="\r\n")
    writer.writeheader()
    for row in rows.to_pylist():
        writer.writerow(finite(row))
        advance(1)
    text.detach()


def _parquet(file: BinaryIO, store: FeatureStore, features: Sequence[int], title: str, advance: Advance) -> None:
    import pyarrow.parquet as pq

    del title
    pq.write_table(_scalars(store, features), file, compression="zstd")
    advance(len(features))


def _html(file: BinaryIO, store: FeatureStore, features: Sequence[int], title: str, advance: Advance) -> None:
    for part in feature_page(store, features, title, advance):
        file.write(part.encode())


def _scalars(store: FeatureStore, features: Sequence[int]) -> pa.Table:
    """Rows of all columns of features and hints; the hints' are null where there are none."""
    import pyarrow as pa

    return store.queries.select(limit=None).to_arrow().take(pa.array(features))  # row i is feature i


_WRITERS: dict[str, Writer] = {"json": _json, "jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "html": _html}
