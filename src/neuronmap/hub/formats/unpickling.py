"""The one place that opens pickled weights: in a process of its own, where only tensors and plain values come out.

    python -m neuronmap.hub.formats.unpickling FILE FOLDER

A pickle is a program. ``torch.load(weights_only=True)`` runs a small part of it that can build tensors and plain containers
and refuses the rest; should it ever be wrong, the process it runs in has little to do harm with:

    no network        an audit hook refuses sockets, and on Linux the process has a network namespace of its own where allowed
    no other process  the hook refuses to start one
    no writing        outside the folder that it was given
    no second pickle  Python's own unpickler is refused
    limits            on address space, written bytes, processor seconds; core dumps are off

What it leaves in FOLDER (mode 0700): ``tensors.safetensors``, and ``values.json`` with the plain values beside them. Nested
names are joined by ``/``. The file's digest is taken before and after, and that of what was written again before it is read
(docs/decisions/0012-reading-pickled-weights.md).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neuronmap import paths
from neuronmap.errors import DamagedError, InputError, WorkerLostError
from neuronmap.hashing import digest_file
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Unpickled", "save_plain", "unpickled"]

TENSORS, VALUES = "tensors.safetensors", "values.json"
_REFUSED = 3
"""Exit status of the child for a file that is more than tensors and plain values."""
_DAMAGED = 4
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file of torch.save before 1.6, and of the old form since; the new form is a zip."""
_MOST_NAMES = 100_000
_SPARE_BYTES = 1 << 30
_SECONDS = 600.0
_SECONDS_A_GIB = 60.0
_FORBIDDEN_EVENTS = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.putenv",
    "os.kill",
    "os.truncate",
    "pickle.",
    "pty.",
    "shutil.",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
    "webbrowser.",
    "code.",
    "ctypes.dlopen",
)


class Unpickled(NamedTuple):
    """What came out of a pickled file.

    Attributes:
        folder: holds ``tensors.safetensors``; it goes when the block is left.
        values: plain values by name, nested as in the file.
        digest: SHA-256 of the pickled file.
    """

    folder: Path
    values: dict[str, Any]
    digest: str


@contextmanager
def unpickled(file: Path, progress: Progress | None = None) -> Iterator[Unpickled]:
    """Convert a pickled file in a process of its own.

    Args:
        file: ``.pt``, ``.pth``, ``.bin``, ``.ckpt``.
        progress: where the warning goes.

    Raises:
        InputError: it holds more than tensors and plain values; it is refused.
        DamagedError: it cannot be read, or changed while it was.
        WorkerLostError: the process died (of a limit, most likely) or took too long.
    """
    size = file.stat().st_size
    if progress is not None:
        progress.note(
            f"{file.name} is a pickle ({paths.human_bytes(size)}), a format that can carry programs. It is opened in a process "
            "of its own that builds tensors and plain values only, without network and with limits; the library gets "
            "safetensors."
        )
    before = digest_file(file)
    with tempfile.TemporaryDirectory(prefix="neuronmap-unpickling-") as name:
        folder = Path(name)
        folder.chmod(0o700)
        record = _run_child(file.resolve(), folder, _SECONDS + _SECONDS_A_GIB * size / (1 << 30))
        if digest_file(file) != before:
            raise DamagedError(f"{file} changed while it was read.", hint="Import it again once nothing writes to it.")
        for written, digest in record["files"].items():
            if digest_file(folder / written) != digest:
                raise DamagedError(f"What was converted from {file} changed before it was read.")
        yield Unpickled(folder, json.loads((folder / VALUES).read_text(encoding="utf-8")), before)


def save_plain(values: Mapping[str, Any], file: Path) -> None:
    """Write tensors and plain values as a ``.pt`` that ``torch.load(weights_only=True)`` opens, for libraries that read nothing else."""
    import torch

    torch.save(dict(values), file)


