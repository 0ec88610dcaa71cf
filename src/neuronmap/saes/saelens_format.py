"""SAELens' files: what they may hold, and how foreign ones become ours (checked against sae-lens 6.54 in ``tests/peers``).

Shapes: D = d_in, F = d_sae, O = d_out, L hooks, Q = F / bottleneck_factor.

    SAELens architecture       tensors                                               becomes
    standard                   W_enc[D,F] b_enc[F] W_dec[F,D] b_dec[D]               relu
    topk                       the same; rescale_acts_by_decoder_norm is folded      topk
    jumprelu                   + threshold[F]                                        jumprelu
    batchtopk, matryoshka_...  + topk_threshold (checkpoints; else saved as jumprelu) jumprelu
    gated                      W_enc W_dec b_dec b_gate[F] b_mag[F] r_mag[F]         gated
    abstopk                    as topk                                               abstopk
    matching_pursuit           W_dec b_dec                                           matching_pursuit
    [jumprelu_][skip_]transcoder   W_enc b_enc W_dec[F,O] b_dec[O] (threshold[F] W_skip[O,D])   transcoder
    temporal                   W_dec b_dec (W_enc) attn_layers.i.*                   temporal

Three more are NeuronMap's own, which SAELens does not open: ``topk_transcoder`` (and ``topk_skip_transcoder``),
``crosscoder``: W_enc[L,D,F] b_enc[F] W_dec[F,L,D] b_dec[L,D] (threshold[F]), and ``lista``: as jumprelu, + first_threshold[F].

Also read: files from before SAELens 6 (``hook_point``, ``activation_fn_str``, boolean ``normalize_activations``,
``log_threshold``, ``scaling_factor`` of ones), training checkpoints, and any float precision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, DamagedError, MismatchError
from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE, BundleInfo
from neuronmap.saes.normalisation import INPUT_NORMS

__all__ = [
    "SAELENS_ARCHITECTURES",
    "SAELENS_VERSION",
    "PlainConfig",
    "check_tensors",
    "expected_shapes",
    "fold_foreign",
    "foreign_identity",
    "foreign_output",
    "plain_config",
    "runtime_norm",
    "without_leftovers",
]

SAELENS_VERSION = "6.54.12"
"""The SAELens whose format we write; without a version of at least 6.0.0 SAELens drops all nested metadata."""

_COMMON = {"W_enc": "DF", "W_dec": "FD", "b_dec": "D"}
_PLAIN = {**_COMMON, "b_enc": "F"}
_JUMPRELU = {**_PLAIN, "threshold": "F"}
_TRANSCODER = {"W_enc": "DF", "b_enc": "F", "W_dec": "FO", "b_dec": "O"}
_TENSORS = {
    "standard": _PLAIN,
    "topk": _PLAIN,
    "jumprelu": _JUMPRELU,
    "batchtopk": _JUMPRELU,
    "matryoshka_batchtopk": _JUMPRELU,
    "gated": {**_COMMON, "b_gate": "F", "b_mag": "F", "r_mag": "F"},
    "abstopk": _PLAIN,
    "matching_pursuit": {"W_dec": "FD", "b_dec": "D"},
    "transcoder": _TRANSCODER,
    "skip_transcoder": {**_TRANSCODER, "W_skip": "OD"},
    "jumprelu_transcoder": {**_TRANSCODER, "threshold": "F"},
    "jumprelu_skip_transcoder": {**_TRANSCODER, "threshold": "F", "W_skip": "OD"},
    "topk_transcoder": _TRANSCODER,
    "topk_skip_transcoder": {**_TRANSCODER, "W_skip": "OD"},
    "temporal": {"W_dec": "FD", "b_dec": "D"},
    "lista": {**_JUMPRELU, "first_threshold": "F"},
    "crosscoder": {"W_enc": "LDF", "b_enc": "F", "W_dec": "FLD", "b_dec": "LD"},
}
_ATTENTION = {"k_ctx": "Q", "q_target": "Q", "v_ctx": "F", "c_proj": "F"}
_OUR_NAMES = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "gated": "gated",
    "abstopk": "abstopk",
    "matching_pursuit": "matching_pursuit",
    "transcoder": "transcoder",
    "skip_transcoder": "transcoder",
    "jumprelu_transcoder": "transcoder",
    "jumprelu_skip_transcoder": "transcoder",
    "temporal": "temporal",
}
SAELENS_ARCHITECTURES = tuple(_OUR_NAMES)
"""SAELens' names of the architectures that are read."""
_CHECKPOINTS = ("batchtopk", "matryoshka_batchtopk")
_RESCALED = ("topk", "abstopk", *_CHECKPOINTS)
_DEFAULT_D_OUT = 768  # what SAELens takes where cfg.json does not say
_SCALER_FILE = "activation_scaler.json"

