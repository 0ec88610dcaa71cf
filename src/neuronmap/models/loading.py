"""Loading a language model or its tokenizer from the hub, a folder, a GGUF file or a sample package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, ModelFormatError, ModelNotFoundError
from neuronmap.models.gguf import dequantised_folder
from neuronmap.models.identity import folder_digest
from neuronmap.models.language_model import LanguageModel
from neuronmap.models.placement import check_memory, choose_device, choose_dtype, memory_errors
from neuronmap.models.quiet import quiet_libraries
from neuronmap.models.remote import fetch_from_hub
from neuronmap.models.samples import get_sample, near_samples
from neuronmap.models.tuned import tuned_for
from neuronmap.models.weights import read_stored_weights
from neuronmap.paths import human_bytes
from neuronmap.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load_model", "load_tokenizer"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
# What transformers raises for configurations, weights and tokenizers it cannot use.
_READING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, NotImplementedError)


@dataclass(frozen=True)
class _Located:
    """A model on this machine.

    Attributes:
        name: what the user called it.
        folder: an ordinary Hugging Face model folder.
        revision: the hub commit, if it is from the hub.
        digest: digest of the GGUF file it was made from; None for a folder, whose files are digested when loaded.
    """

    name: str
    folder: Path
    revision: str | None = None
    digest: str | None = None


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    measured_settings: bool = True,
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a language model. Nothing in a model is run as code, and no pickle is opened.

    Args:
        source: in this order: a sample name (``smollm2-135m``), a local folder or GGUF file, a hub id.
        revision: branch, tag or commit on the hub; only with a hub id.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: as measured by ``neuronmap doctor --tune``, else
            float32 on a CPU, as stored elsewhere.
        device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``: CUDA, else Apple GPU, else CPU.
        measured_settings: use what ``neuronmap doctor --tune`` found: precision (where ``dtype`` is ``auto``), attention, and
            CPU threads (where neither the program nor OMP_NUM_THREADS chose them).
        progress: where to say what is done; the terminal when None.

    Raises:
        ModelNotFoundError: no such sample, file, folder, hub id or revision.
        ModelOfflineError: it is not on this machine and the hub cannot be reached.
        ModelGatedError: the hub wants a licence accepted or a token.
        ModelFormatError: the files are not a language model that can be read.
        MemoryExhaustedError: it does not fit.
        DamagedError: the file of measured settings cannot be read.
        ConfigError: ``dtype``, ``device`` or ``revision`` cannot be used.

    Example:
        >>> model = load_model("smollm2-135m")                             # doctest: +SKIP
        >>> model.num_layers, model.hidden_size
        (30, 576)
    """
    progress = progress or progress_module.default()
    target, why_device = choose_device(device)
    tuned = tuned_for(target) if measured_settings else None
    choose_dtype(dtype, target, None, tuned)  # a wrong value is refused before anything is fetched
    located = _locate(source, revision, weights=True, progress=progress)
    config = _read_config(located)
    auto_class = _auto_class(config, located)
    stored = read_stored_weights(located.folder)
    chosen, why_dtype = choose_dtype(dtype, target, stored.dtype, tuned)
    reasons = "; ".join(reason for reason in (why_device, why_dtype) if reason)
    needed = stored.parameters * chosen.itemsize
    progress.note(
        f"Loading {located.name}: {_human_count(stored.parameters)} values, {human_bytes(needed)}, "
        f"{str(chosen).removeprefix('torch.')} on {target}" + (f" ({reasons})" if reasons else "")
    )
    check_memory(target, needed, f"Model '{located.name}'")
    if tuned is not None and tuned.set_threads():
        progress.note(f"Using {tuned.threads} CPU threads, measured fastest here on {tuned.measured}.")
    # Only "eager" is said: every model has it, while a model without "sdpa" would refuse that word.
    attention = "eager" if tuned is not None and tuned.attention == "eager" else None
    with memory_errors(target, needed, f"Model '{located.name}'"):
        module = _read_module(located, auto_class, config, chosen, target, attention)
        tokenizer = _read_tokenizer(located)
        if tokenizer is None:
            progress.note(f"{located.name} has no tokenizer files: it can be run on token ids only.")
        return LanguageModel(
            module,
            tokenizer,
            name=located.name,
            revision=located.revision,
            model_digest=located.digest or folder_digest(located.folder, stored.files),
        )


def load_tokenizer(
    source: str | Path, *, revision: str | None = None, progress: Progress | None = None
) -> PreTrainedTokenizerBase:
    """Load only a model's tokenizer; no weights are fetched or read (a GGUF is dequantised once, as for the model).

    Args:
        source: as for :func:`load_model`.
        revision: as for :func:`load_model`.
        progress: where to say what is done; the terminal when None.

    Raises:
        ModelFormatError: if there are no tokenizer files, or they cannot be read.
        ModelNotFoundError, ModelOfflineError, ModelGatedError, ConfigError: as for :func:`load_model`.
    """
    located = _locate(source, revision, weights=False, progress=progress or progress_module.default())
    tokenizer = _read_tokenizer(located)
    if tokenizer is None:
        raise ModelFormatError(
            f"{located.name} has no tokenizer files ({', '.join(_TOKENIZER_FILES)}).",
            hint="Add the files of the tokenizer it was trained with.",
        )
    return tokenizer