def _run_child(file: Path, folder: Path, seconds: float) -> dict[str, Any]:
    environment = {
        name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ
    }
    environment |= {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-P", "-m", "neuronmap.hub.formats.unpickling", str(file), str(folder)]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=folder, check=False,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise WorkerLostError(f"Opening {file} took more than {seconds:.0f} seconds; it was stopped.") from error
    lines = ran.stdout.strip().splitlines()
    said = _document(lines[-1] if lines else "")
    if ran.returncode == 0 and "files" in said:
        return said
    if ran.returncode == _REFUSED and "reason" in said:
        raise InputError(
            f"{file.name} is not opened: {said['reason']}",
            hint="Have the program that made it save tensors only (a state_dict), best as safetensors.",
        )
    if ran.returncode == _DAMAGED and "reason" in said:
        raise DamagedError(f"{file} cannot be read: {said['reason']}")
    last = (ran.stderr.strip().splitlines() or ["no message"])[-1][:300]
    raise WorkerLostError(
        f"The process that opened {file.name} ended with status {ran.returncode}: {last}",
        hint="It may have met its limit on memory or time; nothing was imported.",
    )


def _document(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- in the child ----------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The file holds what is not taken out."""


def _limit(file: Path) -> None:
    """Bounds on what this process may use from now on; torch is loaded by now, so its own space is counted already."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    size = file.stat().st_size
    with contextlib.suppress(OSError, ValueError, IndexError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 4 * size + _SPARE_BYTES,) * 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + _SPARE_BYTES // 8,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        seconds = int(_SECONDS + _SECONDS_A_GIB * size / (1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _leave_the_network() -> None:
    """A network namespace of its own, with nothing in it; where the system forbids that, the audit hook is what is left."""
    if sys.platform != "linux":
        return
    import ctypes

    new_user, new_net = 0x10000000, 0x40000000
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(new_user | new_net)


def _watch(folder: Path) -> None:
    """Refuse what reading tensors never needs. Audit hooks cannot be taken off again."""
    inside = str(folder.resolve()) + os.sep
    write_flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN_EVENTS):
            raise _Refused(f"it asked for {event}, which reading tensors never needs.")
        if event == "open":
            path, mode, flags = arguments
            writing = bool(isinstance(flags, int) and flags & write_flags) or any(
                sign in str(mode or "") for sign in "wax+"
            )
            if writing and not (
                isinstance(path, str | bytes) and os.path.abspath(os.fsdecode(path)).startswith(inside)
            ):
                raise _Refused(f"it asked to write {path!r}.")

    sys.addaudithook(hook)


def _main(file: Path, folder: Path) -> int:
    import torch
    from safetensors.torch import save_file

    _leave_the_network()
    _limit(file)
    _watch(folder)
    try:
        _check_saved_by_torch(file)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(file, map_location="cpu", weights_only=True)
        tensors: dict[str, Tensor] = {}
        values = _plain(content, "", tensors)
        if not isinstance(values, dict):
            raise _Refused(f"its content is a {type(content).__name__}, not a dictionary of tensors.")
        save_file(tensors, folder / TENSORS)
        (folder / VALUES).write_text(json.dumps(values, allow_nan=False), encoding="utf-8")
    except _Refused as error:
        return _say(_REFUSED, reason=str(error))
    except Exception as error:  # noqa: BLE001  # whatever is wrong with the file, the parent gets one sentence
        return _say(*_sentence(error))
    return _say(0, files={name: digest_file(folder / name) for name in (TENSORS, VALUES)})


def _check_saved_by_torch(file: Path) -> None:
    """Refuse what torch.save did not write, which torch's own messages say badly."""
    with open(file, "rb") as opened:
        head = opened.read(len(_OLD_TORCH))
    if head.startswith(b"PK\x03\x04") or head == _OLD_TORCH:
        return
    if head.startswith(b"\x80"):
        raise _Refused(
            "it is a plain pickle of Python's, not a file of torch.save; opening it would run it as a program."
        )
    what = f"it begins with {head[:8]!r}" if head else "it is empty"
    raise ValueError(f"torch.save did not write it; {what}.")


def _say(status: int, reason: str = "", files: dict[str, str] | None = None) -> int:
    sys.stdout.write("\n" + json.dumps({"reason": reason} if files is None else {"files": files}) + "\n")
    sys.stdout.flush()
    return status


def _sentence(error: Exception) -> tuple[int, str]:
    """Exit status and reason for what torch said."""
    text = " ".join(str(error).split())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _Refused):
            return _REFUSED, str(cause)
        cause = cause.__cause__ or cause.__context__
    if type(error).__name__ == "UnpicklingError" and (
        "GLOBAL" in text or "unsupported" in text.lower() or "weights" in text.lower()
    ):
        named = text.partition("GLOBAL ")[2].partition(" was not")[0]
        number = text.partition("Unsupported operand ")[2].partition(" ")[0]
        what = (
            f"It names {named}, which"
            if named
            else f"It holds the instruction {number} of pickles, which"
            if number
            else "It"
        )
        return _REFUSED, f"it is more than weights (a whole module, say). {what} would run as a program."
    if isinstance(error, ValueError) and text.startswith("torch.save did not"):
        return _DAMAGED, text
    return _DAMAGED, f"{type(error).__name__}: {text[:300]}"


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value without its tensors, which go to ``tensors``; anything but plain values is refused."""
    import torch

    if len(tensors) > _MOST_NAMES or len(name) > 2_000:
        raise _Refused("it holds more names than an SAE has.")
    if isinstance(value, torch.Tensor):
        tensors[name or "tensor"] = _own(value, name)
        return None
    if isinstance(value, Mapping):
        found = {}
        for key, inner in value.items():
            if not isinstance(key, str | int):
                raise _Refused(f"a key of it is a {type(key).__name__}.")
            kept = _plain(inner, f"{name}/{key}" if name else str(key), tensors)
            if kept is not None:
                found[str(key)] = kept
        return found
    if isinstance(value, list | tuple | set):
        return [_plain(inner, f"{name}/{number}", tensors) for number, inner in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    raise _Refused(f"'{name}' is a {type(value).__name__}.")


def _own(tensor: Tensor, name: str) -> Tensor:
    """A dense tensor with memory of its own, as safetensors wants it."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise _Refused(f"'{name}' is not an ordinary dense tensor.")
    return tensor.detach().clone(memory_format=torch.contiguous_format)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
