"""Checkpoints: everything a run needs to go on bit for bit, as safetensors and JSON.

    <run>/checkpoints/step-00000500/state.safetensors   weights, buffers, Adam moments, dead counters, RNG states
                                    state.json          step, data position, digests, versions

A checkpoint folder appears whole or not at all (it is filled aside and renamed).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap.errors import DamagedError, DiskSpaceError
from neuronmap.hashing import digest_file
from neuronmap.paths import check_disk_space, read_json, staging_folder, write_json

__all__ = ["FORMAT", "drop_checkpoint", "latest_checkpoint", "list_checkpoints", "load_checkpoint", "save_checkpoint"]

FORMAT = 3
_NAME = re.compile(r"step-(\d{8})")


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every complete checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match.group(1)), path) for match, path in found if match)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    checkpoints = list_checkpoints(folder)
    return checkpoints[-1][1] if checkpoints else None


def drop_checkpoint(folder: Path, step: int) -> None:
    """Remove the checkpoint of a step, if there is one."""
    shutil.rmtree(folder / f"step-{step:08d}", ignore_errors=True)


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step and remove all but the newest ``keep``.

    Raises:
        DiskSpaceError: before writing, when it does not fit; older checkpoints stay.
    """
    target = folder / f"step-{step:08d}"
    if target.exists():
        return target  # the same step of the same run: the same content
    check_disk_space(
        folder, sum(t.numel() * t.element_size() for t in tensors.values()), "Checkpoints", reserve=64 << 20
    )
    try:
        with staging_folder(target) as staging:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging / "state.safetensors")
            write_json(
                staging / "state.json",
                {"format": FORMAT, "step": step, "weights_digest": digest_file(staging / "state.safetensors"), **state},
            )
    except (OSError, SafetensorError) as error:
        if "No space left" in str(error):
            raise DiskSpaceError(
                f"No space left for a checkpoint in {folder}.", hint="Free disk space, then resume."
            ) from error
        raise
    for _, old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify a checkpoint.

    Raises:
        DamagedError: for missing files, a wrong digest or another format version.
    """
    try:
        state: dict[str, Any] = read_json(path / "state.json")
        if state.get("format") != FORMAT:
            raise DamagedError(f"{path} has checkpoint format {state.get('format')!r}; this version reads {FORMAT}.")
        if digest_file(path / "state.safetensors") != state["weights_digest"]:
            raise DamagedError(f"{path / 'state.safetensors'} does not match its digest: the file is damaged.")
        return load_file(path / "state.safetensors", device=device), state
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is not a complete checkpoint: {error.filename} is missing.") from None
    except SafetensorError as error:
        raise DamagedError(f"{path / 'state.safetensors'} cannot be read: {error}.") from None
