"""OpenAI's sparse autoencoders of GPT-2 small (arXiv 2406.04093): a ``.pt`` a layer, with its activation beside the tensors.

Shapes: D = 768, F = 2^15 or 2^17.

    x'    = layer norm of x (top-k files only): (x - mean) / (std + 1e-5), std unbiased
    pre_F = (x' - pre_bias) @ encoder.weight.T + latent_bias
    f_F   = the k largest, then relu;  or relu
    y_D   = f @ decoder.weight.T + pre_bias, and back: y * std + mean

They were fitted to activations of TransformerLens' GPT-2 with ``center_writing_weights=False``. The layer norm depends on the
row, so it cannot be folded; it is kept as ``input_norm``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts
from neuronmap.hub.formats.format import Candidate, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place
from neuronmap.hub.formats.stored import Stored, dimensions, read_stored

__all__ = ["OpenAI"]

_TENSORS = {"pre_bias": "D", "encoder.weight": "FD", "latent_bias": "F", "decoder.weight": "DF"}
_STATISTICS = {
    "stats_last_nonzero": "F",
    "latents_activation_frequency": "F",
    "latents_mean_square": "F",
}
_LOCATIONS = {
    "resid_post_mlp": ("hook_resid_post", "residual"),
    "resid_post_attn": ("hook_resid_mid", None),
    "resid_delta_mlp": ("hook_mlp_out", "mlp"),
    "resid_delta_attn": ("hook_attn_out", "attention"),
    "mlp_post_act": ("mlp.hook_post", "mlp_hidden"),
}


class OpenAI(Format):
    """Reads OpenAI's files."""

    name: ClassVar[str] = "openai"
    title: ClassVar[str] = "OpenAI sparse_autoencoder: one .pt a layer (a pickle, opened in a process of its own)"
    answers: ClassVar[Mapping[str, str]] = {"location": f"where it reads: {', '.join(_LOCATIONS)}"}

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder ``autoencoders`` with numbered files, or one of its files."""
        if path.is_file():
            fits = path.suffix == ".pt" and path.stem.isdigit() and path.parent.name == "autoencoders"
            return [self._candidate(path)] if fits else []
        if path.name != "autoencoders":
            return []
        return [
            self._candidate(file)
            for file in sorted(path.glob("*.pt"), key=lambda file: file.name)
            if file.stem.isdigit()
        ]

    def owns(self, stored: Stored) -> bool:
        """Whether the tensors have OpenAI's names."""
        return {"pre_bias", "latent_bias"} <= stored.tensors.keys()

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one file."""
        stored = candidate.stored or read_stored(candidate.path)
        lengths = dimensions(stored.file, stored.shapes, _TENSORS, _STATISTICS)
        tensors = stored.tensors
        activation = str(stored.values.get("activation", "ReLU"))
        options = stored.values.get("activation_state_dict") or {}
        parts = Parts(
            tensors["encoder.weight"].T,
            tensors["decoder.weight"].T,
            tensors["pre_bias"],
            tensors["latent_bias"],
            centre_D=tensors["pre_bias"],
        )
        notes: list[str] = []
        if activation == "TopK":
            k, after = options.get("k"), str(options.get("postact_fn", "ReLU"))
            if not isinstance(k, int) or k < 1:
                raise DamagedError(f"{stored.file} is a TopK file without a k: {options!r}.")
            if after != "ReLU":
                raise InputError(f"{stored.file} applies {after} after its top-k; NeuronMap's topk applies ReLU.")
            sae = Parts(**{**parts.__dict__, "k": k}).autoencoder(stored.file, "topk")
            sae.input_norm = "layer_norm"
            notes.append(
                "Each row is layer-normalised before the encoder (input_norm = layer_norm), as the file's activation TopK implies."
            )
        elif activation == "ReLU":
            sae = parts.autoencoder(stored.file, "relu")
        else:
            raise InputError(f"{stored.file} has the activation {activation!r}; OpenAI's are TopK and ReLU.")
        place = self._place(candidate, given)
        if place is None:
            notes.append(f"The path names no location; say it with --assume location=... ({', '.join(_LOCATIONS)}).")
        metadata = foreign_metadata(
            candidate, given, [stored], config=stored.values, model="gpt2-small", place=place, width=lengths["D"]
        )
        return Imported(sae, metadata, {}, tuple(notes))

    def _candidate(self, file: Path) -> Candidate:
        location = next(
            (name for name in _LOCATIONS if any(part.startswith(name) for part in file.parts)), "unknown location"
        )
        return Candidate(self.name, file.name, file, int(file.stem), location)

    @staticmethod
    def _place(candidate: Candidate, given: Given) -> Place | None:
        text = f"{given.origin}/{candidate.path}"
        location = given.assume.get("location") or next(
            (name for name in _LOCATIONS if re.search(rf"/{name}(_v\d|/|$)", text)), None
        )
        if location is None:
            return None
        if location not in _LOCATIONS:
            raise InputError(f"location={location}: there are {', '.join(_LOCATIONS)}.")
        layer = (
            candidate.layer
            if candidate.layer is not None
            else (int(candidate.path.stem) if candidate.path.stem.isdigit() else None)
        )
        hook, component = _LOCATIONS[location]
        return Place(layer, component, None, f"blocks.{layer}.{hook}")
