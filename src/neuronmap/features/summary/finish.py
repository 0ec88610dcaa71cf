"""From the state of a pass to a feature store: every file written once, in chunks of features, and renamed into place at the end.

Shapes: F features, C contexts of T tokens, V vocabulary, N rows of the coded sample.
"""

from __future__ import annotations

import errno
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock

from neuronmap import paths
from neuronmap.errors import AlreadyExistsError, InputError, MismatchError, UnwritablePathError
from neuronmap.features.collect.layout import EDGES
from neuronmap.features.collect.state import FeatureState
from neuronmap.features.storage.manifest import new_manifest, read_manifest, write_manifest
from neuronmap.features.storage.schema import TABLES, arrow_schema
from neuronmap.features.summary import tables
from neuronmap.features.summary.choosing import (
    CodedFirings,
    bin_examples,
    hard_negatives,
    merged,
    quantile_examples,
    random_negatives,
    top_examples,
)
from neuronmap.features.summary.coactivation import CoActivation
from neuronmap.features.summary.contexts import StoredContexts
from neuronmap.features.summary.overview import overview
from neuronmap.features.summary.ragged import best_of_each
from neuronmap.features.summary.tokenstats import TokenPairs, token_statistics
from neuronmap.features.summary.writing import TableWriter, check_table, disk_errors, synchronise, write_table
from neuronmap.progress import Progress, Task, default

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.features.directions.map import FeatureMap
    from neuronmap.features.directions.weights import WeightFacts
    from neuronmap.features.storage.text import Vocabulary

__all__ = ["ATTACHABLE", "attach_table", "finish"]

ATTACHABLE = ("hints", "clusters", "promoted")
"""Tables that a store may lack, and that may be added or replaced later."""
_CHUNK = 4096  # features together: about 100 MB of arrays
_BYTES_A_FEATURE = 6000  # for the check of the disk, on the safe side


def finish(
    state: FeatureState,
    tokens: TokenSet,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    weights: WeightFacts | None,
    feature_map: FeatureMap | None = None,
    facts: dict[str, Any],
    progress: Progress | None = None,
) -> Path:
    """Write the feature store of a finished pass.

    Args:
        state: all blocks are in.
        tokens: the contexts that the pass read.
        vocabulary: of the tokenizer that made them, as large as the model's where the weights' facts name its tokens.
        folder: where the store will be; must not exist.
        weights: facts of the weights; None leaves their columns null and their lists empty.
        feature_map: place and cluster of each feature, or None.
        facts: identities of SAE, model and corpus, plain JSON, for the manifest; the state's own go under ``pass``, and what is
            missing and why under ``notes``.
        progress: where bars go.

    Returns:
        The folder. The same state gives the same bytes, but for ``created`` in the manifest.

    Raises:
        InputError: blocks are missing in the state.
        MismatchError: tokens, vocabulary, weights or map are not of this state.
        AlreadyExistsError: the folder is there.
        DiskSpaceError: it does not fit.
    """
    progress = progress or default()
    _check(state, tokens, vocabulary, weights, feature_map)
    num = int(state.facts["features"])
    if folder.exists():
        raise AlreadyExistsError(f"{folder} exists already.", hint="Delete it or choose another folder.")
    needed = num * _BYTES_A_FEATURE + tokens.num_contexts * tokens.context_length * 4 + 64 * vocabulary.size
    paths.check_disk_space(folder.parent, needed, f"A feature store of {num:,} features")
    try:
        with paths.staging_folder(folder) as staging, disk_errors(folder):
            _write_store(state, tokens, vocabulary, staging, weights, feature_map, facts, progress)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise UnwritablePathError(f"Cannot write {folder}: {error.strerror or error}.") from error
        raise AlreadyExistsError(f"{folder} exists already.", hint="Delete it or choose another folder.") from error
    return folder


