"""Crosscoders: Neel Nanda's files and their descendants, and those of science-of-finetuning's dictionary_learning.

Shapes: L hooks (layers, or models), D width, F features.

    {v}.pt and {v}_cfg.json         W_enc [L,D,F]  W_dec [F,L,D]  b_enc  b_dec [L,D]; relu
    config.json, model.safetensors  encoder.weight [L,D,F]  encoder.bias  decoder.weight [L,F,D]  decoder.bias [L,D]; relu, and
                                    for BatchTopK f = relu(pre) * 1[relu(pre) * n > threshold], n by ``code_normalization``:
                                    CROSSCODER sum_l |W_dec_l|, SAE |W_dec|, NONE 1

The first kind saw inputs divided by a factor for each layer, which stood in the training program and is not in the files: say the
factors, and they are folded in. The second keeps ``activation_mean`` and ``activation_global_scale`` in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuronmap.errors import InputError
from neuronmap.hub.formats.crossing import CrossParts
from neuronmap.hub.formats.format import Candidate, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place
from neuronmap.hub.formats.stored import Stored, dimensions, read_config, read_headers, read_stored

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Crosscoders"]

_FIRST = {"W_enc": "LDF", "W_dec": "FLD", "b_enc": "F", "b_dec": "LD"}
_SECOND = {"encoder.weight": "LDF", "encoder.bias": "F", "decoder.weight": "LFD", "decoder.bias": "LD"}
_BUFFERS = {"activation_mean": "LD", "activation_std": "LD", "activation_global_scale": "L"}
_SITES = {"resid_post": "residual", "resid_pre": "residual_pre", "mlp_out": "mlp"}


class Crosscoders(Format):
    """Reads crosscoders."""

    name: ClassVar[str] = "crosscoder"
    title: ClassVar[str] = "Crosscoders: {v}.pt with {v}_cfg.json (a pickle), or config.json with model.safetensors"
    answers: ClassVar[Mapping[str, str]] = {
        "factors": "what inputs were divided by, a number for each hook, with commas"
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """Pairs of ``{v}.pt`` and ``{v}_cfg.json``; a folder with ``model.safetensors`` of three-dimensional weights."""
        if path.is_file():
            return [self._first(path)] if path.suffix == ".pt" and _config_of(path).is_file() else []
        found = [self._first(file) for file in sorted(path.glob("*.pt")) if _config_of(file).is_file()]
        weights = path / "model.safetensors"
        if weights.is_file():
            headers = read_headers(weights) or {}
            if "encoder.weight" in headers and len(headers["encoder.weight"].shape) == 3:
                hooks, width, features = headers["encoder.weight"].shape
                found.append(
                    Candidate(self.name, path.name, weights, None, f"{hooks} hooks, {width} -> {features} features")
                )
        return found

    def owns(self, stored: Stored) -> bool:
        """Whether the weights have three dimensions."""
        names = "W_enc" if "W_enc" in stored.tensors else "encoder.weight"
        return len(stored.shapes.get(names, ())) == 3

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one crosscoder."""
        stored = candidate.stored or read_stored(candidate.path)
        if stored.tensors and all(name.startswith("_orig_mod.") for name in stored.tensors):  # saved while compiled
            stored = replace(
                stored, tensors={name.removeprefix("_orig_mod."): value for name, value in stored.tensors.items()}
            )
        file = stored.file
        first = "W_enc" in stored.tensors
        config_file = _config_of(file) if first else file.parent / "config.json"
        config = read_config(config_file) if config_file.is_file() else {}
        notes: list[str] = []
        if first:
            lengths = dimensions(file, stored.shapes, _FIRST)
            tensors = stored.tensors
            parts = CrossParts(tensors["W_enc"], tensors["b_enc"], tensors["W_dec"], tensors["b_dec"])
        else:
            lengths = dimensions(file, stored.shapes, _SECOND, _BUFFERS)
            parts = _second(stored, config)
        parts = self._factored(parts, lengths["L"], given, first, notes)
        metadata = foreign_metadata(
            candidate, given, [stored, *([config_file] if config_file.is_file() else [])],
            config=config, model=config.get("model_name"), place=None, width=lengths["D"],
        )  # fmt: skip
        component = _SITES.get(str(config.get("site")))
        if component is not None:
            places = [
                Place(layer, component, None, f"blocks.{layer}.hook_{config['site']}") for layer in range(lengths["L"])
            ]
            metadata = metadata.updated(hooks=tuple(place.record(lengths["D"]) for place in places))
        else:
            notes.append(
                "The files do not say which hooks it reads; activations go in by hand, in the order of training."
            )
        return Imported(parts.crosscoder(file), metadata, {}, tuple(notes))

    def _first(self, file: Path) -> Candidate:
        config = read_config(_config_of(file))
        about = ", ".join(str(config[key]) for key in ("model_name", "site", "dict_size") if key in config)
        return Candidate(self.name, file.name, file, None, about)

    @staticmethod
    def _factored(parts: CrossParts, hooks: int, given: Given, first: bool, notes: list[str]) -> CrossParts:
        said = given.assume.get("factors")
        if said is None:
            if first:
                notes.append(
                    "Inputs of such crosscoders were divided by a factor for each layer during training, which the files do not give; "
                    "none is folded in. Say them with --assume factors=1.83,2.08,... if there were any."
                )
            return parts
        try:
            factors = [float(part) for part in said.split(",")]
        except ValueError:
            factors = []
        if len(factors) != hooks or min(factors, default=0.0) <= 0:
            raise InputError(f"factors={said}: {hooks} positive numbers with commas are needed, one for each hook.")
        return parts.scaled([1 / factor for factor in factors])


def _config_of(file: Path) -> Path:
    return file.with_name(f"{file.stem}_cfg.json")


def _second(stored: Stored, config: Mapping[str, Any]) -> CrossParts:
    tensors = stored.tensors
    W_dec_LFD = tensors["decoder.weight"].double()
    parts = CrossParts(
        tensors["encoder.weight"], tensors["encoder.bias"], W_dec_LFD.transpose(0, 1), tensors["decoder.bias"]
    )
    threshold = tensors.get("threshold")
    if threshold is not None:
        if threshold.numel() != 1:
            raise InputError(
                f"{stored.file}: a decoupled code has one threshold for each hook, so hooks have different codes."
            )
        least = max(float(threshold), 0.0)
        parts = replace(parts, threshold_F=least / _code_norm(stored.file, W_dec_LFD, config).clamp_min(1e-30))
    mean, scale = tensors.get("activation_mean"), tensors.get("activation_global_scale")
    if mean is None or bool(mean.isnan().any()):
        return parts
    if scale is None:
        raise InputError(f"{stored.file} normalises its inputs, but has no activation_global_scale.")
    return parts.scaled(scale.double(), mean)


def _code_norm(file: Path, W_dec_LFD: Tensor, config: Mapping[str, Any]) -> Tensor:
    """[F], what a feature's activation is multiplied by before it is compared with the threshold."""
    import torch

    kind = str(config.get("code_normalization", "CROSSCODER")).upper()
    norm_LF: Tensor = torch.linalg.vector_norm(W_dec_LFD, dim=2)
    if kind == "CROSSCODER":
        return norm_LF.sum(dim=0)
    if kind == "SAE":
        return norm_LF.square().sum(dim=0).sqrt()
    if kind == "NONE":
        return torch.ones_like(norm_LF[0])
    raise InputError(f"{file}: code_normalization {kind!r} is not known. There are CROSSCODER, SAE and NONE.")
