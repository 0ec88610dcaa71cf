"""Taking SAEs out: from the library, or from any known format, into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import paths
from neuronmap.errors import ConfigError, InputError
from neuronmap.hub.formats.format import Exported, Format, Given
from neuronmap.hub.formats.huggingface import Card, write_repository
from neuronmap.hub.formats.importing import find_candidates, read_candidate
from neuronmap.hub.formats.registry import get_format, list_formats
from neuronmap.hub.formats.replacing import checked_target, filled
from neuronmap.hub.formats.sources import Fetched
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.hub.library import SAEModelHub

__all__ = ["EXTRA_TARGETS", "Written", "convert_sae", "export_sae", "targets"]

EXTRA_TARGETS = {
    "huggingface": "a folder ready to be a repository on the Hugging Face hub: bundles and a card",
    "neuronpedia": "a folder in Neuronpedia's bulk format, from an analysis of the SAE",
}
"""What is written for other things than to be read as weights."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an export left.

    Attributes:
        folder: where.
        format: in which format.
        files: in it.
        saes: names of the SAEs.
        notes: what the format could not keep.
    """

    folder: Path
    format: str
    files: tuple[Path, ...]
    saes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def targets() -> dict[str, str]:
    """Names of all formats that can be written, each with a line about it."""
    return {one.name: one.title for one in list_formats() if one.writes} | EXTRA_TARGETS


def export_sae(
    names: str | Sequence[str],
    format: str,
    folder: str | Path,
    *,
    assume: Mapping[str, str] | None = None,
    card: Card | None = None,
    analysis: str | None = None,
    overwrite: bool = False,
    hub: SAEModelHub | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write SAEs of the library in another format; the folder appears whole or not at all.

    Args:
        names: in the library; several go into one folder, as the format keeps several.
        format: one of :func:`targets`.
        folder: to be made; one that is there and empty is filled.
        assume: answers that the format asks for.
        card: licence and words for ``huggingface``, which needs them.
        analysis: for ``neuronpedia``, which of the SAE's analyses; the newest when left out.
        overwrite: replace a folder that an export made; others, and those with further files, are left alone.
        hub: the library.
        progress: where bars go.

    Raises:
        ConfigError: an unknown format, or one without what it needs.
        InputError: the format has no place for such an SAE; says why.
        AlreadyExistsError: the folder exists, and may not be replaced.
    """
    from neuronmap.hub.library import SAEModelHub
    from neuronmap.saes import load_sae

    library = hub or SAEModelHub()
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise ConfigError("No SAE was named.")
    entries = [library.get(name) for name in wanted]
    target = checked_target(folder, overwrite, [library.root])
    if format == "neuronpedia":
        return _neuronpedia(entries, target, analysis, progress)
    items, ids = [], []
    for entry in entries:
        sae = load_sae(entry.path)
        metrics = paths.read_json(entry.path / "metrics.json") if (entry.path / "metrics.json").is_file() else None
        items.append(Exported(sae, library.info(entry.id), metrics))
        ids.append(entry.id)
    return _write(items, tuple(ids), format, target, assume, card)


def convert_sae(
    source: str | Path | Fetched,
    folder: str | Path,
    to: str,
    *,
    format: str | None = None,
    select: str | None = None,
    layer: int | None = None,
    model: str | None = None,
    hook: str | None = None,
    assume: Mapping[str, str] | None = None,
    card: Card | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Rewrite SAEs of any known format in another, past the library.

    Args:
        source, format, select, layer, model, hook: as for :func:`neuronmap.hub.formats.import_sae`.
        folder: to be made.
        to: one of :func:`targets`.
        assume: answers that either format asks for.
        card, overwrite, progress: as for :func:`export_sae`.

    Raises:
        InputError, DamagedError, ConfigError, AlreadyExistsError: as for reading and for writing.
    """
    fetched, found = find_candidates(source, format, select=select, layer=layer, progress=progress)
    target = checked_target(folder, overwrite, [fetched.path])
    found = [one for one in found if one.kind == "weights"]
    if not found:
        raise InputError(f"{fetched.origin} holds data about features, no SAE; there is nothing to convert.")
    said = dict(assume or {})
    writer_asks = get_format(to).answers if to not in EXTRA_TARGETS else {}
    read_with = {
        key: value
        for key, value in said.items()
        if key in get_format(found[0].format).answers or key not in writer_asks
    }
    given = Given(model, hook, read_with, fetched.origin, fetched.revision)
    items: list[Exported] = []
    notes: list[str] = []
    for candidate in found:
        read = read_candidate(candidate, given, progress)
        items.append(Exported(read.sae, read.metadata, None))
        notes += read.notes
    written = _write(
        items, tuple(one.name for one in found), to, target,
        {key: value for key, value in said.items() if key in writer_asks}, card,
    )  # fmt: skip
    return Written(
        written.folder, written.format, written.files, written.saes, tuple(dict.fromkeys([*notes, *written.notes]))
    )


def _write(
    items: list[Exported],
    names: tuple[str, ...],
    format: str,
    folder: Path,
    assume: Mapping[str, str] | None,
    card: Card | None,
) -> Written:
    """Fill a folder aside and put it in its place."""
    owner = _writer(format)
    given = Given(assume=dict(assume or {}))
    if owner is not None:
        unknown = [key for key in given.assume if key not in owner.answers]
        if unknown:
            raise ConfigError(f"{format} asks nothing called {', '.join(unknown)}.")
    elif card is None:
        raise ConfigError("A repository needs a card with a licence.", hint="Give --licence, such as apache-2.0.")
    with filled(folder, format) as staging:
        if owner is not None:
            files = owner.write(items, staging, given)
        else:
            files = write_repository(items, names, staging, card or Card(licence=""))
        written = [file.relative_to(staging) for file in files]
    return Written(folder, format, tuple(folder / file for file in written), names)


def _writer(format: str) -> Format | None:
    """The format that writes; None for a repository, which is not one.

    Raises:
        ConfigError: it is unknown, or only read.
    """
    if format == "huggingface":
        return None
    known = targets()
    if format not in known:
        reads = any(one.name == format for one in list_formats())
        what = f"{format} can be read, not written" if reads else f"There is no format '{format}'"
        raise ConfigError(f"{what}. Written can be: {', '.join(known)}.")
    return get_format(format)


def _neuronpedia(entries: Sequence[Any], folder: Path, analysis: str | None, progress: Progress | None) -> Written:
    from neuronmap.features.export import NeuronpediaNames, chosen_features, export_features
    from neuronmap.features.export.neuronpedia import model_id
    from neuronmap.hub.analyses import open_analysis

    if len(entries) != 1:
        raise ConfigError(f"A Neuronpedia bundle is of one source; {len(entries)} SAEs were named.")
    entry = entries[0]
    if entry.layer is None:
        raise InputError(f"{entry.id} does not say which block it is of; Neuronpedia's sources are named by it.")
    store = open_analysis(entry, analysis)
    names = NeuronpediaNames(
        model_id(entry.model or "model"), "neuronmap", entry.layer, release=entry.id.replace("/", "-"), author="unknown"
    )
    with filled(folder, "neuronpedia") as staging:
        export_features(
            store,
            chosen_features(store),
            "neuronpedia",
            staging,
            title=entry.id,
            names=names,
            overwrite=True,
            progress=progress,
        )
        written = sorted(file.relative_to(staging) for file in staging.rglob("*") if file.is_file())
    note = "neuronmap sae export-features has more to choose: features, names, author."
    return Written(folder, "neuronpedia", tuple(folder / file for file in written), (entry.id,), (note,))