# TransformerLens hook names; hub SAEs use these or a module path of the Hugging Face model.
_COMPONENTS = {
    "hook_resid_post": "residual",
    "hook_resid_pre": "residual_pre",
    "hook_mlp_out": "mlp",
    "mlp.hook_out": "mlp",
    "mlp.hook_post": "mlp_hidden",
    "hook_attn_out": "attention",
    "attn.hook_z": "attention_heads",
}


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """What matters of a SAELens ``cfg.json``, whatever its age.

    Attributes:
        architecture: SAELens' name, one of :data:`SAELENS_ARCHITECTURES`.
        our_name: the NeuronMap architecture with the same rule.
        options: of that architecture.
        rescale: pre-activations are multiplied by the decoder rows' norms (the top-k family).
        subtract_b_dec: the encoder sees x - b_dec.
        input_norm: what is done to each row at run time, a rule of :mod:`neuronmap.saes.normalisation`.
        metadata: free metadata (model_name, hook_name, ...).
    """

    architecture: str
    our_name: str
    options: dict[str, Any]
    rescale: bool
    subtract_b_dec: bool
    input_norm: str
    metadata: dict[str, Any]


def plain_config(info: BundleInfo) -> PlainConfig:
    """Read a configuration that SAELens wrote, also one from before 6.0 (top-level keys, ``activation_fn_str``).

    Raises:
        ConfigError: for an architecture that NeuronMap has no rule for.
        MismatchError: for an input scale that is neither in the weights nor a rule of run time.
        DamagedError: for settings that make no sense.
    """
    config = dict(info.config)
    where = info.folder / CONFIG_FILE
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not metadata.get("sae_lens_version"):
        config.setdefault("hook_name", config.get("hook_point"))
        config.setdefault("hook_head_index", config.get("hook_point_head_index"))
        names = (
            "model_name",
            "hook_name",
            "hook_name_out",
            "hook_head_index",
            "prepend_bos",
            "context_size",
            "dataset_path",
        )
        metadata = {name: config[name] for name in names if config.get(name) is not None}
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    elif architecture == "standard" and activation not in ("relu", None):
        raise ConfigError(f"{where}: activation function {activation!r} has no NeuronMap architecture (relu, topk).")
    if architecture not in _OUR_NAMES:
        raise ConfigError(
            f"{where}: SAELens architecture {architecture!r} cannot be read. Supported: {', '.join(_OUR_NAMES)}."
        )
    our_name = _OUR_NAMES[architecture]
    subtract = config.get("apply_b_dec_to_input")
    if our_name == "transcoder" and subtract:
        raise DamagedError(f"{where}: apply_b_dec_to_input is true, but b_dec of a transcoder belongs to another hook.")
    return PlainConfig(
        architecture=architecture,
        our_name=our_name,
        options=_options(info, architecture),
        rescale=architecture in _RESCALED
        and bool(config.get("rescale_acts_by_decoder_norm", architecture in _CHECKPOINTS)),
        subtract_b_dec=our_name != "transcoder" and (True if subtract is None else bool(subtract)),
        input_norm=runtime_norm(info),
        metadata=metadata,
    )


