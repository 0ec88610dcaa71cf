"""SAELens' files: what they may hold, and how foreign ones become ours (checked against sae-lens 6.54 in ``tests/peers``).

Shapes: D = d_in, F = d_sae.

    SAELens architecture   tensors                                            becomes
    standard               W_enc[D,F] b_enc[F] W_dec[F,D] b_dec[D]            relu
    topk                   the same; rescale_acts_by_decoder_norm is folded   topk
    jumprelu               + threshold[F]                                     jumprelu
    gated                  W_enc W_dec b_dec b_gate[F] b_mag[F] r_mag[F]      gated
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, DamagedError, MismatchError
from neuronmap.saes.metadata import WEIGHTS_FILE, BundleInfo

__all__ = [
    "SAELENS_VERSION",
    "PlainConfig",
    "check_tensors",
    "expected_shapes",
    "fold_foreign",
    "foreign_identity",
    "plain_config",
]

SAELENS_VERSION = "6.54.12"
"""The SAELens whose format we write; without a version of at least 6.0.0 SAELens drops all nested metadata."""

_COMMON = {"W_enc": "DF", "W_dec": "FD", "b_dec": "D"}
_TENSORS = {
    "standard": {**_COMMON, "b_enc": "F"},
    "topk": {**_COMMON, "b_enc": "F"},
    "jumprelu": {**_COMMON, "b_enc": "F", "threshold": "F"},
    "gated": {**_COMMON, "b_gate": "F", "b_mag": "F", "r_mag": "F"},
}
_OUR_NAMES = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}

# TransformerLens hook names; hub SAEs use these or a module path of the Hugging Face model.
_COMPONENTS = {
    "hook_resid_post": "residual",
    "hook_resid_pre": "residual_pre",
    "hook_mlp_out": "mlp",
    "mlp.hook_post": "mlp_hidden",
    "hook_attn_out": "attention",
    "attn.hook_z": "attention_heads",
}


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """What matters of a SAELens ``cfg.json``, whatever its age.

    Attributes:
        architecture: SAELens' name, one of ``standard``, ``topk``, ``jumprelu``, ``gated``.
        our_name: the NeuronMap architecture with the same rule.
        k: for ``topk``.
        rescale: pre-activations are multiplied by the decoder rows' norms (topk).
        subtract_b_dec: the encoder sees x - b_dec.
        metadata: free metadata (model_name, hook_name, ...).
    """

    architecture: str
    our_name: str
    k: int | None
    rescale: bool
    subtract_b_dec: bool
    metadata: dict[str, Any]


def expected_shapes(architecture: str, d_in: int, d_sae: int) -> dict[str, tuple[int, ...]] | None:
    """Tensor names and shapes of a SAELens architecture; None for one that is not in the table (a plug-in's)."""
    if architecture not in _TENSORS:
        return None
    lengths = {"D": d_in, "F": d_sae}
    return {name: tuple(lengths[axis] for axis in axes) for name, axes in _TENSORS[architecture].items()}


def plain_config(info: BundleInfo) -> PlainConfig:
    """Read a configuration that SAELens wrote, also one from before 6.0 (top-level keys, ``activation_fn_str``).

    Raises:
        ConfigError: for an architecture that NeuronMap has no rule for.
        MismatchError: for input normalisation at run time, which cannot be folded into weights.
    """
    config = dict(info.config)
    where = info.folder / "cfg.json"
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not metadata.get("sae_lens_version"):
        config.setdefault("hook_name", config.get("hook_point"))
        names = ("model_name", "hook_name", "hook_head_index", "prepend_bos", "context_size", "dataset_path")
        metadata = {name: config[name] for name in names if config.get(name) is not None}
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    elif architecture == "standard" and activation not in ("relu", None):
        raise ConfigError(f"{where}: activation function {activation!r} has no NeuronMap architecture (relu, topk).")
    if architecture not in _OUR_NAMES:
        raise ConfigError(
            f"{where}: SAELens architecture {architecture!r} cannot be read. Supported: {', '.join(_OUR_NAMES)} "
            "(batchtopk and matryoshka_batchtopk are saved by SAELens as jumprelu).",
            hint="For a training checkpoint, call save_inference_model in SAELens first."
            if "topk" in str(architecture)
            else "",
        )
    normalisation = config.get("normalize_activations")
    if normalisation not in ("none", None, False):
        raise MismatchError(
            f"{where}: normalize_activations is {normalisation!r}. NeuronMap reads SAEs whose input scale is folded into "
            "the weights ('none'); this one would see other inputs than it was trained on.",
            hint="Fold the normalisation in SAELens (fold_activation_norm_scaling_factor), then save it again.",
        )
    if architecture == "topk" and (info.k is None or info.k < 1):
        raise DamagedError(f"{where}: a topk SAE needs a whole k of at least 1, got {config.get('k')!r}.")
    return PlainConfig(
        architecture=architecture,
        our_name=_OUR_NAMES[architecture],
        k=info.k if architecture == "topk" else None,
        rescale=architecture == "topk" and bool(config.get("rescale_acts_by_decoder_norm", False)),
        subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        metadata=metadata,
    )


def check_tensors(folder: Path, architecture: str, d_in: int, d_sae: int, tensors: dict[str, Tensor]) -> None:
    """Refuse missing, extra, misshapen and non-finite tensors.

    Raises:
        DamagedError: lists every fault, with the shapes found and expected.
    """
    faults: list[str] = []
    expected = expected_shapes(architecture, d_in, d_sae)
    if expected is not None:
        faults += [f"{name} is missing" for name in expected if name not in tensors]
        faults += [f"{name} does not belong in a {architecture} SAE" for name in tensors if name not in expected]
        faults += [
            f"{name} has shape {list(tensors[name].shape)} where {list(shape)} is needed (d_in={d_in}, d_sae={d_sae})"
            for name, shape in expected.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ]
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            faults.append(f"{name} holds {bad:,} values that are NaN or infinite")
    if faults:
        raise DamagedError(f"{folder / WEIGHTS_FILE} cannot be used: {'; '.join(faults)}.")


def fold_foreign(plain: PlainConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the same encode and decode under our one rule: b_dec subtracted, decoder norms not applied.

    The sums run in float64; a copy is made only of what changes.
    """
    folded = dict(tensors)
    if plain.rescale:
        # a = topk(pre * |W_dec|) and xhat = (a / |W_dec|) @ W_dec: the norm moves into the encoder, the rows become unit.
        norm_F = torch.linalg.vector_norm(tensors["W_dec"].double(), dim=1)
        folded["W_enc"] = (tensors["W_enc"].double() * norm_F).float()
        folded["b_enc"] = (tensors["b_enc"].double() * norm_F).float()
        folded["W_dec"] = (tensors["W_dec"].double() / norm_F.clamp_min(1e-30).unsqueeze(1)).float()
    if not plain.subtract_b_dec:
        # x @ W + b = (x - b_dec) @ W + (b + b_dec @ W)
        b_dec_D, W_enc_DF = tensors["b_dec"].double(), folded["W_enc"].double()
        if plain.architecture == "gated":
            folded["b_gate"] = (tensors["b_gate"].double() + b_dec_D @ W_enc_DF).float()
            scaled_DF = W_enc_DF * tensors["r_mag"].double().exp()
            folded["b_mag"] = (tensors["b_mag"].double() + b_dec_D @ scaled_DF).float()
        else:
            folded["b_enc"] = (folded["b_enc"].double() + b_dec_D @ W_enc_DF).float()
    return folded


def foreign_identity(metadata: dict[str, Any], d_in: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Model and hook records as far as SAELens' metadata tell; digests are unknown and left out.

    Returns:
        (model, hook), each None when nothing is known.
    """
    name = metadata.get("model_name")
    model = {"name": str(name)} if name else None
    hook_name = metadata.get("hook_name")
    if not hook_name:
        return model, None
    hook_name = str(hook_name)
    number = re.search(r"\.(\d+)(?:\.|$)", hook_name)
    hook: dict[str, Any] = {"name": hook_name, "layer": int(number.group(1)) if number else None, "width": d_in}
    lens = re.fullmatch(r"blocks\.\d+\.(.+)", hook_name)
    if lens:
        hook["component"] = _COMPONENTS.get(lens.group(1))
    else:  # a module path of the Hugging Face model: SAELens takes module outputs only
        hook |= {"module_path": hook_name, "side": "out"}
        hook["component"] = "residual" if number and number.end() == len(hook_name) else None
    return model, hook
