"""sparsify (EleutherAI): ``cfg.json`` and ``sae.safetensors``, one folder a hook point; SAEs and transcoders.

Shapes: D = d_in, F = num_latents, or D times ``expansion_factor`` where that is 0.

    pre_F = (x - b_dec) @ encoder.weight.T + encoder.bias      transcoders subtract nothing
    f_F   = the k largest of relu(pre)
    y_D   = f @ W_dec + b_dec  (+ x @ W_skip.T)                W_dec is [F, D], as it is used

``normalize_decoder`` is about training; it says nothing about b_dec. The folder's name is the hook point: a module of the base
model, of which an SAE reads the output, and a transcoder the input to predict the output. ``groupmax`` keeps the largest of
each of k equal groups; none of our architectures does, so it is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts, unfolded
from neuronmap.hub.formats.format import Candidate, Exported, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place, layer_in, module_place
from neuronmap.hub.formats.stored import Stored, dimensions, read_config, read_headers, read_stored
from neuronmap.paths import write_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sparsify"]

_CONFIG, _WEIGHTS, _RUN = "cfg.json", "sae.safetensors", "config.json"
_TENSORS = {"encoder.weight": "FD", "encoder.bias": "F", "W_dec": "FD", "b_dec": "D"}
_OPTIONAL = {"W_skip": "DD"}


class Sparsify(Format):
    """Reads and writes sparsify's folders."""

    name: ClassVar[str] = "sparsify"
    title: ClassVar[str] = "sparsify (EleutherAI): cfg.json and sae.safetensors; SAEs and (skip) transcoders"
    writes: ClassVar[bool] = True

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with both files."""
        folder = path.parent if path.name == _WEIGHTS else path
        if not (folder / _WEIGHTS).is_file() or not (folder / _CONFIG).is_file():
            return []
        headers = read_headers(folder / _WEIGHTS) or {}
        if "encoder.weight" not in headers:
            return []
        config = read_config(folder / _CONFIG)
        hook = _hook_name(folder)
        kind = "transcoder" if config.get("transcode") else "SAE"
        about = f"{kind}, {config.get('activation', 'topk')}, k = {config.get('k')}, of {hook}"
        return [Candidate(self.name, hook, folder, layer_in(hook), about, details={"config": config})]

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one folder."""
        folder = candidate.path
        config = read_config(folder / _CONFIG, ["d_in", "k"])
        stored = read_stored(folder / _WEIGHTS)
        lengths = dimensions(folder / _WEIGHTS, stored.shapes, _TENSORS, _OPTIONAL)
        _check(folder, config, lengths, stored)
        transcode = bool(config.get("transcode"))
        tensors = stored.tensors
        parts = Parts(
            tensors["encoder.weight"].T,
            tensors["W_dec"],
            tensors["b_dec"],
            tensors["encoder.bias"],
            centre_D=None if transcode else tensors["b_dec"],
            k=int(config["k"]),
            skip_OD=tensors.get("W_skip"),
        )
        hook = _hook_name(folder)
        run = next(
            (read_config(place / _RUN) for place in (folder.parent, folder.parent.parent) if (place / _RUN).is_file()),
            {},
        )
        side = "in" if transcode else "out"
        place = module_place(hook, side) if re.search(r"\d", hook) or "." in hook else None
        metadata = foreign_metadata(
            candidate, given, [stored, folder / _CONFIG],
            config={"cfg": config, "run": run}, model=run.get("model"), place=place, width=lengths["D"],
            place_out=module_place(hook, "out") if transcode and place is not None else None,
        )  # fmt: skip
        sae = parts.transcoder(folder / _WEIGHTS) if transcode else parts.autoencoder(folder / _WEIGHTS, "topk")
        return Imported(sae, metadata, {}, ())

    def write(self, items: list[Exported], folder: Path, given: Given) -> list[Path]:
        """One folder for each hook point."""
        del given
        from safetensors.torch import save_file

        written: list[Path] = []
        for number, item in enumerate(items):
            config, tensors = _foreign(item)
            target = folder / _folder_name(item, number)
            if target.exists():
                raise InputError(f"Two SAEs belong to the hook point '{target.name}'; sparsify keeps one for each.")
            target.mkdir()
            save_file(tensors, target / _WEIGHTS, metadata={"format": "pt"})
            write_json(target / _CONFIG, config)
            written += [target / _WEIGHTS, target / _CONFIG]
        return written


