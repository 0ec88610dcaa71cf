"""The one place that talks to the Hugging Face hub, and the translation of its errors into ours."""

from __future__ import annotations

from pathlib import Path

from neuronmap.errors import DiskSpaceError, ModelError, ModelGatedError, ModelNotFoundError, ModelOfflineError
from neuronmap.models.samples import near_samples
from neuronmap.progress import Progress, SilentProgress

__all__ = ["fetch_from_hub"]

_TOKENIZER_FILES = [
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
]
_WEIGHT_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> str:
    """The seam that tests replace. Downloads what is missing and returns the folder in the hub's own cache."""
    from huggingface_hub import snapshot_download

    # Only the top folder: other formats and precisions lie in sub-folders.
    return str(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))


def fetch_from_hub(repo: str, revision: str | None, *, weights: bool, progress: Progress) -> tuple[Path, str]:
    """Make sure a hub model's files are on this machine.

    Only configuration, tokenizer and safetensors weights are fetched, never code or pickles. When the hub cannot be
    reached, what was fetched earlier is used.

    Args:
        repo: hub id, such as ``openai-community/gpt2``.
        revision: branch, tag or commit; None for ``main``.
        weights: whether the weights are wanted, or only the tokenizer.
        progress: where to say what happens.

    Returns:
        The folder with the files, and the commit.

    Raises:
        ModelNotFoundError, ModelGatedError, ModelOfflineError, DiskSpaceError: each with the next step.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars = not are_progress_bars_disabled()
    if isinstance(progress, SilentProgress):
        disable_progress_bars()
    try:
        folder = Path(_snapshot(repo, revision, _TOKENIZER_FILES + (_WEIGHT_FILES if weights else [])))
    except (OSError, ValueError) as error:
        raise _translated(error, repo, revision) from error
    except _transport_errors() as error:
        raise _offline(repo, error) from error
    finally:
        if bars:
            enable_progress_bars()
    return folder, folder.name


def _transport_errors() -> tuple[type[Exception], ...]:
    """Connection failures that come through as the HTTP client's own exceptions, and the hub's own two."""
    from huggingface_hub import errors

    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # the HTTP client's base class
    own = [getattr(errors, name, http_error) for name in ("RevisionResolutionError", "XetDownloadError")]
    return (http_error, *own)


def _offline(repo: str, error: Exception) -> ModelOfflineError:
    first = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return ModelOfflineError(
        f"Model '{repo}' is not on this machine and the Hugging Face hub cannot be reached "
        f"({type(error).__name__}: {first or 'no details'}).",
        hint="Connect to the internet (and unset HF_HUB_OFFLINE), or give a local folder or GGUF file. "
        + near_samples(repo),
    )


def _translated(error: Exception, repo: str, revision: str | None) -> ModelError | DiskSpaceError:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        return ModelGatedError(
            f"Model '{repo}' is gated: its owner wants a licence accepted, and this machine's account has no access.",
            hint=f"Accept the licence at {page}, then run `hf auth login` or set HF_TOKEN.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(
            f"Model '{repo}' has no revision '{revision}' (a branch, a tag or a commit).",
            hint=f"Revisions are listed at {page}/tree/main.",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return ModelNotFoundError(
            f"There is no model '{repo}': no sample, local folder or file of that name, and none on the hub that "
            "this machine's account can see.",
            hint=f"{near_samples(repo)} For a private model run `hf auth login` or set HF_TOKEN.",
        )
    if status in (401, 403):
        return ModelGatedError(
            f"The hub refuses access to model '{repo}' (HTTP {status}).",
            hint=f"See {page}; then run `hf auth login` or set HF_TOKEN.",
        )
    if isinstance(error, OSError) and error.errno == 28:
        return DiskSpaceError(
            f"No space left while downloading '{repo}'.", hint="Free disk space, or set HF_HOME to a larger disk."
        )
    return _offline(repo, error)