def attach_table(folder: Path, name: str, table: pa.Table) -> None:
    """Add or replace one of the tables that may be missing, and seal the manifest anew.

    At every moment the store is whole: with the old table, for an instant without it, or with the new one.

    Args:
        folder: the store.
        name: ``hints``, ``clusters`` or ``promoted``.
        table: its rows, in the schema's columns; they are put in the schema's order.

    Raises:
        InputError: the table is not one of these, or its columns are not the schema's.
    """
    if name not in ATTACHABLE:
        raise InputError(f"{name!r} cannot be attached to a feature store; {', '.join(ATTACHABLE)} can.")
    read_manifest(folder)  # a folder without a store gets no lock
    table = check_table(name, table).sort_by([(column, "ascending") for column in TABLES[name].order])
    file = TABLES[name].file
    aside = folder / f".{file}.{uuid.uuid4().hex}"
    with FileLock(folder.parent / f".{folder.name}.lock"), disk_errors(folder):
        manifest = read_manifest(folder)
        try:
            write_table(folder, name, table, aside)
            synchronise(aside)
            if file in manifest["files"]:
                # the manifest lets go of the old file first, so that it never lists a digest that is not there
                listed = {other: facts for other, facts in manifest["files"].items() if other != file}
                manifest = write_manifest(folder, {**manifest, "files": listed}, ())
            aside.replace(folder / file)
            write_manifest(folder, manifest, (file,))
        finally:
            aside.unlink(missing_ok=True)


def _check(
    state: FeatureState,
    tokens: TokenSet,
    vocabulary: Vocabulary,
    weights: WeightFacts | None,
    feature_map: FeatureMap | None,
) -> None:
    missing = int((~state.done_G).sum())
    if missing:
        raise InputError(
            f"{missing:,} of {len(state.done_G):,} blocks are missing in the state.",
            hint="Continue the pass, or merge the states of the other shards.",
        )
    wanted, num = state.facts, int(state.facts["features"])
    differences = [
        f"{what} {found!r} where the pass had {wanted[name]!r}"
        for name, what, found in (
            ("contexts", "contexts", tokens.num_contexts),
            ("context_length", "context length", tokens.context_length),
            ("tokens_digest", "tokens", tokens.digest),
        )
        if wanted[name] != found
    ]
    if vocabulary.size < wanted["vocabulary"]:  # a model's may hold tokens that the text does not reach
        differences.append(
            f"a vocabulary of {vocabulary.size:,} where the pass saw tokens up to {wanted['vocabulary'] - 1:,}"
        )
    for what, found in (
        ("weights", len(weights.decoder_norm_F) if weights is not None else num),
        ("map", len(feature_map.x_F) if feature_map is not None else num),
    ):
        if found != num:
            differences.append(f"{what} of {found:,} features where the pass had {num:,}")
    if differences:
        raise MismatchError(f"This is not what the pass was over: {'; '.join(differences)}.")


def _write_store(
    state: FeatureState,
    tokens: TokenSet,
    vocabulary: Vocabulary,
    folder: Path,
    weights: WeightFacts | None,
    feature_map: FeatureMap | None,
    facts: dict[str, Any],
    progress: Progress,
) -> None:
    num, sample = int(state.facts["features"]), state.settle().sample
    contexts = StoredContexts.write(tokens, state.kept, vocabulary.size, folder)
    count_V = np.zeros(vocabulary.size, np.int64)
    count_V[: len(state.token_count_V)] = state.token_count_V
    if not np.array_equal(contexts.around[1], count_V):
        raise MismatchError("The tokens are not those that the pass counted: rows by token differ.")
    token_N = contexts.token(sample.sequence_N.astype(np.int64), sample.position_N)
    with progress.task("Writing the feature store", num, "features") as task:
        pairs = _write_features(state, contexts, token_N, tables.Texts(vocabulary), folder, weights, feature_map, task)
    sampled_F = state.features["sample_count"].astype(np.int64)
    index = tables.token_features(pairs, state.features["firings"], sampled_F, count_V)
    write_table(folder, "token_features", index)
    if weights is not None and weights.lens is not None:
        write_table(folder, "promoted", tables.promoted_table(weights.lens))
    write_table(folder, "vocabulary", vocabulary.to_table(count_V))
    write_table(folder, "documents", _documents(tokens, contexts))
    manifest = new_manifest(
        key=state.facts["key"],
        features=num,
        contexts=tokens.num_contexts,
        context_length=tokens.context_length,
        vocabulary=vocabulary.size,
        rows=state.rows,
        unit=float(state.facts["unit"]),
        edges=(EDGES.astype(np.float64) * float(state.facts["unit"])).tolist(),
        config=state.config.model_dump(mode="json"),
        facts={**facts, "pass": dict(state.facts), "notes": _notes(weights, feature_map)},
        overview=overview(state, token_N),
    )
    write_manifest(folder, manifest, sorted(file.name for file in folder.iterdir()))


