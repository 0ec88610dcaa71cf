"""Transcoder sets of circuit-tracer, which attribution graphs and Neuronpedia read: ``config.yaml`` and a file a layer.

Shapes: D = d_model, F = d_transcoder.

    pre_F = x @ W_enc.T + b_enc      W_enc is [F, D]; nothing is subtracted
    f_F   = relu(pre), or pre * 1[pre > activation_function.threshold]
    y_D   = f @ W_dec + b_dec  (+ x @ W_skip.T)

W_dec is [F, D]; files of June 2025 held [D, F], which the shape tells (and nothing can where F = D: then it is taken as [F, D]).
A cross-layer transcoder is refused: the output of a layer is a sum over the features of all earlier layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts, unfolded
from neuronmap.hub.formats.format import Candidate, Exported, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place, lens_place
from neuronmap.hub.formats.stored import Stored, dimensions, read_headers, read_stored
from neuronmap.paths import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CircuitTracer"]

_CONFIG = "config.yaml"
_THRESHOLD = "activation_function.threshold"
_LAYER = re.compile(r"layer_(\d+)")


class CircuitTracer(Format):
    """Reads and writes transcoder sets."""

    name: ClassVar[str] = "circuit_tracer"
    title: ClassVar[str] = "circuit-tracer: config.yaml and layer_N.safetensors; transcoders of all layers"
    writes: ClassVar[bool] = True
    answers: ClassVar[Mapping[str, str]] = {
        "input_hook": "name of the hook that is read, in the set that is written (hook_resid_mid, mlp.hook_in, ...)",
        "output_hook": "name of the hook that is written",
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``config.yaml`` and layers, or one layer's file beside it."""
        folder, files = (
            (path, sorted(path.glob("layer_*.safetensors"), key=_number)) if path.is_dir() else (path.parent, [path])
        )
        if not (folder / _CONFIG).is_file() or (path.is_file() and not _LAYER.fullmatch(path.stem)):
            return []
        config = _read_yaml(folder / _CONFIG)
        if config.get("model_kind") == "cross_layer_transcoder":
            return [
                Candidate(
                    self.name, folder.name, folder, None, "cross-layer transcoder (refused)", details={"config": config}
                )
            ]
        if (
            config.get("model_kind") != "transcoder_set"
            and not {"feature_input_hook", "feature_output_hook"} <= config.keys()
        ):
            return []
        about = f"{config.get('feature_input_hook')} -> {config.get('feature_output_hook')}"
        found = [
            Candidate(self.name, f"layer_{_number(file)}", file, _number(file), about, details={"config": config})
            for file in files
            if _LAYER.fullmatch(file.stem)
        ]
        if not found and config.get("transcoders"):
            return [
                Candidate(
                    self.name,
                    folder.name,
                    folder,
                    None,
                    "a set that lies in other repositories",
                    details={"config": config},
                )
            ]
        return found

    def owns(self, stored: Stored) -> bool:
        """Whether the tensors have these names, W_enc by feature."""
        shapes = stored.shapes
        plain = {"W_enc", "W_dec", "b_enc", "b_dec"} <= shapes.keys()
        return plain and _THRESHOLD in shapes

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one layer."""
        file = candidate.path
        config = candidate.details.get("config")
        if config is None:
            config = _read_yaml(file.parent / _CONFIG) if (file.parent / _CONFIG).is_file() else {}
        if config.get("model_kind") == "cross_layer_transcoder":
            raise InputError(
                f"{file} is a cross-layer transcoder: its features write to all later layers, and the output of a layer is the sum "
                "over the features of all earlier ones. No layer stands alone, so none is imported."
            )
        if file.is_dir():
            first = (config.get("transcoders") or ["?"])[0]
            raise InputError(
                f"{file / _CONFIG} lists transcoders in other repositories (the first: {first}); their files are not here.",
                hint="Import from that repository.",
            )
        if config.get("activation") not in (None, "relu", "jump_relu", "jumprelu", "topk"):
            raise InputError(f"{file.parent / _CONFIG}: activation {config['activation']!r} is not known.")
        stored = candidate.stored or read_stored(file)
        tensors, lengths = _by_feature(stored)
        parts = Parts(
            tensors["W_enc"].T,
            tensors["W_dec"],
            tensors["b_dec"],
            tensors["b_enc"],
            threshold_F=tensors.get(_THRESHOLD),
            k=int(config["k"]) if config.get("activation") == "topk" and config.get("k") else None,
            skip_OD=tensors.get("W_skip"),
        )
        layer = candidate.layer
        place, out = (_place(layer, config.get(key)) for key in ("feature_input_hook", "feature_output_hook"))
        metadata = foreign_metadata(
            candidate, given, [stored, *([file.parent / _CONFIG] if config else [])],
            config=config, model=config.get("model_name"), place=place, width=lengths["D"], place_out=out,
        )  # fmt: skip
        return Imported(parts.transcoder(file), metadata, {}, ())

    def write(self, items: list[Exported], folder: Path, given: Given) -> list[Path]:
        """A whole set: layers 0 to n - 1, one transcoder each, of equal widths."""
        from safetensors.torch import save_file

        layers: dict[int, Exported] = {}
        for item in items:
            layer = (item.metadata.hook or {}).get("layer")
            if not isinstance(layer, int) or layer in layers:
                raise InputError(
                    f"circuit-tracer needs one transcoder for each layer; here a layer is {layer!r} twice or missing."
                )
            layers[layer] = item
        if sorted(layers) != list(range(len(layers))):
            raise InputError(
                f"circuit-tracer opens sets that begin at layer 0 and leave none out; here are layers {sorted(layers)}.",
                hint="Export the transcoders of all layers together.",
            )
        widths = {item.sae.d_sae for item in items}
        if len(widths) > 1:
            raise InputError(f"circuit-tracer needs transcoders of equal widths; here are {sorted(widths)} features.")
        written = []
        for layer, item in sorted(layers.items()):
            written.append(folder / f"layer_{layer}.safetensors")
            save_file(_foreign(item), written[-1], metadata={"format": "pt"})
        first = layers[0]
        config = {
            "model_kind": "transcoder_set",
            "model_name": (first.metadata.model or {}).get("name"),
            "feature_input_hook": _hook_name(first, "input_hook", first.metadata.hook, given),
            "feature_output_hook": _hook_name(first, "output_hook", first.metadata.hook_out, given),
            "scan": None,
        }
        write_bytes(folder / _CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
        return [*written, folder / _CONFIG]


def _number(file: Path) -> int:
    match = _LAYER.fullmatch(file.stem)
    return int(match[1]) if match else -1


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DamagedError(f"{file} is not valid YAML: {' '.join(str(error).split())[:300]}.") from error
    if not isinstance(config, dict):
        raise DamagedError(f"{file} holds a {type(config).__name__}, not a table.")
    return config


def _by_feature(stored: Stored) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors with both matrices [F, D], and D and F; the biases say which is which."""
    read_headers(stored.file)
    shapes = dict(stored.shapes)
    wanted = {"W_enc": "FD", "W_dec": "FD", "b_enc": "F", "b_dec": "D"}
    optional = {_THRESHOLD: "F", "W_skip": "DD"}
    tensors = dict(stored.tensors)
    if len(shapes.get("W_dec", ())) == 2 and len(shapes.get("b_enc", ())) == 1 and len(shapes.get("b_dec", ())) == 1:
        features, width = shapes["b_enc"][0], shapes["b_dec"][0]
        if shapes["W_dec"] == (width, features) and width != features:
            tensors["W_dec"] = tensors["W_dec"].T
            shapes["W_dec"] = (features, width)
    return tensors, dimensions(stored.file, shapes, wanted, optional)