def _hook_name(folder: Path) -> str:
    """The folder's name, or its parent's where the folder is one of several seeds."""
    return folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name


def _check(folder: Path, config: dict[str, Any], lengths: dict[str, int], stored: Stored) -> None:
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise InputError(
            f"{folder} has the activation '{activation}'; NeuronMap has the rule 'topk' only. (groupmax keeps the largest of each "
            "of k groups, which is not the k largest.)"
        )
    if config.get("signed"):
        raise InputError(f"{folder} is of an old sparsify with signed activations, which NeuronMap does not read.")
    latents = int(config.get("num_latents") or 0) or lengths["D"] * int(config.get("expansion_factor") or 0)
    if config["d_in"] != lengths["D"] or (latents and latents != lengths["F"]):
        raise DamagedError(
            f"{folder / _CONFIG} says d_in = {config['d_in']} and {latents} latents, but {_WEIGHTS} holds "
            f"d_in = {lengths['D']} and {lengths['F']}."
        )
    k = config["k"]
    if not isinstance(k, int) or not 1 <= k <= lengths["F"]:
        raise DamagedError(f"{folder / _CONFIG}: k must be between 1 and {lengths['F']}, got {k!r}.")
    if bool(config.get("skip_connection")) != ("W_skip" in stored.tensors):
        raise DamagedError(
            f"{folder}: skip_connection is {config.get('skip_connection')}, but the tensors say otherwise."
        )


def _foreign(item: Exported) -> tuple[dict[str, Any], dict[str, Tensor]]:
    sae = item.sae
    rule = getattr(sae.options, "rule", sae.architecture)
    if sae.architecture not in ("topk", "transcoder") or rule != "topk" or sae.input_norm != "none":
        raise InputError(
            f"sparsify keeps the k largest activations of a row; this is a {sae.architecture} with the rule {rule}"
            + (f" on inputs normalised by {sae.input_norm}." if sae.input_norm != "none" else "."),
            hint="Export it as SAELens instead, or train a topk SAE.",
        )
    parts = unfolded(sae)
    if parts.b_enc_F is None or parts.W_dec_FO.shape[1] != sae.d_in:
        raise InputError(
            f"sparsify has transcoders of equal widths only, this one goes from {sae.d_in} to {parts.W_dec_FO.shape[1]}."
        )
    norm_F = parts.W_dec_FO.norm(dim=1)
    tensors = {
        "encoder.weight": parts.W_enc_DF.T,
        "encoder.bias": parts.b_enc_F,
        "W_dec": parts.W_dec_FO,
        "b_dec": parts.b_dec_O,
    }
    if parts.skip_OD is not None:
        tensors["W_skip"] = parts.skip_OD
    config = {
        "activation": "topk",
        "expansion_factor": max(1, sae.d_sae // sae.d_in),
        "normalize_decoder": bool(((norm_F - 1).abs() < 1e-4).all()),
        "num_latents": sae.d_sae,
        "k": int(sae.options.k),  # type: ignore[attr-defined]  # the rule is topk
        "multi_topk": False,
        "skip_connection": parts.skip_OD is not None,
        "transcode": not sae.reconstructs_input,
        "d_in": sae.d_in,
    }
    return config, {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _folder_name(item: Exported, number: int) -> str:
    """The hook point relative to the base model, as sparsify names folders."""
    hook = item.metadata.hook or {}
    path = str(hook.get("module_path") or "")
    for start in ("model.", "transformer.", "gpt_neox."):
        path = path.removeprefix(start)
    if path:
        return path
    place = Place(hook.get("layer"), hook.get("component"), None, "")
    return (
        f"layers.{place.layer}" + (f".{place.component}" if place.component not in (None, "residual") else "")
        if (place.layer is not None)
        else f"sae_{number}"
    )