def _options(info: BundleInfo, architecture: str) -> dict[str, Any]:
    """Options of our architecture, from the settings of SAELens'."""
    config = info.config

    def given(*names: str) -> dict[str, Any]:
        return {name: config[name] for name in names if name in config}

    if architecture in ("topk", "abstopk"):
        if info.k is None or info.k < 1:
            raise DamagedError(
                f"{info.folder / CONFIG_FILE}: a {architecture} SAE needs a whole k of at least 1, got {config.get('k')!r}."
            )
        return {"k": info.k}
    if architecture == "matching_pursuit":
        return given("residual_threshold", "max_iterations", "stop_on_duplicate_support")
    if architecture.endswith("transcoder"):
        return {"rule": "jumprelu" if architecture.startswith("jumprelu") else "relu"}
    if architecture == "temporal":
        topk = config.get("sae_diff_type", "topk") == "topk"
        scaled = config.get("normalize_activations") == "constant_scalar_rescale"
        return {
            **given("n_heads", "n_attn_layers", "bottleneck_factor"),
            "k": config.get("kval_topk") if topk else None,
            "tied": config.get("tied_weights", True),
            "subtract_b_dec": config.get("apply_b_dec_to_input", True),
            "input_scale": config.get("activation_normalization_factor", 1.0) if scaled else 1.0,
        }
    return {}


def runtime_norm(info: BundleInfo) -> str:
    """What ``cfg.json`` says is done to each row at run time.

    ``expected_average_only_in`` (``true`` in old files) is a scale that is in the weights of every finished SAE, so it means
    ``none``; only a checkpoint of a run has it beside them.

    Raises:
        MismatchError: for another rule, and for a scale beside the weights.
    """
    rule, where = info.config.get("normalize_activations"), info.folder / CONFIG_FILE
    if rule in INPUT_NORMS:
        return str(rule)
    if rule in (None, False):
        return "none"
    if rule == "constant_scalar_rescale" and info.config.get("architecture") == "temporal":
        return "none"  # an option of the temporal SAE
    scaler = info.folder / _SCALER_FILE
    if rule in ("expected_average_only_in", True) and not _has_scale(scaler):
        return "none"
    beside = (
        f" and its scale lies beside the weights ({_SCALER_FILE})" if rule in ("expected_average_only_in", True) else ""
    )
    raise MismatchError(
        f"{where}: normalize_activations is {rule!r}{beside}. NeuronMap reads SAEs whose input scale is folded into the weights, "
        f"and the rules {', '.join(INPUT_NORMS)}; this one would see other inputs than it was trained on.",
        hint="It is a checkpoint of a run: let SAELens finish it and call save_inference_model.",
    )


