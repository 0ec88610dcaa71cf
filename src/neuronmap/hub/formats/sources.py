"""From what a person types to a folder or file on this machine.

./folder, ./file                     as it is
hf://owner/repo[/sub][@revision]     a snapshot of the Hugging Face hub; the commit is recorded
owner/repo[/sub][@revision]          the same, where no such path is here

What lies in a zoo (zoo:namespace/name[@version]) is pulled by the rooms above, which hand over what came (neuronmap.jobs.placing).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.errors import DiskSpaceError, InputError, ModelOfflineError
from neuronmap.paths import human_bytes
from neuronmap.progress import Progress

__all__ = ["Fetched", "fetch"]

_HUB = re.compile(
    r"(?:hf://)?(?P<owner>[\w.-]+)/(?P<repo>[\w.-]+)(?:/(?P<inside>[^@]+?))?/?(?:@(?P<revision>[\w./-]+))?"
)
_LARGE_BYTES = 8 << 30
_WANTED = (
    "*.json",
    "*.yaml",
    "*.yml",
    "*.safetensors",
    "*.npz",
    "*.pt",
    "*.pth",
    "*.bin",
    "*.jsonl",
    "*.gz",
    "README.md",
)


class Fetched(NamedTuple):
    """A source that is here now.

    Attributes:
        path: a folder or a file.
        origin: how the source is called, without a machine's own folders.
        revision: commit of a hub repository, digest of an artefact.
        title: what the SAE is called, where the folder's own name says nothing; else empty.
        artefact: of something pulled from a zoo, what its ``origin`` says from then on.
    """

    path: Path
    origin: str
    revision: str | None = None
    title: str = ""
    artefact: Mapping[str, Any] | None = None


def fetch(source: str | Path | Fetched, progress: Progress | None = None) -> Fetched:
    """Bring a source to this machine, if it is not there.

    Raises:
        InputError: there is no such path, repository, revision or folder in it.
        ModelOfflineError: the hub is needed and cannot be reached.
    """
    if isinstance(source, Fetched):
        return source
    text = str(source)
    if text.startswith("zoo:"):
        raise InputError(
            f"{text} lies in a zoo, and this function reads folders and repositories.",
            hint="neuronmap sae import and sae convert take it; in Python, neuronmap.zoo.Zoo().pull() brings it to a folder.",
        )
    local = Path(text).expanduser()
    if not text.startswith("hf://") and local.exists():
        return Fetched(local, local.name)
    match = _HUB.fullmatch(text)
    if not text.startswith("hf://") and (isinstance(source, Path) or text.startswith((".", "/", "~"))):
        raise InputError(f"{text} does not exist.")
    if match is None:
        raise InputError(
            f"{text} is neither a folder or file here nor a repository.",
            hint="Repositories are written as hf://owner/repo, hf://owner/repo/folder or hf://owner/repo@revision.",
        )
    return _from_hub(text, f"{match['owner']}/{match['repo']}", match["inside"], match["revision"], progress)


def _from_hub(text: str, repo: str, inside: str | None, revision: str | None, progress: Progress | None) -> Fetched:
    from huggingface_hub import errors, snapshot_download

    patterns = [f"{inside}/{end}" for end in _WANTED] + [f"{inside}"] if inside else list(_WANTED)
    if inside:  # what describes a folder may lie beside it or above it
        patterns += [f"{parent}/{end}" for parent in _parents(inside) for end in ("*.json", "*.yaml")] + [
            "*.json",
            "*.yaml",
        ]
    if progress is not None:
        progress.note(
            f"Fetching {repo}{f'/{inside}' if inside else ''} from the Hugging Face hub, unless it is in its cache."
        )
    _refuse_large(repo, revision, inside, patterns)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo} is gated: its owner wants a licence accepted.",
            hint=f"Accept it at https://huggingface.co/{repo}, then run `hf auth login` or set HF_TOKEN.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo} has no revision '{revision}'.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"There is no '{text}': no such path here, and no such repository on the hub that this account can see.",
        ) from error
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # the HTTP client's base class
        if isinstance(error, OSError) and error.errno == 28:
            raise DiskSpaceError(f"No space left while downloading {repo}.") from error
        first = str(error).partition("\n")[0][:200]
        raise ModelOfflineError(
            f"{repo} is not in this machine's cache, and the Hugging Face hub cannot be reached ({type(error).__name__}: {first}).",
            hint="Connect to the internet (and unset HF_HUB_OFFLINE), or give a local folder.",
        ) from error
    found = folder / inside if inside else folder
    if not found.exists():
        raise InputError(
            f"{repo} has no '{inside}' at commit {folder.name}.",
            hint="Import the repository without it to list what there is.",
        )
    return Fetched(found, f"hf://{repo}{f'/{inside}' if inside else ''}", folder.name)


def _refuse_large(repo: str, revision: str | None, inside: str | None, patterns: list[str]) -> None:
    """Refuse to download a whole collection where a folder of it is meant; what the hub does not tell is not checked.

    Raises:
        InputError: says how much it is, and which folders there are.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.hf_api import RepoFile

    try:
        listed = list(HfApi().list_repo_tree(repo, revision=revision, recursive=True))
    except (OSError, ValueError, errors.HTTPError):  # type: ignore[attr-defined]  # the download itself says what is wrong
        return
    sizes = {one.path: one.size for one in listed if isinstance(one, RepoFile)}
    total = sum(size for name, size in sizes.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
    if total <= _LARGE_BYTES:
        return
    depth = len(inside.split("/")) if inside else 0
    folders = sorted(
        {name.split("/")[depth] for name in sizes if name.count("/") > depth and name.startswith(inside or "")}
    )
    shown = ", ".join(folders[:8]) + (f" and {len(folders) - 8} more" if len(folders) > 8 else "")
    raise InputError(
        f"{repo}{f'/{inside}' if inside else ''} has {human_bytes(total)} of files, more than the {human_bytes(_LARGE_BYTES)} that are "
        f"fetched at once. It has the folders {shown or 'none'}.",
        hint=f"Name one: hf://{repo}/{f'{inside}/' if inside else ''}{folders[0] if folders else 'FOLDER'}",
    )


def _parents(inside: str) -> list[str]:
    parts = inside.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
