"""One line of the library: what is known of a stored SAE without loading it, and how entries are picked and ordered."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.saes.metadata import BundleInfo, read_bundle_info

__all__ = [
    "LibraryEntry",
    "MetricFilter",
    "model_digest",
    "parse_metric_filter",
    "read_entry",
    "require_metric",
    "sort_entries",
]

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_FILTER = re.compile(r"\s*([\w.@-]+?)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """A stored SAE.

    Attributes:
        id: name in the library: the path under its root, with ``/``.
        path: the bundle's folder.
        architecture: NeuronMap's name.
        d_in: width of the activation.
        d_sae: number of features.
        k: active features per row, for architectures with a k.
        model: name of the language model.
        revision: its revision, for hub models.
        layer: block, counted from 0; None for hooks outside the blocks.
        component: residual, mlp, attention, ...
        hook: exact hook, such as ``model.layers.8.mlp:out``.
        tags: free words.
        created: ISO 8601, UTC.
        size_bytes: of all files together.
        metrics: numbers of ``metrics.json`` by name: those under its ``summary``, or all by dotted name.
        weights_digest: SHA-256 of the weights, as stored in the bundle.
        training: the training configuration, for SAEs that were trained here.
        problem: why the bundle cannot be used; empty for sound ones. Other fields are then empty.
    """

    id: str
    path: Path
    architecture: str = ""
    d_in: int = 0
    d_sae: int = 0
    k: int | None = None
    model: str | None = None
    revision: str | None = None
    layer: int | None = None
    component: str | None = None
    hook: str | None = None
    tags: tuple[str, ...] = ()
    created: str | None = None
    size_bytes: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    weights_digest: str | None = None
    training: dict[str, Any] | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all fields."""
        return {**asdict(self), "path": str(self.path), "tags": list(self.tags)}

    def metric(self, name: str) -> float | None:
        """A metric by its dotted name, or by its last part where only one metric ends in it."""
        if name in self.metrics:
            return self.metrics[name]
        found = [value for key, value in self.metrics.items() if key.endswith(f".{name}")]
        return found[0] if len(found) == 1 else None

    def matches(
        self, model: str | None, layer: int | None, component: str | None, architecture: str | None, tags: Iterable[str]
    ) -> bool:
        """Whether every condition that is given holds; names match as in :func:`name_matches`."""
        return (
            (model is None or name_matches(self.model, model))
            and (layer is None or self.layer == layer)
            and (component is None or name_matches(self.component, component) or name_matches(self.hook, component))
            and (architecture is None or name_matches(self.architecture, architecture))
            and all(tag in self.tags for tag in tags)
        )


def model_digest(entry: LibraryEntry) -> str | None:
    """Of its language model, where the bundle knows it: one model may have several names."""
    metadata = read_bundle_info(entry.path).metadata
    digest = (metadata.model or {}).get("model_digest") if metadata is not None else None
    return None if digest is None else str(digest)


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """A condition such as ``explained_variance >= 0.7``; entries without the metric do not meet it."""

    name: str
    comparison: str
    value: float

    def __call__(self, entry: LibraryEntry) -> bool:
        found = entry.metric(self.name)
        return found is not None and _COMPARISONS[self.comparison](found, self.value)


def name_matches(name: str | None, wanted: str) -> bool:
    """Whole name or its last part after ``/``, any case; ``*``, ``?`` and ``[...]`` as in file names."""
    if not name:
        return False
    name, wanted = name.lower(), wanted.lower()
    return any(fnmatch.fnmatchcase(candidate, wanted) for candidate in (name, name.rsplit("/", 1)[-1]))


def parse_metric_filter(text: str) -> MetricFilter:
    """Read ``explained_variance>=0.7``.

    Raises:
        ConfigError: for anything else, with the form that is needed.
    """
    parts = _FILTER.fullmatch(text)
    try:
        if parts is not None:
            return MetricFilter(parts.group(1), parts.group(2), float(parts.group(3)))
    except ValueError:
        pass
    raise ConfigError(
        f"{text!r} is not a condition on a metric. It needs a name, one of {' '.join(_COMPARISONS)}, and a number.",
        hint="For example: explained_variance>=0.7",
    )


def require_metric(entries: Iterable[LibraryEntry], name: str) -> None:
    """Refuse a metric that none of the entries has; without sound entries there is nothing to compare with.

    Raises:
        ConfigError: lists the metrics that there are.
    """
    sound = [entry for entry in entries if not entry.problem]
    if sound and all(entry.metric(name) is None for entry in sound):
        known = sorted({metric for entry in sound for metric in entry.metrics})
        raise ConfigError(f"No SAE has a metric {name!r}. There are: {', '.join(known) or 'none'}.")


def sort_entries(entries: list[LibraryEntry], sort: str) -> list[LibraryEntry]:
    """Order by a field (``id``, ``created``, ``d_sae``, ``size_bytes``, ...) or a metric; a leading ``-`` turns it round.

    Entries without the value come last either way.

    Raises:
        ConfigError: if no entry has a field or metric of that name.
    """
    name, backwards = sort.removeprefix("-"), sort.startswith("-")
    fields = (
        "id",
        "architecture",
        "d_in",
        "d_sae",
        "k",
        "model",
        "layer",
        "component",
        "hook",
        "created",
        "size_bytes",
    )

    def value(entry: LibraryEntry) -> Any:
        return getattr(entry, name) if name in fields else entry.metric(name)

    valued = [entry for entry in entries if value(entry) is not None]
    if not valued and entries and name not in fields:
        known = sorted({metric for entry in entries for metric in entry.metrics})
        raise ConfigError(
            f"Cannot sort by {name!r}: it is neither a field ({', '.join(fields)}) nor a metric of these SAEs "
            f"({', '.join(known) or 'which have none'})."
        )
    rest = [entry for entry in entries if value(entry) is None]
    return sorted(valued, key=value, reverse=backwards) + rest


def read_entry(identifier: str, folder: Path, size_bytes: int) -> LibraryEntry:
    """Read a bundle's entry; a damaged one gives an entry with its problem instead of an error."""
    try:
        info = read_bundle_info(folder)
    except (DamagedError, InputError) as error:
        return LibraryEntry(id=identifier, path=folder, size_bytes=size_bytes, problem=error.message)
    except OSError as error:
        return LibraryEntry(id=identifier, path=folder, size_bytes=size_bytes, problem=f"cannot be read: {error}")
    return _entry_of(identifier, info, size_bytes)


def _entry_of(identifier: str, info: BundleInfo, size_bytes: int) -> LibraryEntry:
    if info.metadata is None:
        return LibraryEntry(
            id=identifier,
            path=info.folder,
            size_bytes=size_bytes,
            problem="a plain SAELens folder was put here by hand; register it, so that it gets a digest and a place",
        )
    metadata = info.metadata
    model, hook = metadata.model or {}, metadata.hook or {}
    return LibraryEntry(
        id=identifier,
        path=info.folder,
        architecture=info.architecture,
        d_in=info.d_in,
        d_sae=info.d_sae,
        k=info.k,
        model=model.get("name"),
        revision=model.get("revision"),
        layer=hook.get("layer"),
        component=hook.get("component"),
        hook=hook.get("name"),
        tags=metadata.tags,
        created=metadata.created,
        size_bytes=size_bytes,
        metrics=info.metrics,
        weights_digest=metadata.weights_digest,
        training=metadata.training,
    )
