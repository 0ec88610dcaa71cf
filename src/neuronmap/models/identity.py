"""Who a model is: the record that SAEs, stores and caches keep of it, and the digests in that record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neuronmap.errors import DamagedError, ModelFormatError
from neuronmap.hashing import canonical_json, digest_bytes, digest_file, digest_json, digest_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ModelIdentity", "folder_digest", "module_digest", "tokenizer_digest"]

_VOLATILE_CONFIG = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation")


@dataclass(frozen=True)
class ModelIdentity:
    """What is written down about a model, in JSON types.

    Attributes:
        name: hub id, sample name, or the path the user gave.
        revision: the hub commit, or None for a model that is not from the hub.
        architecture: the class, such as ``LlamaForCausalLM``.
        model_digest: ``sha256:<hex>`` over configuration and weights as stored (file contents, so a hub
            model and a copy of its folder have the same digest).
        tokenizer_digest: ``sha256:<hex>`` over the tokenizer's definition, or None without a tokenizer.
        dtype: the precision it runs in, such as ``float32``.
        hidden_size: width of the residual stream.
        num_layers: number of blocks.
    """

    name: str
    revision: str | None
    architecture: str
    model_digest: str
    tokenizer_digest: str | None
    dtype: str
    hidden_size: int
    num_layers: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_dict` reads it back to an equal object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Raises:
            DamagedError: if a field is missing or unknown.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            different = ", ".join(sorted(expected.symmetric_difference(values)))
            raise DamagedError(f"A stored model identity does not have the expected fields (differs in: {different}).")
        return cls(**values)


def _stored_digest(file: Path) -> str:
    """The SHA-256 of a file, read off its name where the hub's cache names the blob so (saves reading gigabytes)."""
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and len(target.name) == 64:
        return f"sha256:{target.name}"
    return digest_file(target)


def folder_digest(folder: Path, weights: Iterable[Path]) -> str:
    """Digest of a model folder: its ``config.json`` and its weight files, by content.

    Args:
        folder: the model folder.
        weights: the safetensors files that hold the weights.
    """
    parts = [["config.json", digest_file(folder / "config.json")]]
    parts += [[file.name, _stored_digest(file)] for file in sorted(weights)]
    return digest_json(parts)


def _config_json(module: PreTrainedModel) -> str:
    config = json.loads(module.config.to_json_string(use_diff=False))
    for key in _VOLATILE_CONFIG:
        config.pop(key, None)
    return canonical_json(config)


def module_digest(module: PreTrainedModel) -> str:
    """Digest of a model in memory: configuration, and the bytes, dtype and shape of every tensor.

    Reads every weight once (about 1 second a GB); tensors on another device are copied one at a time.

    Raises:
        ModelFormatError: if a weight has no data (the ``meta`` device).
    """
    import torch

    def parts() -> Iterable[bytes]:
        yield _config_json(module).encode()
        for name, tensor in sorted(module.state_dict().items()):
            if tensor.is_meta:
                raise ModelFormatError(f"Weight '{name}' has no data (it is on the 'meta' device).")
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield memoryview(flat.view(torch.uint8).numpy()).tobytes() if flat.numel() else b""

    return digest_parts(parts())


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of a tokenizer's definition: vocabulary, merges, normalisation, templates, special tokens.

    Settings that change with use (truncation, padding) are left out.
    """
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        definition = json.loads(backend.to_str())
        definition.pop("truncation", None)
        definition.pop("padding", None)
    else:
        definition = dict(sorted(tokenizer.get_vocab().items()))
    return digest_bytes(canonical_json([definition, special]).encode())
