"""Llama Scope (2024) and Llamascopium (OpenMOSS): SAEs, transcoders, and crosscoders with a ReLU.

Shapes: D = d_model, F = d_sae. With a dataset-wise norm, a = sqrt(D) / norm_in, c = sqrt(D) / norm_out.

Llama Scope, ``hyperparams.json`` and ``checkpoints/final.safetensors``: encoder.weight [F,D], decoder.weight [D,F], biases, one
threshold in the configuration. Folded in this order, as the library did when it loaded such a file:

    1  b_e /= a;  b_d /= c;  W_d *= a / c
    2  where ``sparsity_include_decoder_norm``: n_j = |W_d_j|;  W_d /= n;  W_e *= n;  b_e *= n
    3  pre = W_e x + b_e, x - b_d in place of x where ``apply_decoder_bias_to_pre_encoder``
    4  f = pre * 1[pre > threshold], the threshold as it stands: it is in *these* units

A ``topk`` with a threshold above 0 is a JumpReLU as well: thresholds were fitted after training.

Llamascopium, ``config.json`` and ``sae_weights.safetensors``: W_E [D,F], W_D [F,D], b_E, b_D, log thresholds; the R1-Distill
files of the time between have Llama Scope's tensor names and ``log_jumprelu_threshold``. Read as it was trained:

    h = (a x W_E + b_E) n,   f = act(h),   y = (f / n @ W_D + b_D) / c        n = |W_D| or 1

``inference`` in place of ``dataset-wise`` means that a and c are folded in. Token-wise and batch-wise norms are refused, as are
gated linear encoders, Lorsa and cross-layer transcoders, whose layers reconstruct nothing alone. In a crosscoder each hook has
its own n, so only a ReLU, which does not see n, gives one code for all hooks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts
from neuronmap.hub.formats.crossing import CrossParts
from neuronmap.hub.formats.format import Candidate, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import layer_in, lens_place
from neuronmap.hub.formats.stored import PICKLED, Stored, dimensions, read_config, read_headers, read_stored

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.saes import SparseAutoencoder

__all__ = ["LlamaScope", "Llamascopium"]

_FILES = ("sae_weights.safetensors", "sae_weights.pt", "checkpoints/pruned.safetensors", "checkpoints/final.safetensors",
          "checkpoints/pruned.pt", "checkpoints/final.pt")  # fmt: skip
_LINEAR = {"encoder.weight": "FD", "encoder.bias": "F", "decoder.weight": "DF"}
_MATRICES = {"W_E": "DF", "b_E": "F", "W_D": "FD"}
_CROSS = {"W_E": "HDF", "b_E": "HF", "W_D": "HFD", "b_D": "HD"}
_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
_NORM = "dataset_average_activation_norm."


class LlamaScope(Format):
    """Reads Llama Scope of 2024."""

    name: ClassVar[str] = "llama_scope"
    title: ClassVar[str] = "Llama Scope (2024): hyperparams.json and checkpoints/final.safetensors"

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``hyperparams.json`` and weights."""
        weights = _weights(path)
        if not path.is_dir() or not (path / "hyperparams.json").is_file() or weights is None:
            return []
        config = read_config(path / "hyperparams.json")
        if "hook_point_in" not in config:
            return []
        place = lens_place(str(config["hook_point_in"]))
        return [Candidate(self.name, path.name, path, place.layer, place.foreign, details={"weights": str(weights)})]

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one folder; the order of folding is at the top."""
        folder = candidate.path
        file = folder / "hyperparams.json"
        config = read_config(file, ["hook_point_in", "d_model"])
        stored = read_stored(_required_weights(folder))
        lengths = dimensions(stored.file, stored.shapes, _LINEAR, {"decoder.bias": "D"})
        _refuse_glu(stored.file, config)
        tensors = stored.tensors
        use_bias = bool(config.get("use_decoder_bias", True))
        if use_bias and "decoder.bias" not in tensors:
            raise DamagedError(f"{stored.file} has no decoder.bias, but {file} says that it is used.")
        W_enc = tensors["encoder.weight"].T.double()
        b_dec = tensors["decoder.bias"].double() if use_bias else W_enc.new_zeros(lengths["D"])
        scale = _scales(file, config, lengths["D"], {})
        parts = Parts(
            W_enc,
            tensors["decoder.weight"].T.double() * (scale.into / scale.out),
            b_dec / scale.out,
            tensors["encoder.bias"].double() / scale.into,
        )
        if config.get("sparsity_include_decoder_norm", False):
            parts = parts.with_unit_rows()
        other = config.get("hook_point_out") not in (None, config["hook_point_in"])
        if use_bias and config.get("apply_decoder_bias_to_pre_encoder", True):
            if other:
                raise InputError(
                    f"{file}: it subtracts the bias of its output hook from its input, which is another hook."
                )
            parts = replace(parts, centre_D=parts.b_dec_O)
        architecture, parts = _activated(file, config, parts, config.get("jump_relu_threshold"))
        return _imported(candidate, given, stored, file, config, parts, architecture, lengths["D"])


class Llamascopium(Format):
    """Reads Llamascopium, and Llama Scope R1-Distill."""

    name: ClassVar[str] = "llamascopium"
    title: ClassVar[str] = "Llamascopium and Llama Scope R1-Distill: config.json and sae_weights.safetensors"
    answers: ClassVar[Mapping[str, str]] = {
        "norm_in": "average norm of the input, for a dataset-wise SAE without one",
        "norm_out": "the same of the output; norm_in where left out",
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``config.json`` and weights of these names."""
        weights = _weights(path)
        if (
            not path.is_dir()
            or not (path / "config.json").is_file()
            or weights is None
            or (path / "cfg.json").is_file()
        ):
            return []
        headers = read_headers(weights)
        if headers is not None and not ({"W_E", "W_D"} <= headers.keys() or _THRESHOLDS[1] in headers):
            return []
        config = read_config(path / "config.json")
        if headers is None and "sae_type" not in config:
            return []
        hook = str(config.get("hook_point_in") or config.get("hook_points") or "")
        about = f"{config.get('sae_type', 'sae')}, {config.get('act_fn', '')}, {hook}"
        return [Candidate(self.name, path.name, path, layer_in(hook), about)]

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one folder."""
        folder = candidate.path
        file = folder / "config.json"
        config = read_config(file)
        kind = str(config.get("sae_type", "sae"))
        if kind not in ("sae", "crosscoder"):
            why = {
                "clt": " The output of a layer is the sum over the features of all earlier layers, so none of them stands alone.",
                "lorsa": " It is a sparse attention layer, not a dictionary of one hook.",
            }.get(kind, "")
            raise InputError(f"{file} is of the type '{kind}', which NeuronMap does not read.{why}")
        weights = _required_weights(folder)
        stored = read_stored(weights)
        if weights.suffix in PICKLED:
            stored = stored.under("sae")
        _refuse_glu(file, config)
        norms = {
            name.removeprefix(_NORM): float(value) for name, value in stored.tensors.items() if name.startswith(_NORM)
        }
        stored = replace(
            stored, tensors={name: value for name, value in stored.tensors.items() if not name.startswith(_NORM)}
        )
        if kind == "crosscoder":
            return self._crosscoder(candidate, given, stored, file, config, norms)
        tensors, lengths = _matrices(stored, config)
        scale = _scales(file, config, lengths["D"], norms, given.assume)
        parts = Parts(tensors["W_E"], tensors["W_D"], tensors["b_D"], tensors["b_E"])
        if config.get("sparsity_include_decoder_norm", True):
            parts = parts.with_unit_rows()
        log_threshold = next((stored.tensors[name] for name in _THRESHOLDS if name in stored.tensors), None)
        threshold = None if log_threshold is None else log_threshold.double().exp()
        architecture, parts = _activated(file, config, parts, threshold)
        parts = parts.scaled(scale.into, scale.out)
        return _imported(candidate, given, stored, file, config, parts, architecture, lengths["D"])

    @staticmethod
    def _crosscoder(
        candidate: Candidate, given: Given, stored: Stored, file: Path, config: dict[str, Any], norms: dict[str, float]
    ) -> Imported:
        lengths = dimensions(stored.file, stored.shapes, _CROSS)
        if config.get("act_fn") != "relu":
            raise InputError(
                f"{file}: a crosscoder with act_fn {config.get('act_fn')!r} decides for each hook by that hook's decoder norm, so "
                "hooks have different codes; NeuronMap's crosscoder has one code."
            )
        points = [str(point) for point in config.get("hook_points") or norms or range(lengths["H"])]
        into = []
        for point in points:
            scale = _scales(
                file, {**config, "hook_point_in": point, "hook_point_out": point}, lengths["D"], norms, given.assume
            )
            into.append(scale.into)
        tensors = stored.tensors
        parts = CrossParts(
            tensors["W_E"], tensors["b_E"].double().sum(dim=0), tensors["W_D"].transpose(0, 1), tensors["b_D"]
        ).scaled(into)
        metadata = foreign_metadata(
            candidate,
            given,
            [stored, file],
            config=config,
            model=config.get("model_name"),
            place=None,
            width=lengths["D"],
        )
        places = tuple(lens_place(point).record(lengths["D"]) for point in points)
        return Imported(parts.crosscoder(stored.file), metadata.updated(hooks=places), {}, ())


class _Scales(NamedTuple):
    into: float
    out: float


def _weights(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def _required_weights(folder: Path) -> Path:
    found = _weights(folder)
    if found is None:
        raise InputError(
            f"{folder} has none of {', '.join(_FILES)}."
            + (" Sharded .dcp checkpoints are not read." if any(folder.glob("**/*.dcp")) else ""),
            hint="Save it with save_pretrained on one device.",
        )
    return found


def _refuse_glu(file: Path, config: Mapping[str, Any]) -> None:
    if config.get("use_glu_encoder"):
        raise InputError(f"{file}: a gated linear encoder (use_glu_encoder) has no counterpart in NeuronMap.")


def _scales(
    file: Path,
    config: Mapping[str, Any],
    d_model: int,
    norms: Mapping[str, float],
    assume: Mapping[str, str] | None = None,
) -> _Scales:
    """What inputs and outputs are multiplied by; 1 where it is folded in."""
    kind = config.get("norm_activation", "dataset-wise")
    if kind in ("inference", None):
        return _Scales(1.0, 1.0)
    if kind != "dataset-wise":
        raise InputError(
            f"{file}: norm_activation is '{kind}', which depends on the batch or the row; only dataset-wise can be folded."
        )
    hooks = str(config.get("hook_point_in")), str(config.get("hook_point_out") or config.get("hook_point_in"))
    written = config.get("dataset_average_activation_norm") or {}
    said = assume or {}
    found: list[float] = []
    for name, hook in (("in", hooks[0]), ("out", hooks[1])):
        value = norms.get(hook, written.get(hook, written.get(name, said.get(f"norm_{name}", said.get("norm_in")))))
        try:
            norm = float(value) if value is not None else 0.0
        except (TypeError, ValueError):
            norm = 0.0
        if not (norm > 0 and math.isfinite(norm)):
            raise InputError(
                f"{file}: inputs were normalised by the average norm of the data set, but no such norm of {hook} is there.",
                hint="Say it, if you know it: --assume norm_in=...",
            )
        found.append(math.sqrt(d_model) / norm)
    return _Scales(*found)


def _matrices(stored: Stored, config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors under Llamascopium's names, whichever the file has, and D and F."""
    tensors = stored.tensors
    optional = dict.fromkeys(_THRESHOLDS, "F")
    if "W_E" in tensors:
        lengths = dimensions(stored.file, stored.shapes, _MATRICES, {"b_D": "D", **optional})
        found = {name: tensors[name] for name in ("W_E", "b_E", "W_D")}
        bias = tensors.get("b_D")
    else:
        lengths = dimensions(stored.file, stored.shapes, _LINEAR, {"decoder.bias": "D", **optional})
        found = {"W_E": tensors["encoder.weight"].T, "b_E": tensors["encoder.bias"], "W_D": tensors["decoder.weight"].T}
        bias = tensors.get("decoder.bias")
    if not config.get("use_decoder_bias", True):
        bias = None
    elif bias is None:
        raise DamagedError(f"{stored.file} has no decoder bias, but its configuration says that it is used.")
    found["b_D"] = bias if bias is not None else found["b_E"].new_zeros(lengths["D"])
    return found, lengths


