"""Reports of the abstraction tracker on this machine: a folder each, under a name.

    <home>/reports/<name>/report.json     one report (neuronmap.abstraction.record.TrackingReport)

A report holds everything that pages, tables and plots show. The probes behind it are in the cache (``cache/concepts``).
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import AlreadyExistsError, ConfigError, DamagedError, NotInLibraryError, UnwritablePathError
from neuronmap.hub.names import check_id, slug
from neuronmap.paths import home, new_folder, read_json, staging_folder, write_json

if TYPE_CHECKING:
    from neuronmap.abstraction.record import TrackingReport

__all__ = [
    "ReportEntry",
    "checked_report_name",
    "delete_report",
    "free_report_name",
    "list_reports",
    "open_report",
    "reports_folder",
    "store_report",
]

_FILE = "report.json"
_COMPARE = "compare"


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One stored report.

    Attributes:
        name: its name.
        path: its folder.
        model: name of the model.
        created: ISO 8601, UTC.
        preset: quick, full or custom.
        concepts: names of the concepts.
        prompts: how many prompts it follows.
        flow: whether it follows features.
        verdicts: how many concepts have each verdict.
        problem: why it cannot be read; empty for sound ones.
    """

    name: str
    path: Path
    model: str = ""
    created: str = ""
    preset: str = ""
    concepts: tuple[str, ...] = ()
    prompts: int = 0
    flow: bool = False
    verdicts: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all fields."""
        return {**asdict(self), "path": str(self.path), "concepts": list(self.concepts)}


def reports_folder() -> Path:
    """Folder of this machine's reports."""
    return home() / "reports"


def list_reports() -> list[ReportEntry]:
    """All reports, the newest first; damaged ones last, with their problem."""
    folder = reports_folder()
    paths = (
        [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        if folder.is_dir()
        else []
    )
    found = [_entry(path) for path in sorted(paths)]
    return sorted(found, key=lambda one: (not one.problem, one.created, one.name), reverse=True)


def open_report(name: str) -> TrackingReport:
    """Read a report by its name.

    Raises:
        NotInLibraryError: there is none of that name; lists what is there.
        DamagedError: it cannot be read.
    """
    from neuronmap.abstraction.record import TrackingReport

    path = _existing(name)
    try:
        document = read_json(path / _FILE)
        return TrackingReport(**document)
    except (FileNotFoundError, ConfigError, TypeError) as error:
        raise DamagedError(f"The report '{name}' cannot be read: {error}", hint=f"It lies in {path}.") from error


def free_report_name(report: TrackingReport) -> str:
    """A name from model and concepts that no report has yet."""
    model = slug(str(report.model["name"]).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], "model")
    families = list(dict.fromkeys(str(one.concept["name"]).partition(":")[0] for one in report.concepts))
    base = f"{model}-{families[0]}" if len(families) == 1 else f"{model}-{report.preset}"
    base = slug(base)
    taken = {one.name for one in list_reports()}
    names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def checked_report_name(name: str) -> str:
    """Refuse names that could leave the folder of reports, or hide in it.

    Raises:
        ConfigError: says what is allowed.
    """
    if "/" in name:
        raise ConfigError(f"{name!r} cannot be the name of a report: it holds a '/'.")
    if name.lower() == _COMPARE:
        raise ConfigError(f"{name!r} cannot be the name of a report: it is the page that compares reports.")
    return check_id(name)


def store_report(report: TrackingReport, name: str | None = None, *, replace: bool = False) -> TrackingReport:
    """Keep a report.

    Args:
        report: what to keep.
        name: its name; one from model and concepts when left out.
        replace: let it take the place of one with the same name.

    Returns:
        The report with its name.

    Raises:
        ConfigError: the name cannot be one.
        AlreadyExistsError: the name is taken.
    """
    chosen = free_report_name(report) if name is None else checked_report_name(name)
    named = report.updated(name=chosen)
    target = new_folder(reports_folder()) / chosen
    if target.exists():
        if not replace:
            raise AlreadyExistsError(
                f"There is a report '{chosen}' already.", hint="Choose another name, or replace it."
            )
        write_json(target / _FILE, named.to_dict())
        return named
    with staging_folder(target) as staged:
        write_json(staged / _FILE, named.to_dict())
    return named


def delete_report(name: str) -> Path:
    """Remove a report. Asking the user is the caller's part.

    Returns:
        The folder that is gone.

    Raises:
        NotInLibraryError: there is none of that name.
        UnwritablePathError: it cannot be removed.
    """
    path = _existing(name)
    aside = path.with_name(f".deleted-{uuid.uuid4().hex}")
    try:
        path.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise UnwritablePathError(f"Cannot remove {path}: {error.strerror or error}.") from error
    return path


def _existing(name: str) -> Path:
    found = {one.name: one.path for one in list_reports()}
    if name not in found:
        there = ", ".join(list(found)[:10]) or "none"
        raise NotInLibraryError(f"There is no report '{name}'. Reports: {there}.", hint="neuronmap sae list-reports")
    return found[name]


def _entry(path: Path) -> ReportEntry:
    file = path / _FILE
    try:
        about = file.stat()
    except OSError as error:
        return ReportEntry(name=path.name, path=path, problem=f"it cannot be read: {error.strerror or error}")
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, changed: int, size: int) -> ReportEntry:
    """An entry of a file as it was at that time and of that size: a list of reports does not read them all again."""
    del changed, size
    try:
        document = read_json(path / _FILE)
        return ReportEntry(
            name=path.name,
            path=path,
            model=str(document["model"]["name"]),
            created=str(document["created"]),
            preset=str(document["preset"]),
            concepts=tuple(str(one["concept"]["name"]) for one in document["concepts"]),
            prompts=len(document["trajectories"]),
            flow=document["flow"] is not None,
            verdicts=dict(Counter(str(one["summary"]["verdict"]) for one in document["concepts"])),
        )
    except (DamagedError, KeyError, OSError, TypeError) as error:
        return ReportEntry(name=path.name, path=path, problem=f"it cannot be read: {error}")
