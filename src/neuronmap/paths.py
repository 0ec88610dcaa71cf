"""Where things lie on this machine, and how to write there without leaving halves.

Everything lives under one home: ``NEURONMAP_HOME`` if set, else the platform's user data folder.

    <home>/library/   SAE bundles          <home>/cache/models/       dequantised GGUF models
    <home>/runs/      training runs        <home>/cache/tokens/       tokenised corpora
    <home>/tuned.json measured settings    <home>/cache/activations/  activation stores
    <home>/jobs.sqlite3  background jobs   <home>/cache/features/     feature passes under way
    <home>/jobs/      logs of jobs         <home>/cache/examples/     texts of examples, to search in
    <home>/reports/   reports of the       <home>/cache/semantic/     vectors of features, to search by meaning
                      abstraction tracker  <home>/cache/concepts/     concepts measured in a model
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import platformdirs

from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError

__all__ = [
    "cache_folder",
    "check_disk_space",
    "home",
    "human_bytes",
    "library_folder",
    "new_file",
    "new_folder",
    "public_name",
    "read_json",
    "replace_folder",
    "require_writable",
    "runs_folder",
    "staging_folder",
    "write_bytes",
    "write_json",
]


def public_name(name: Any) -> str:
    """What a model or a text is called where others read it: of a path on this machine only the last part, in a mixture too."""
    text = str(name or "")
    if text.startswith("mix:"):  # mix:0.7*source,0.3*source;rule (neuronmap.corpora.specs)
        parts = [part.partition("*") for part in text.removeprefix("mix:").split(",")]
        return "mix:" + ",".join(f"{weight}{star}{public_name(source)}" for weight, star, source in parts)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name or text
    return text


def home() -> Path:
    """The folder under which NeuronMap keeps everything (not created here)."""
    chosen = os.environ.get("NEURONMAP_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("neuronmap", appauthor=False))


def library_folder() -> Path:
    """Folder of this machine's SAE bundles."""
    return home() / "library"


def runs_folder() -> Path:
    """Folder of training runs: configuration, history, checkpoints."""
    return home() / "runs"


def cache_folder(kind: str) -> Path:
    """Folder of one cache (``models``, ``tokens``, ``activations``); everything in it can be made again."""
    return home() / "cache" / kind


def human_bytes(count: float) -> str:
    """``1536`` -> ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _existing_parent(path: Path) -> Path:
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path("/")


def require_writable(folder: Path) -> Path:
    """Create ``folder`` if needed and prove that a file can be written in it.

    Raises:
        UnwritablePathError: with the folder and the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        if error.errno == 28:  # ENOSPC
            raise DiskSpaceError(f"No space left to write in {folder}.") from error
        raise UnwritablePathError(
            f"Cannot write in {folder}: {error.strerror or error}.",
            hint="Choose another folder, or set NEURONMAP_HOME to one you can write.",
        ) from error
    return folder


def check_disk_space(folder: Path, needed: int, what: str, reserve: int = 256 << 20) -> int:
    """Refuse early when ``needed`` bytes plus a reserve do not fit.

    Args:
        folder: where the bytes will go (need not exist yet).
        needed: bytes about to be written.
        what: what they are, for the message ("activations of 200,000 tokens").
        reserve: bytes to leave free.

    Returns:
        The free bytes found.

    Raises:
        DiskSpaceError: says need, free and folder.
    """
    free = shutil.disk_usage(_existing_parent(folder)).free
    if needed + reserve > free:
        raise DiskSpaceError(
            f"{what} need {human_bytes(needed)} in {folder}, but only {human_bytes(free)} are free "
            f"(and {human_bytes(reserve)} are kept in reserve).",
            hint="Free disk space (neuronmap cache list), use fewer tokens, or set NEURONMAP_HOME to a larger disk.",
        )
    return free


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file piece by piece so that readers see the old content or the new, never a part (write aside, fsync, rename)."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if error.errno == 28:
            raise DiskSpaceError(f"No space left while writing {path}.") from error
        raise UnwritablePathError(f"Cannot write {path}: {error.strerror or error}.") from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    with new_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, NaN refused."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        DamagedError: if it is not JSON or not UTF-8. A missing file stays a FileNotFoundError.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is not valid JSON: {error}.") from error


def new_folder(path: Path) -> Path:
    """Create a folder and its parents, with our error when the system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritablePathError(
            f"Cannot create {path}: {error.strerror or error}.",
            hint="Choose another folder, or set NEURONMAP_HOME to one you can write.",
        ) from error
    return path


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Fill a folder beside ``target`` and rename it into place at the end: all of it or none of it.

    A killed writer leaves only a hidden ``.staging-*`` folder, which readers ignore. If ``target`` exists
    already (another writer was first) the rename fails with FileExistsError or OSError(ENOTEMPTY) and the
    staging folder is removed.
    """
    new_folder(target.parent)
    staging = target.parent / f".staging-{uuid.uuid4().hex}"
    new_folder(staging)
    try:
        yield staging
        for file in staging.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        os.rename(staging, target)
    finally:
        if staging.exists():
            shutil.rmtree(staging, ignore_errors=True)


def replace_folder(made: Path, target: Path) -> None:
    """Put a finished folder where another may be: readers find the whole old one, for an instant none, then the whole new one."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        if target.exists():
            target.rename(aside)
        made.rename(target)
    except OSError as error:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise UnwritablePathError(f"Cannot write {target}: {error.strerror or error}.") from error
    shutil.rmtree(aside, ignore_errors=True)
