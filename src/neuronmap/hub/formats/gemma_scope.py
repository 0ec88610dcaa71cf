"""Gemma Scope 1 (``params.npz``) and 2 (``params.safetensors``): JumpReLU SAEs and transcoders of Google's Gemma models.

Shapes: D = d_in, O = d_out, F = features.

    pre_F = x @ W_enc + b_enc                      nothing is subtracted; norms are folded in already
    f_F   = pre * 1[pre > threshold]
    y_O   = f @ W_dec + b_dec  (+ x @ affine)      affine_skip_connection is [D, O], applied as it stands

    1   W_enc w_enc [D,F]  W_dec [F,O]  b_enc  b_dec  threshold[F];  the site is in the repository's name
    2   w_enc [D,F]  w_dec [F,O]  b_enc  b_dec  threshold  [affine_skip_connection]; config.json, or the folder's name, has the site

Gemma Scope 1's embedding SAEs see TransformerLens' scaled embeddings, so W_enc is divided by sqrt(D) and W_dec multiplied
(b_dec stays, as in SAELens). Its transcoders read ``ln2.hook_normalized``, the input of the MLP before the norm's gain, which no
module of a Hugging Face model carries. A cross-layer transcoder is refused: each of its layers writes to all later ones, so that
none of them alone reconstructs anything.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts
from neuronmap.hub.formats.format import Candidate, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place, layer_in, module_place
from neuronmap.hub.formats.stored import Stored, dimensions, read_config, read_headers, read_stored

__all__ = ["GemmaScope", "GemmaScope2"]

_TENSORS = {"W_enc": "DF", "W_dec": "FO", "b_enc": "F", "b_dec": "O", "threshold": "F"}
_SECOND = {"w_enc": "DF", "w_dec": "FO", "b_enc": "F", "b_dec": "O", "threshold": "F"}
_SITES = {
    "res": ("hook_resid_post", "residual"),
    "mlp": ("hook_mlp_out", "mlp"),
    "att": ("attn.hook_z", "attention_heads"),
    "transcoders": ("ln2.hook_normalized", None),
}


class GemmaScope(Format):
    """Reads Gemma Scope 1."""

    name: ClassVar[str] = "gemma_scope"
    title: ClassVar[str] = "Gemma Scope 1: params.npz; SAEs and transcoders"
    answers: ClassVar[Mapping[str, str]] = {
        "site": f"where it reads: {', '.join(_SITES)}, where the repository's name does not tell"
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``params.npz`` that holds the five arrays."""
        file = path / "params.npz" if path.is_dir() else path
        if file.name != "params.npz" or not file.is_file():
            return []
        try:
            with zipfile.ZipFile(file) as archive:
                names = {name.removesuffix(".npy").lower() for name in archive.namelist()}
        except (OSError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{file} cannot be read as .npz: {error}.") from error
        if not {"w_enc", "w_dec", "threshold"} <= names:
            return []
        about = "/".join(
            part for part in file.parent.parts[-3:] if re.match(r"layer_|width_|average_l0_|embedding", part)
        )
        return [Candidate(self.name, file.parent.name, file, _layer(file), about)]

    def owns(self, stored: Stored) -> bool:
        """Whether an ``.npz`` holds the five arrays."""
        return stored.file.suffix == ".npz" and {"w_enc", "w_dec", "threshold"} <= {
            name.lower() for name in stored.tensors
        }

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one ``params.npz``."""
        stored = candidate.stored or read_stored(candidate.path)
        names = {
            ("W_" + name[2:] if name.startswith("w_") else name): tensor for name, tensor in stored.tensors.items()
        }
        stored = replace(stored, tensors=names)
        lengths = dimensions(stored.file, stored.shapes, _TENSORS)
        path = f"{given.origin}/{candidate.path}"
        repository = re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)", path)
        site = given.assume.get("site") or (repository[3] if repository else None)
        if site not in _SITES:
            raise InputError(
                f"{candidate.path} does not say where it reads"
                + (f": site={site} is unknown" if site else ", and neither does its path")
                + f". There are {', '.join(_SITES)}.",
                hint="Say it: --assume site=res, or import from hf://google/gemma-scope-...",
            )
        parts = Parts(
            names["W_enc"], names["W_dec"], names["b_dec"], names["b_enc"], threshold_F=names["threshold"]
        ).double()
        layer, hook = _layer(candidate.path), _SITES[site]
        place = Place(layer, hook[1], None, f"blocks.{layer}.{hook[0]}")
        if "embedding" in candidate.path.parts and site == "res":
            scale = math.sqrt(lengths["D"])
            parts = replace(parts, W_enc_DF=parts.W_enc_DF / scale, W_dec_FO=parts.W_dec_FO * scale)
            place = Place(0, "residual_pre", None, "hook_embed")
        model = f"google/gemma-2-{repository[1]}{'-it' if repository[2] == 'it' else ''}" if repository else None
        transcoder = site == "transcoders"
        out = Place(layer, "mlp", None, f"blocks.{layer}.hook_mlp_out") if transcoder else None
        metadata = foreign_metadata(
            candidate, given, [stored], config={"site": site}, model=model, place=place, width=lengths["D"],
            place_out=out, width_out=lengths["O"], names={"dataset_path": "monology/pile-uncopyrighted", "context_size": 1024},
        )  # fmt: skip
        sae = parts.transcoder(stored.file) if transcoder else parts.autoencoder(stored.file, "jumprelu")
        return Imported(sae, metadata, _l0(candidate.path), ())


class GemmaScope2(Format):
    """Reads Gemma Scope 2."""

    name: ClassVar[str] = "gemma_scope_2"
    title: ClassVar[str] = "Gemma Scope 2: params.safetensors and config.json; SAEs and (skip) transcoders"
    answers: ClassVar[Mapping[str, str]] = {
        "site": "resid_post, attn_out, mlp_out or transcoder, where neither config nor folder tells"
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``params.safetensors`` of these names; files of a cross-layer transcoder, which reading refuses."""
        if path.is_file():
            files = [path] if path.suffix == ".safetensors" else []
        else:
            files = (
                [path / "params.safetensors"]
                if (path / "params.safetensors").is_file()
                else sorted(path.glob("params_layer_*.safetensors"))
            )
        found = []
        for file in files:
            headers = read_headers(file) or {}
            if {"w_enc", "w_dec", "threshold"} <= headers.keys():
                name = file.parent.name if file.name == "params.safetensors" else file.stem
                about = "cross-layer transcoder (refused)" if len(headers["w_dec"].shape) == 3 else file.parent.name
                found.append(
                    Candidate(
                        self.name, name, file, layer_in(file.stem) if "layer" in file.stem else _layer(file), about
                    )
                )
        return found

    def owns(self, stored: Stored) -> bool:
        """Whether the tensors have these names."""
        return {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"} <= stored.tensors.keys()

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one ``params.safetensors``."""
        file = candidate.path
        headers = read_headers(file) or {}
        if "w_dec" in headers and len(headers["w_dec"].shape) == 3:
            raise InputError(
                f"{file} is one layer of a cross-layer transcoder: its features write to {headers['w_dec'].shape[1]} layers, and the "
                "output of each layer is the sum over all earlier ones. Alone it reconstructs nothing, so it is not imported."
            )
        stored = candidate.stored or read_stored(file)
        lengths = dimensions(file, stored.shapes, _SECOND, {"affine_skip_connection": "DO"})
        config = read_config(file.parent / "config.json") if (file.parent / "config.json").is_file() else {}
        if config.get("architecture", "jump_relu") != "jump_relu":
            raise InputError(
                f"{file.parent / 'config.json'}: architecture {config['architecture']!r}; Gemma Scope 2 has jump_relu."
            )
        place, out = self._places(candidate, config, given)
        tensors = stored.tensors
        skip = tensors.get("affine_skip_connection")
        parts = Parts(
            tensors["w_enc"],
            tensors["w_dec"],
            tensors["b_dec"],
            tensors["b_enc"],
            threshold_F=tensors["threshold"],
            skip_OD=None if skip is None else skip.T,
        )
        model = str(config.get("model_name") or self._model(f"{given.origin}/{file}") or "") or None
        if model is not None:
            model = (model if "/" in model else f"google/{model}").replace("gemma-v3", "gemma-3")
        metadata = foreign_metadata(
            candidate, given, [stored], config=config, model=model, place=place, width=lengths["D"],
            place_out=out, width_out=lengths["O"],
        )  # fmt: skip
        sae = parts.transcoder(file) if out is not None else parts.autoencoder(file, "jumprelu")
        claim = config.get("l0")
        return Imported(sae, metadata, {"l0": float(claim)} if isinstance(claim, int | float) else {}, ())

    @staticmethod
    def _model(path: str) -> str | None:
        match = re.search(r"gemma-scope-2-(\w+)-(pt|it)", path)
        return f"google/gemma-3-{match[1]}-{match[2]}" if match else None

    @staticmethod
    def _places(candidate: Candidate, config: Mapping[str, Any], given: Given) -> tuple[Place | None, Place | None]:
        read, write = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
        site = given.assume.get("site")
        path = f"{given.origin}/{candidate.path}"
        if read and site is None:
            out = module_place(str(write)) if write and write != read else None
            return module_place(str(read)), out
        site = site or next(
            (name for name in ("transcoder", "resid_post", "attn_out", "mlp_out") if name in path), None
        )
        layer = candidate.layer
        inside = {
            "resid_post": (f"model.layers.{layer}", "out"),
            "attn_out": (f"model.layers.{layer}.self_attn.o_proj", "in"),
            "mlp_out": (f"model.layers.{layer}.post_feedforward_layernorm", "out"),
            "transcoder": (f"model.layers.{layer}.pre_feedforward_layernorm", "out"),
        }
        if site not in inside:
            raise InputError(
                f"{candidate.path} has no config.json, and its path does not say where it reads.",
                hint=f"Say it: --assume site=... ({', '.join(inside)}).",
            )
        out = module_place(f"model.layers.{layer}.post_feedforward_layernorm") if site == "transcoder" else None
        return module_place(*inside[site]), out


def _layer(file: Path) -> int | None:
    match = next(
        (re.search(r"layer_(\d+)", part) for part in reversed(file.parts) if re.search(r"layer_(\d+)", part)), None
    )
    return int(match[1]) if match else None


def _l0(file: Path) -> dict[str, float]:
    match = re.search(r"average_l0_(\d+)", str(file))
    return {"l0": float(match[1])} if match else {}
