"""To and from the Hugging Face hub. The commit is pinned, and what was pinned is written down; nothing else is fetched from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap import paths
from neuronmap.errors import InputError, ZooOfflineError
from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE
from neuronmap.zoo.client.location import is_offline
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.packing import Package, pack_folder, pack_sae

__all__ = ["HubSource", "fetch_from_hub", "hub_card", "pack_from_hub", "write_repository"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class HubSource(NamedTuple):
    """A snapshot of a repository.

    Attributes:
        repository: ``owner/repo``.
        commit: the commit, 40 hex digits.
        folder: its files on this machine.
    """

    repository: str
    commit: str
    folder: Path


def fetch_from_hub(
    repository: str,
    revision: str | None = None,
    *,
    inside: str = "",
    kind: str = "model",
    offline: bool | None = None,
) -> HubSource:
    """A repository's files at one commit.

    Offline the hub is not asked: what its cache on this machine holds of the commit (a branch is what it was when it was last fetched) is
    taken, and a snapshot that the cache knows to be incomplete is refused.

    Args:
        repository: ``owner/repo``.
        revision: branch, tag or commit; the default branch when left out.
        inside: folder within it; the rest is not fetched.
        kind: of the repository: ``model`` or ``dataset``.
        offline: as for :class:`~neuronmap.zoo.client.zoo.Zoo`: None for NEURONMAP_OFFLINE.

    Raises:
        InputError: no such repository, revision or folder.
        ZooOfflineError: it is not in this machine's cache, and the hub cannot be reached or must not be asked.
    """
    from huggingface_hub import errors, snapshot_download

    offline = is_offline(offline)
    patterns = [f"{inside.strip('/')}/*"] if inside else None
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, repo_type=kind, allow_patterns=patterns, local_files_only=offline
            )
        )
    except errors.GatedRepoError as error:
        raise InputError(f"{repository} is gated: its owner wants a licence accepted.", hint="hf auth login") from error
    except (errors.RevisionNotFoundError, errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        said = str(error).partition("\n")[0][:200]
        raise InputError(
            f"The hub has no {repository}{f' at {revision}' if revision else ''} to read: {said}"
        ) from error
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # the HTTP client's base class
        said = str(error).partition("\n")[0][:200]
        if offline:
            raise ZooOfflineError(
                f"{repository}{f' at {revision}' if revision else ''} is not whole in the Hugging Face hub's cache on this machine, "
                f"and the hub is not asked: this is offline mode ({said}).",
                hint="Unset NEURONMAP_OFFLINE (or leave --offline out), or publish a local folder.",
            ) from error
        raise ZooOfflineError(
            f"{repository} is not in this machine's cache, and the Hugging Face hub cannot be reached ({said}).",
            hint="Connect to the internet (and unset HF_HUB_OFFLINE), or publish a local folder.",
        ) from error
    if not _COMMIT.fullmatch(folder.name):
        raise InputError(f"The hub gave {folder} for {repository}, which names no commit.")
    found = folder.joinpath(*SafePath(inside.strip("/")).split("/")) if inside else folder
    if not found.is_dir():
        raise InputError(f"{repository} has no folder '{inside}' at {folder.name}.")
    return HubSource(repository, folder.name, found)


def pack_from_hub(source: HubSource, kind: str | None = None, record: Mapping[str, Any] | None = None) -> Package:
    """A snapshot as a package that says where it comes from: ``origin`` in the record, and a tag.

    Args:
        source: the snapshot.
        kind, record: for anything but an SAE as a bundle or in SAELens' format.

    Raises:
        InputError: it is no SAE, and no kind and record are given.
    """
    origin = {"hub": f"hf://{source.repository}", "commit": source.commit}
    if record is not None and kind is not None:
        said = dict(record)
        if kind == "DATASET":
            said = {"source": f"hf://{source.repository}@{source.commit}", **said}
        return pack_folder(source.folder, kind, said, leave_out=True)
    if not all((source.folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)):
        inner = sorted(path.parent.relative_to(source.folder).as_posix() for path in source.folder.rglob(WEIGHTS_FILE))
        raise InputError(
            f"{source.repository} at {source.commit[:12]} is no SAE ({CONFIG_FILE} and {WEIGHTS_FILE}).",
            hint=f"Name a folder of it: {', '.join(inner[:8])}."
            if inner
            else "Import it into the library first: neuronmap sae import hf://...",
        )
    return pack_sae(source.folder, origin=origin)


def hub_card(manifest: Manifest, digest: str, body: str) -> str:
    """A card for the hub: front matter from the manifest, then the artefact's own card."""
    record = manifest.record
    base = (record.get("model") or {}).get("name", "")
    plain = re.fullmatch(r"[A-Za-z0-9.+-]+", manifest.licence) and not manifest.licence.startswith("LicenseRef-")
    lines = ["---", f"license: {manifest.licence.lower() if plain else 'other'}"]
    if manifest.kind == "SAE_MODEL":
        lines.append("library_name: saelens")
    if "/" in base:
        lines += ["base_model:", f"- {_quoted(base)}"]
    words = [
        "neuronmap",
        "sparse-autoencoder" if manifest.kind == "SAE_MODEL" else manifest.kind.lower(),
        *manifest.tags,
    ]
    lines += ["tags:", *(f"- {_quoted(word)}" for word in dict.fromkeys(words)), "---", ""]
    if not body.strip():
        body = f"# {manifest.title or manifest.artefact}\n\n{manifest.summary}\n"
    origin = f"\nFrom the NeuronMap zoo: `{manifest.artefact}@{manifest.version}`, `{digest}`.\n"
    if manifest.citation:
        origin += f"\n## Citation\n\n```\n{manifest.citation}\n```\n"
    return "\n".join(lines) + _FRONT.sub("", body).rstrip() + "\n" + origin


def write_repository(folder: Path, manifest: Manifest, digest: str) -> list[Path]:
    """Make a pulled folder a repository for the hub: its card gets front matter.

    Returns:
        Its files.
    """
    file = folder / "README.md"
    body = file.read_text("utf-8") if file.is_file() else ""
    paths.write_bytes(file, hub_card(manifest, digest, body).encode())
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