def _place(layer: int | None, hook: Any) -> Place | None:
    if not hook:
        return None
    name = f"blocks.{layer}.{hook}"
    place = lens_place(name)
    return place._replace(layer=layer)


def _foreign(item: Exported) -> dict[str, Tensor]:
    sae = item.sae
    rule = getattr(sae.options, "rule", sae.architecture)
    if sae.architecture != "transcoder" or rule not in ("relu", "jumprelu") or sae.input_norm != "none":
        raise InputError(
            f"circuit-tracer takes transcoders with a ReLU or a JumpReLU; this is a {sae.architecture} with the rule {rule}"
            + (f" on inputs normalised by {sae.input_norm}." if sae.input_norm != "none" else "."),
        )
    parts = unfolded(sae)
    if parts.b_enc_F is None or parts.W_dec_FO.shape[1] != sae.d_in:
        raise InputError(
            f"circuit-tracer takes transcoders of equal widths; this goes from {sae.d_in} to {parts.W_dec_FO.shape[1]}."
        )
    tensors = {"W_enc": parts.W_enc_DF.T, "W_dec": parts.W_dec_FO, "b_enc": parts.b_enc_F, "b_dec": parts.b_dec_O}
    if parts.threshold_F is not None:
        tensors[_THRESHOLD] = parts.threshold_F
    if parts.skip_OD is not None:
        tensors["W_skip"] = parts.skip_OD
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _hook_name(item: Exported, answer: str, hook: Mapping[str, Any] | None, given: Given) -> str:
    """TransformerLens' name of a hook within its block."""
    if answer in given.assume:
        return given.assume[answer]
    names = (item.metadata.origin or {}).get("metadata") or {}
    foreign = str(names.get("hook_name" if answer == "input_hook" else "hook_name_out") or "")
    match = re.fullmatch(r"blocks\.\d+\.(.+)", foreign)
    if match:
        return match[1]
    record = hook or {}
    by_component = {"mlp": "hook_mlp_out", "residual": "hook_resid_post", "residual_pre": "hook_resid_pre"}
    if record.get("component") in by_component:
        return by_component[record["component"]]
    inside = str(record.get("inside") or record.get("name") or foreign)
    if re.search(r"(^|\.)mlp:(in|out)$", inside):
        return f"mlp.hook_{inside.rpartition(':')[2]}"
    raise InputError(
        f"circuit-tracer names hooks as TransformerLens does, and {record.get('name') or foreign or 'this hook'} has no such name here.",
        hint=f"Say it: --assume {answer}=...",
    )