def _notes(weights: WeightFacts | None, feature_map: FeatureMap | None) -> dict[str, str]:
    """Why something is missing in the store, in words, by what it is."""
    notes = {
        "weights": "No weights were given." if weights is None else "",
        "lens": weights.lens_note if weights is not None else "",
        "map": feature_map.note if feature_map is not None else "No map was made.",
    }
    return {name: note for name, note in notes.items() if note}


def _write_features(
    state: FeatureState,
    contexts: StoredContexts,
    token_N: npt.NDArray[np.int32],
    texts: tables.Texts,
    folder: Path,
    weights: WeightFacts | None,
    feature_map: FeatureMap | None,
    task: Task,
) -> TokenPairs:
    """Write features, details and examples; return the pairs that the index from tokens to features is made of."""
    config, unit, num = state.config, float(state.facts["unit"]), int(state.facts["features"])
    coded = CodedFirings(state.sample, token_N, num, contexts.context_length, config, unit)
    coactivation = CoActivation(state.sample, num, config.neighbours)
    kept: list[TokenPairs] = []
    with (
        TableWriter(folder, "features") as write_features,
        TableWriter(folder, "details") as write_details,
        TableWriter(folder, "examples") as write_examples,
    ):
        for first in range(0, num, _CHUNK):
            stop = min(num, first + _CHUNK)
            part = {name: np.asarray(array[first:stop]) for name, array in state.features.items()}
            stats = token_statistics(part["sample"], part["sample_count"], contexts, config.neighbours)
            coactive = tables.CoActive(
                coactivation.together(first, stop), coactivation.leads(first, stop), coactivation.follows(first, stop)
            )
            write_features.write(
                tables.features_table(first, part, state.rows, unit, stats, texts, coactive, weights, feature_map)
            )
            write_details.write(tables.details_table(first, part, stats, coactive, weights))
            fires = np.flatnonzero(part["firings"])
            shown = [top_examples(part, first, config, unit), quantile_examples(part, first, config, unit)]
            examples = [
                *shown,
                bin_examples(part, first, config, unit, shown),
                random_negatives(coded, fires + first),
                hard_negatives(coded, fires + first, stats.frequent_FK[fires]),
            ]
            write_examples.write(tables.examples_table(merged(examples)))
            kept.append(stats.pairs.take(best_of_each(stats.pairs.feature, stats.pairs.z, tables.TOKEN_PAIRS), first))
            task.advance(stop - first)
    names = ("feature", "token", "count", "total", "share", "lift", "z")
    return TokenPairs(*(np.concatenate([getattr(part, name) for part in kept]) for name in names))


def _documents(tokens: TokenSet, contexts: StoredContexts) -> pa.Table:
    sequence_D, position_D = np.divmod(contexts.start_D, contexts.context_length)
    columns = {
        "document": contexts.document_D,
        "id": [tokens.document_id(int(document)) for document in contexts.document_D],
        "sequence": sequence_D.astype(np.uint32),
        "position": position_D.astype(np.uint16),
    }
    return pa.table(columns, schema=arrow_schema("documents"))