def _activated(file: Path, config: Mapping[str, Any], parts: Parts, threshold: Any) -> tuple[str, Parts]:
    """The rule, as our architecture and the parts with threshold or k."""
    rule = config.get("act_fn", "relu")
    given = threshold is not None and (not isinstance(threshold, int | float) or threshold > 0)
    if rule == "jumprelu" and threshold is None:
        raise DamagedError(f"{file} says jumprelu, but there is no threshold.")
    if rule == "jumprelu" or (given and rule in ("topk", "batchtopk")):
        return "jumprelu", replace(parts.double(), threshold_F=parts.b_dec_O.double().new_tensor(threshold)
                                   if isinstance(threshold, int | float) else threshold)  # fmt: skip
    if rule == "topk":
        k = config.get("top_k")
        if not isinstance(k, int) or k < 1:
            raise DamagedError(f"{file}: a topk SAE needs a top_k of at least 1, got {k!r}.")
        return "topk", replace(parts, k=k)
    if rule == "relu":
        return "relu", parts
    raise InputError(
        f"{file}: act_fn {rule!r} without a threshold has no rule for single rows. Known: relu, jumprelu, topk."
    )


def _imported(
    candidate: Candidate,
    given: Given,
    stored: Stored,
    file: Path,
    config: dict[str, Any],
    parts: Parts,
    architecture: str,
    width: int,
) -> Imported:
    place = lens_place(str(config["hook_point_in"])) if config.get("hook_point_in") else None
    out = config.get("hook_point_out")
    transcoder = out is not None and out != config.get("hook_point_in")
    metadata = foreign_metadata(
        candidate, given, [stored, file], config=config, model=config.get("model_name") or _model_of(candidate, given),
        place=place, width=width, place_out=lens_place(str(out)) if transcoder else None,
    )  # fmt: skip
    sae: SparseAutoencoder = (
        parts.transcoder(stored.file) if transcoder else parts.autoencoder(stored.file, architecture)
    )
    return Imported(sae, metadata, {}, ())


def _model_of(candidate: Candidate, given: Given) -> str | None:
    """Llama Scope's folders name the model, ``hyperparams.json`` does not."""
    text = f"{given.origin}/{candidate.path.name}"
    return "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in text or "Llama-Scope" in text else None
