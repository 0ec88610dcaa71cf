"""A repository for the Hugging Face hub: bundles that SAELens and NeuronMap open, one card, and the upload.

README.md                                      card with front matter: library_name saelens, licence, tags, base model
<name>/cfg.json, sae_weights.safetensors, ...  one bundle a folder; a single SAE lies in a folder too, as SAELens expects
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import ConfigError, InputError, ModelGatedError, ModelOfflineError
from neuronmap.features.export.records import public_name
from neuronmap.hub.formats.format import Exported
from neuronmap.hub.formats.replacing import MARKER
from neuronmap.hub.names import slug

__all__ = ["Card", "push_repository", "write_repository"]

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Card:
    """What a person must say for a repository.

    Attributes:
        licence: identifier as the hub lists it (``apache-2.0``, ``cc-by-4.0``, ``other``).
        title: heading; made from the model's name when empty.
        description: a paragraph under it.
    """

    licence: str
    title: str = ""
    description: str = ""

    def check(self) -> None:
        """Refuse a missing or misspelt licence.

        Raises:
            ConfigError: says what is allowed.
        """
        if not _LICENCE.fullmatch(self.licence):
            raise ConfigError(
                f"A repository needs a licence, as the hub spells it; got {self.licence!r}.",
                hint="For example --licence apache-2.0, mit, cc-by-4.0, or other.",
            )


def write_repository(items: Sequence[Exported], names: Sequence[str], folder: Path, card: Card) -> list[Path]:
    """Write bundles and card into a folder that is empty.

    Raises:
        ConfigError: the card has no licence.
    """
    from neuronmap.saes import save_bundle
    from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE

    card.check()
    written: list[Path] = []
    rows: list[tuple[str, Exported]] = []
    for item, name in zip(items, names, strict=True):
        inside = _folder_name(item, name, {row[0] for row in rows})
        save_bundle(item.sae, folder / inside, item.metadata, metrics=item.metrics)
        written += [folder / inside / file for file in (CONFIG_FILE, WEIGHTS_FILE, "README.md")]
        rows.append((inside, item))
    paths.write_bytes(folder / "README.md", _card(rows, card).encode())
    return [folder / "README.md", *written]


def push_repository(folder: Path, repo: str, *, private: bool = False, message: str = "SAEs from NeuronMap") -> str:
    """Upload a folder; the repository is made if it is not there.

    Args:
        folder: from :func:`write_repository`.
        repo: ``owner/name``.
        private: for a new repository.
        message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        InputError: ``repo`` cannot be one, or the folder has no card.
        ModelGatedError: this machine's account may not write there.
        ModelOfflineError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    if not _REPO.fullmatch(repo):
        raise InputError(f"{repo!r} is not a repository's name; it is owner/name.")
    if not (folder / "README.md").is_file():
        raise InputError(f"{folder} has no README.md; write it with the format huggingface first.")
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=[MARKER])
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403, 404):
            raise ModelGatedError(
                f"The hub does not let this machine's account write to {repo} (HTTP {status}).",
                hint="Run `hf auth login` with a token that may write, or set HF_TOKEN.",
            ) from error
        raise ModelOfflineError(f"The hub answered HTTP {status} when {repo} was uploaded.") from error
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # the HTTP client's base class
        first = str(error).partition("\n")[0][:200]
        raise ModelOfflineError(
            f"{repo} cannot be uploaded: {type(error).__name__}: {first}.",
            hint=f"The folder {folder} is ready; push it later.",
        ) from error
    return str(done.commit_url)


def _folder_name(item: Exported, name: str, taken: set[str]) -> str:
    hook = item.metadata.hook or {}
    if hook.get("layer") is not None and hook.get("component"):
        base = f"layer_{hook['layer']}-{slug(str(hook['component']))}"
    else:
        base = slug(name.rsplit("/", 1)[-1])
    number, found = 2, base
    while found in taken:
        found, number = f"{base}-{number}", number + 1
    return found


def _card(rows: Sequence[tuple[str, Exported]], card: Card) -> str:
    models = sorted({public_name((item.metadata.model or {}).get("name")) for _, item in rows} - {""})
    tags = sorted({"sparse-autoencoder", "saelens", "neuronmap", *(item.sae.architecture for _, item in rows)})
    front: dict[str, Any] = {"library_name": "saelens", "license": card.licence, "tags": tags}
    based = [model for model in models if _REPO.fullmatch(model)]
    if based:
        front["base_model"] = based
    title = card.title or f"Sparse autoencoders{' for ' + ', '.join(models) if models else ''}"
    lines = [f"---\n{_yaml(front)}---", "", f"# {title}", ""]
    if card.description:
        lines += [card.description, ""]
    lines += [
        "| folder | architecture | features | hook | explained variance | L0 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for inside, item in rows:
        hook = item.metadata.hook or {}
        figures = (item.metrics or {}).get("summary") or {}
        where = hook.get("name") or " ".join(
            str(part) for part in (hook.get("layer"), hook.get("component")) if part is not None
        )
        shown = [
            f"{figures[key]:.3g}" if isinstance(figures.get(key), int | float) else ""
            for key in ("explained_variance", "l0")
        ]
        lines.append(f"| `{inside}` | {item.sae.architecture} | {item.sae.d_sae:,} | {where} | {' | '.join(shown)} |")
    first = rows[0][0]
    lines += [
        "",
        "Inputs are raw activations: scale, norms and thresholds are folded into the weights. Each folder says more in its own card.",
        "",
        "```python",
        "from sae_lens import SAE",
        "",
        f'sae = SAE.from_pretrained("OWNER/REPOSITORY", "{first}")',
        "```",
        "",
        f"In NeuronMap: `neuronmap sae import hf://OWNER/REPOSITORY/{first}`.",
        "",
    ]
    return "\n".join(lines)


def _yaml(front: dict[str, Any]) -> str:
    lines = []
    for name, value in front.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"- {json.dumps(item)}" for item in value)]  # a JSON string is a YAML string
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines) + "\n"