def _has_scale(file: Path) -> bool:
    """Whether a run left a scale that is not in the weights."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("scaling_factor") not in (None, 1, 1.0)


def expected_shapes(
    architecture: str, d_in: int, d_sae: int, config: Mapping[str, Any] | None = None
) -> dict[str, tuple[int, ...]] | None:
    """Tensor names and shapes of a SAELens architecture; None for one that is not in the table (a plug-in's).

    Args:
        architecture: the name in ``cfg.json``.
        d_in, d_sae: D and F.
        config: ``cfg.json``, for ``d_out``, ``layers`` and the settings of ``temporal``; what it lacks has SAELens' default.

    Raises:
        ConfigError: for one of those that is not a whole number of at least 1 (``n_attn_layers``: 0).
    """
    if architecture not in _TENSORS:
        return None
    config = config or {}
    axes, lengths = dict(_TENSORS[architecture]), {"D": d_in, "F": d_sae}
    if architecture.endswith("transcoder"):
        lengths["O"] = _whole(config, "d_out", _DEFAULT_D_OUT)
    if architecture == "crosscoder":
        lengths["L"] = _whole(config, "layers", 1)
        axes |= {"threshold": "F"} if config.get("rule") == "jumprelu" else {}
    if architecture == "temporal":
        lengths["Q"] = d_sae // _whole(config, "bottleneck_factor", 64)
        axes |= {} if config.get("tied_weights", True) else {"W_enc": "DF"}
        for layer in range(_whole(config, "n_attn_layers", 1, least=0)):
            for name, width in _ATTENTION.items():
                axes |= {f"attn_layers.{layer}.{name}.weight": f"{width}F", f"attn_layers.{layer}.{name}.bias": width}
    return {name: tuple(lengths[axis] for axis in shape) for name, shape in axes.items()}


def _whole(config: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key} must be a whole number of at least {least}, got {value!r}")
    return value


def check_tensors(
    folder: Path,
    architecture: str,
    d_in: int,
    d_sae: int,
    tensors: dict[str, Tensor],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Refuse missing, extra, misshapen and non-finite tensors.

    Args:
        folder: where they come from, for the message.
        architecture, d_in, d_sae, config: as for :func:`expected_shapes`.
        tensors: by name.

    Raises:
        DamagedError: lists every fault, with the shapes found and expected.
    """
    faults: list[str] = []
    try:
        expected = expected_shapes(architecture, d_in, d_sae, config)
    except ConfigError as error:
        expected, faults = None, [f"{CONFIG_FILE}: {error.message}"]
    if expected is not None:
        sizes = f"d_in={d_in}, d_sae={d_sae}"
        sizes += "".join(f", {key}={config[key]}" for key in ("d_out", "layers") if config and key in config)
        faults += [f"{name} is missing" for name in expected if name not in tensors]
        faults += [f"{name} does not belong in a {architecture} SAE" for name in tensors if name not in expected]
        faults += [
            f"{name} has shape {list(tensors[name].shape)} where {list(shape)} is needed ({sizes})"
            for name, shape in expected.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ]
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            faults.append(f"{name} holds {bad:,} values that are NaN or infinite")
    if faults:
        raise DamagedError(f"{folder / WEIGHTS_FILE} cannot be used: {'; '.join(faults)}.")


def without_leftovers(info: BundleInfo, plain: PlainConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under today's names: what early SAELens and its training form call otherwise, or add.

    Raises:
        MismatchError: for a fine-tuning scale of each feature.
        DamagedError: for thresholds that are there twice.
    """
    tensors = dict(tensors)
    scaling = tensors.pop("scaling_factor", None)  # early SAELens wrote it always; ones mean nothing
    if scaling is not None and not bool((scaling == 1).all()):
        raise MismatchError(f"{info.folder} has a fine-tuning scaling_factor, which NeuronMap does not apply.")
    logarithm = tensors.pop("log_threshold", None) if plain.our_name == "jumprelu" else None
    if logarithm is not None:
        if "threshold" in tensors:
            raise DamagedError(f"{info.folder / WEIGHTS_FILE} holds both threshold and log_threshold.")
        tensors["threshold"] = logarithm.exp()
    single = tensors.pop("topk_threshold", None) if plain.architecture in _CHECKPOINTS else None
    if single is not None:
        tensors["threshold"] = single.reshape(-1)[:1].expand(info.d_sae).clone()
    return tensors


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
    if plain.subtract_b_dec or plain.our_name in ("transcoder", "temporal"):
        return folded
    if plain.our_name == "matching_pursuit":  # neither subtracted nor added
        return {**folded, "b_dec": torch.zeros_like(tensors["b_dec"])}
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
    hook = _hook_record(metadata.get("hook_name"), d_in)
    if hook is not None and metadata.get("hook_head_index") is not None:
        hook["component"] = None  # one head of it
    return model, hook


def foreign_output(metadata: dict[str, Any], d_out: int) -> dict[str, Any] | None:
    """The record of the hook that a transcoder reconstructs, None when it is not known."""
    return _hook_record(metadata.get("hook_name_out"), d_out)


def _hook_record(name: Any, width: int) -> dict[str, Any] | None:
    if not name:
        return None
    hook_name = str(name)
    number = re.search(r"\.(\d+)(?:\.|$)", hook_name)
    hook: dict[str, Any] = {"name": hook_name, "layer": int(number.group(1)) if number else None, "width": width}
    lens = re.fullmatch(r"blocks\.\d+\.(.+)", hook_name)
    if lens:
        hook["component"] = _COMPONENTS.get(lens.group(1))
    else:  # a module path of the Hugging Face model: SAELens takes module outputs only
        hook |= {"module_path": hook_name, "side": "out"}
        hook["component"] = "residual" if number and number.end() == len(hook_name) else None
    return hook