def _locate(source: str | Path, revision: str | None, *, weights: bool, progress: Progress) -> _Located:
    name = os.fspath(source)
    sample = get_sample(name)
    path = sample.require() if sample else Path(name).expanduser()
    on_hub = not sample and not path.exists()
    if revision is not None and not on_hub:
        raise ConfigError(f"revision = {revision!r} goes with a hub id only; '{name}' is on this machine.")
    if on_hub:
        looks_like_path = isinstance(source, Path) or name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf")
        if looks_like_path or not name:
            raise ModelNotFoundError(f"There is no model folder or GGUF file '{name}'.", hint=near_samples(name))
        folder, commit = fetch_from_hub(name, revision, weights=weights, progress=progress)
        return _Located(name, folder, revision=commit)
    if path.is_dir():
        return _Located(name, path)
    folder, digest = dequantised_folder(path, progress)
    return _Located(name, folder, digest=digest)


def _human_count(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1e6:,.{0 if count >= 10_000_000 else 1}f} M"
    return f"{count / 1e3:,.0f} k" if count >= 1000 else str(count)


def _format_error(located: _Located, what: str, error: BaseException) -> ModelFormatError:
    reason = " ".join(str(error).split())[:400] or type(error).__name__
    hint = f"Delete {located.folder}; it will be made again from the GGUF file." if located.digest else ""
    return ModelFormatError(f"{what} of '{located.name}' cannot be read: {reason}", hint=hint)


def _read_config(located: _Located) -> PretrainedConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (located.folder / "config.json").is_file():
        raise ModelFormatError(
            f"'{located.name}' is not a model folder: it has no config.json.",
            hint="Give the folder that holds config.json and model.safetensors.",
        )
    try:
        with quiet_libraries():
            config: PretrainedConfig = AutoConfig.from_pretrained(located.folder, trust_remote_code=False)
    except (*_READING_ERRORS, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise ModelFormatError(
                f"'{located.name}' needs code from its own repository to run, and NeuronMap never runs that.",
                hint="Use a model whose architecture transformers has built in.",
            ) from error
        raise _format_error(located, "The configuration (config.json)", error) from error
    return config


def _auto_class(config: PretrainedConfig, located: _Located) -> Any:
    """The transformers class to load with: what ``architectures`` in the configuration says.

    Raises:
        ModelFormatError: if it is not a decoder-only or encoder-only language model.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.models.auto import modeling_auto as auto

    kind = str(config.model_type)
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if getattr(config, "is_encoder_decoder", False):
        raise ModelFormatError(
            f"'{located.name}' ({architecture or kind}) is an encoder-decoder; NeuronMap works on decoder-only and "
            "encoder-only language models."
        )
    causal = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if not getattr(config.get_text_config(), "vocab_size", None):
        raise ModelFormatError(
            f"'{located.name}' ({architecture or kind}) is not a language model: its configuration has no vocabulary."
        )
    if architecture == causal or (not architecture and causal):
        return AutoModelForCausalLM
    if architecture and architecture == auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(kind):
        return AutoModelForMaskedLM
    if architecture == auto.MODEL_MAPPING_NAMES.get(kind):
        return AutoModel
    # Another head on a known body (classification, question answering): the body is what we look into.
    return AutoModelForCausalLM if architecture.endswith("ForCausalLM") and causal else AutoModel


def _read_module(
    located: _Located,
    auto_class: Any,
    config: PretrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None,
) -> PreTrainedModel:
    from safetensors import SafetensorError

    try:
        with quiet_libraries():
            module, info = auto_class.from_pretrained(
                located.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named and refused below
                **({} if device.type == "cpu" else {"device_map": {"": device}}),
                **({} if attention is None else {"attn_implementation": attention}),
            )
    except (*_READING_ERRORS, SafetensorError) as error:
        raise _format_error(located, "The weights", error) from error
    if info["mismatched_keys"]:
        raise _other_shapes(located, type(module).__name__, info["mismatched_keys"])
    # A pooler on top of an encoder takes no part in the blocks, and many checkpoints come without it.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelFormatError(
            f"The weights of '{located.name}' do not fit its configuration ({type(module).__name__}): "
            f"{len(missing)} are missing, such as {', '.join(missing[:3])}.",
            hint="Check that config.json and the weights are of the same model.",
        )
    loaded: PreTrainedModel = module
    return loaded


def _other_shapes(
    located: _Located, architecture: str, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]
) -> ModelFormatError:
    """From what transformers found: (name, stored shape, shape by the configuration)."""
    found = sorted((name, list(stored), list(wanted)) for name, stored, wanted in mismatched)
    shown = "; ".join(f"{name} is {stored}, should be {wanted}" for name, stored, wanted in found[:3])
    return ModelFormatError(
        f"The weights of '{located.name}' do not fit its configuration ({architecture}): {len(found)} have another "
        f"shape: {shown}{'; ...' if len(found) > 3 else ''}.",
        hint="Check that config.json and the weights are of the same model.",
    )


def _read_tokenizer(located: _Located) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer

    if not any((located.folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        with quiet_libraries():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except _READING_ERRORS as error:
        raise _format_error(located, "The tokenizer", error) from error
    return tokenizer
