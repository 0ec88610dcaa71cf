"""Where a job's own output lies: ``<home>/jobs/<id>/log.txt``, kept to a size; and which home this is."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Final

from neuronmap import paths
from neuronmap.errors import ConfigError

__all__ = ["LOG_BYTES", "home_id", "job_folder", "log_path", "read_log", "remove_log", "trim_log"]

LOG_BYTES: Final = 4 << 20
"""Size at which a log loses its older half."""

_ID = re.compile(r"[0-9a-f]{8,16}")


def home_id() -> str:
    """An id of this home folder, made when it is first asked for.

    Jobs are run only by supervisors of the home they were submitted in, since that is where their SAEs and runs are. Machines
    that share a home folder (a network disk) share its jobs; servers with folders of their own may share a database.
    """
    file = paths.home() / "jobs" / "home.json"
    if not file.exists():
        paths.new_folder(file.parent)
        made = file.with_name(f".{uuid.uuid4().hex}")
        paths.write_json(made, {"id": uuid.uuid4().hex})
        try:
            os.link(made, file)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return str(paths.read_json(file)["id"])


def job_folder(job: str) -> Path:
    """Folder of a job's own files.

    Raises:
        ConfigError: that cannot be the id of a job.
    """
    if not _ID.fullmatch(job):
        raise ConfigError(f"{job!r} cannot be the id of a job: eight hexadecimal digits are.")
    return paths.home() / "jobs" / job


def log_path(job: str) -> Path:
    """The file with all that a job's processes printed."""
    return job_folder(job) / "log.txt"


def read_log(job: str, *, tail: int | None = None) -> list[str]:
    """Lines of a job's log, oldest first; none if it has not begun, or ran in another home folder.

    Args:
        job: its id.
        tail: only that many last lines.
    """
    file = log_path(job)
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    return lines if tail is None else lines[max(len(lines) - tail, 0) :]


def remove_log(job: str) -> None:
    """Delete a job's own files."""
    shutil.rmtree(job_folder(job), ignore_errors=True)


def trim_log(file: Path, limit: int = LOG_BYTES) -> None:
    """Drop the older half of a log that has grown over the limit, in place: its writers append."""
    if not file.is_file() or file.stat().st_size <= limit:
        return
    with open(file, "r+b") as handle:
        handle.seek(-limit // 2, os.SEEK_END)
        kept = handle.read().partition(b"\n")[2]
        handle.truncate(0)
        handle.seek(0)
        handle.write(b"[older lines were dropped]\n" + kept)
