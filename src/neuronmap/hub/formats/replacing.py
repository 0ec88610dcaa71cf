"""Where an export may write: into a folder that is new, empty, or made by an export before. Everything else is left alone.

.neuronmap-export.json    names the files that an export wrote; a folder without it, or with other files, is somebody's own
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import AlreadyExistsError, DamagedError, InputError

__all__ = ["MARKER", "checked_target", "filled"]

MARKER = ".neuronmap-export.json"
_SCHEMA = "neuronmap/export/1"


def checked_target(folder: str | Path, overwrite: bool, sources: Sequence[Path] = ()) -> Path:
    """The folder to be filled, as an absolute path without links.

    Args:
        folder: as it was typed; ``.`` and ``~`` are understood.
        overwrite: whether a folder that an export made may be replaced.
        sources: what is read. A target that is one of them, holds one or lies in one is refused.

    Raises:
        InputError: it is the root, a home folder, or where something is read from.
        AlreadyExistsError: something is there that may not be replaced; says what.
    """
    target = Path(folder).expanduser().resolve()
    for source in (path.resolve() for path in sources):
        if target == source or source in target.parents or target in source.parents:
            where = "is" if target == source else "holds" if target in source.parents else "lies in"
            raise InputError(
                f"{target} {where} {'what is read' if target == source else f'{source}, which is read'}; it is left alone.",
                hint="Write into a folder beside it.",
            )
    kept = (Path.home().resolve(), paths.home().resolve())
    if target.parent == target or any(target == one or target in one.parents for one in kept):
        raise InputError(
            f"{target} holds more than an export; it is left alone.", hint="Write into a folder of its own below it."
        )
    if not target.exists():
        return target
    if not target.is_dir():
        raise AlreadyExistsError(f"{target} is a file; it is left alone.", hint="Give another folder.")
    if any(target.iterdir()):
        _check_replaceable(target, overwrite)
    return target


def _check_replaceable(target: Path, overwrite: bool) -> None:
    if not overwrite:
        raise AlreadyExistsError(f"{target} exists already.", hint="Choose another folder, or --overwrite it.")
    here = Path.cwd()
    if target == here or target in here.parents:
        raise AlreadyExistsError(
            f"{target} is the folder you are in, and not empty; it is not replaced.",
            hint="Go to another folder, or write into one below this one.",
        )
    own = _marked(target)
    if own is None:
        raise AlreadyExistsError(
            f"{target} was not made by an export, so --overwrite leaves it alone.",
            hint="Choose another folder, or remove this one yourself.",
        )
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_symlink() or not path.is_dir()}
    others = sorted(found - own - {MARKER})
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5:,} more" if len(others) > 5 else "")
        raise AlreadyExistsError(
            f"{target} holds what no export wrote, so it is left alone: {shown}.",
            hint="Move these files away, or choose another folder.",
        )


def _marked(target: Path) -> set[str] | None:
    """Names of the files that an export wrote there; None where it was none."""
    marker = target / MARKER
    if marker.is_symlink() or not marker.is_file():
        return None
    try:
        found: Any = paths.read_json(marker)
    except DamagedError:
        return None
    files = found.get("files") if isinstance(found, dict) and found.get("schema") == _SCHEMA else None
    return {str(file) for file in files} if isinstance(files, list) else None


def _mark(folder: Path, format: str) -> None:
    """Leave the names of all files below a finished export, so that ``--overwrite`` knows it again."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    paths.write_json(folder / MARKER, {"schema": _SCHEMA, "format": format, "files": files})


@contextmanager
def filled(target: Path, format: str) -> Iterator[Path]:
    """A folder aside to be filled; what is in it takes its place at the end. A target that is there and empty is kept and filled
    (it may be the folder somebody is in, or a mounted disk); another one is replaced.

    Args:
        target: from :func:`checked_target`.
        format: for the marker.

    Raises:
        UnwritablePathError: the system refuses.
    """
    empty = target.is_dir() and not any(target.iterdir())
    made = (target if empty else target.parent) / f".neuronmap-{uuid.uuid4().hex}"
    with paths.staging_folder(made) as staging:
        yield staging
        _mark(staging, format)
    if not empty:
        paths.replace_folder(made, target)
        return
    for child in sorted(made.iterdir(), key=lambda path: path.name == MARKER):
        child.rename(target / child.name)
    made.rmdir()
