"""Checkpoints: everything a run needs to go on bit for bit, as safetensors and JSON.

    <run>/checkpoints/step-00000500/state.safetensors   weights, buffers, Adam moments, dead counters, RNG states
                                    state.json          step, data position, digests, versions

A checkpoint folder appears whole or not at all (it is filled aside and renamed). Where several processes hold the state, rank 0 puts the
parts that they send in their places of the file, and each reads from it the parts that it holds.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap.errors import DamagedError, DiskSpaceError
from neuronmap.hashing import digest_file
from neuronmap.paths import check_disk_space, read_json, staging_folder, write_json
from neuronmap.training.parallel.pieces import Part, Place, bring_together
from neuronmap.training.parallel.team import Team
from neuronmap.training.parallel.tensor_file import TensorFile

__all__ = [
    "FORMAT",
    "drop_checkpoint",
    "gather_checkpoint",
    "has_checkpoint",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "save_checkpoint",
]

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
    shutil.rmtree(_folder_of(folder, step), ignore_errors=True)


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step and remove all but the newest ``keep``.

    Raises:
        DiskSpaceError: before writing, when it does not fit; older checkpoints stay.
    """
    target = _folder_of(folder, step)
    if target.exists():
        return target  # the same step of the same run: the same content
    check_disk_space(
        folder, sum(t.numel() * t.element_size() for t in tensors.values()), "Checkpoints", reserve=64 << 20
    )
    with _disk_errors(folder), staging_folder(target) as staging:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging / "state.safetensors")
        _describe(staging, step, state)
    _drop_old(folder, keep)
    return target


def has_checkpoint(folder: Path, step: int) -> bool:
    """Whether there is a checkpoint of a step."""
    return _folder_of(folder, step).exists()


def gather_checkpoint(
    folder: Path, step: int, team: Team, parts: Mapping[str, Part], state: dict[str, Any], keep: int
) -> None:
    """Write the checkpoint of a step whose state lies on several processes, each of which calls this.

    Args:
        folder, step, state, keep: as for :func:`save_checkpoint`; those of rank 0 count.
        team: the processes.
        parts: what this one gives.

    Raises:
        DiskSpaceError: on rank 0, before anything is sent, when it does not fit; NeuronMapError then on the others.
    """
    if not team.leads:
        for _ in bring_together(team, parts, lambda _: None):
            pass
        team.from_first(lambda: None)
        return
    with _disk_errors(folder), staging_folder(_folder_of(folder, step)) as staging:
        file = TensorFile(staging / "state.safetensors")

        def begin(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
            check_disk_space(folder, file.size_of(tensors), "Checkpoints", reserve=64 << 20)
            file.begin(tensors)

        for name, place, tensor in bring_together(team, parts, begin):
            file.put(name, place.index, tensor)
        file.close()
        _describe(staging, step, state)
    _drop_old(folder, keep)
    team.from_first(lambda: None)  # others go on when the file is there: they are patient here only


def _folder_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _describe(staging: Path, step: int, state: dict[str, Any]) -> None:
    digest = digest_file(staging / "state.safetensors")
    write_json(staging / "state.json", {"format": FORMAT, "step": step, "weights_digest": digest, **state})


def _drop_old(folder: Path, keep: int) -> None:
    for _, old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if "No space left" in str(error):
            raise DiskSpaceError(
                f"No space left for a checkpoint in {folder}.", hint="Free disk space, then resume."
            ) from error
        raise


def load_checkpoint(
    path: Path, device: str, place: Callable[[str], Place] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify a checkpoint.

    Args:
        path: its folder.
        device: where the tensors are to lie.
        place: which part of each tensor to read; all of every tensor when left out.

    Raises:
        DamagedError: for missing files, a wrong digest or another format version.
    """
    try:
        state: dict[str, Any] = read_json(path / "state.json")
        if state.get("format") != FORMAT:
            raise DamagedError(f"{path} has checkpoint format {state.get('format')!r}; this version reads {FORMAT}.")
        if digest_file(path / "state.safetensors") != state["weights_digest"]:
            raise DamagedError(f"{path / 'state.safetensors'} does not match its digest: the file is damaged.")
        if place is None:
            return load_file(path / "state.safetensors", device=device), state
        with safe_open(path / "state.safetensors", framework="pt", device=device) as file:
            indices = {name: place(name).index for name in file.keys()}  # noqa: SIM118 (it is no dict)
            read = {
                name: file.get_slice(name)[index] if index else file.get_tensor(name) for name, index in indices.items()
            }
        return read, state
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is not a complete checkpoint: {error.filename} is missing.") from None
    except SafetensorError as error:
        raise DamagedError(f"{path / 'state.safetensors'} cannot be read: {error}.") from None
