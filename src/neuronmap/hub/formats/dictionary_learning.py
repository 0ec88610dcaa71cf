"""dictionary_learning (saprmarks): ``ae.pt`` and ``config.json``, one folder a trainer.

Shapes: D = activation_dim, F = dict_size. Classes are told apart by their tensors; only top-k and BatchTopK, whose tensors
are the same, are told apart by the configuration.

    tensors                                                    rule
    bias encoder.weight encoder.bias decoder.weight            relu, bias subtracted; unit decoder columns at load   relu
    encoder.weight encoder.bias decoder.weight decoder.bias    relu, nothing subtracted                              relu
    decoder_bias encoder.weight r_mag gate_bias mag_bias ...   gate and magnitude                                    gated
    b_dec encoder.* decoder.weight [k threshold]               top-k of each row, or one threshold         topk, batchtopk
    W_enc b_enc W_dec b_dec k threshold group_sizes            one threshold                                    matryoshka
    W_enc b_enc W_dec b_dec threshold[F]                       jumprelu, nothing subtracted                       jumprelu

The package multiplies the activations of ``AutoEncoder`` by the decoder's column norms when it loads one, and those of
``AutoEncoderNew`` when it gives them beside the reconstruction; so do we. A finished file has the norm of its training data
folded in. A *backup*, which is called ``ae.pt`` as well, has not, and nothing says the factor: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.building import Parts, unfolded
from neuronmap.hub.formats.format import Candidate, Exported, Format, Given, Imported
from neuronmap.hub.formats.origins import foreign_metadata
from neuronmap.hub.formats.places import Place
from neuronmap.hub.formats.stored import Stored, dimensions, read_config, read_stored
from neuronmap.hub.formats.unpickling import save_plain
from neuronmap.paths import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.saes import SparseAutoencoder

__all__ = ["DictionaryLearning"]

_WEIGHTS, _CONFIG, _EVALUATION = "ae.pt", "config.json", "eval_results.json"
_LINEAR = {"encoder.weight": "FD", "encoder.bias": "F", "decoder.weight": "DF"}
_PLAIN = {"W_enc": "DF", "b_enc": "F", "W_dec": "FD", "b_dec": "D"}
_KINDS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "AutoEncoder": ({"bias": "D", **_LINEAR}, {}),
    "AutoEncoderNew": ({**_LINEAR, "decoder.bias": "D"}, {}),
    "GatedAutoEncoder": (
        {
            "decoder_bias": "D",
            "encoder.weight": "FD",
            "r_mag": "F",
            "gate_bias": "F",
            "mag_bias": "F",
            "decoder.weight": "DF",
        },
        {},
    ),
    "top-k": ({**_LINEAR, "b_dec": "D"}, {"k": "", "threshold": ""}),
    "MatryoshkaBatchTopKSAE": ({**_PLAIN, "group_sizes": "G"}, {"k": "", "threshold": ""}),
    "JumpReluAutoEncoder": ({**_PLAIN, "threshold": "F"}, {}),
}
_PLACES = (
    (r"resid(?:ual)?(?:_post)?_layer_(\d+)", "residual"),
    (r"resid(?:ual)?_pre_layer_(\d+)", "residual_pre"),
    (r"mlp(?:_out)?_layer_(\d+)", "mlp"),
    (r"att(?:n|ention)(?:_out)?_layer_(\d+)", "attention"),
)
_OUR_CLASSES = {
    "relu": ("AutoEncoder", "StandardTrainer"),
    "gated": ("GatedAutoEncoder", "GatedSAETrainer"),
    "topk": ("AutoEncoderTopK", "TopKTrainer"),
    "batchtopk": ("BatchTopKSAE", "BatchTopKTrainer"),
    "matryoshka": ("MatryoshkaBatchTopKSAE", "MatryoshkaBatchTopKTrainer"),
    "jumprelu": ("JumpReluAutoEncoder", "JumpReluTrainer"),
}


class DictionaryLearning(Format):
    """Reads and writes the seven classes of dictionary_learning."""

    name: ClassVar[str] = "dictionary_learning"
    title: ClassVar[str] = "dictionary_learning: ae.pt and config.json (a pickle, opened in a process of its own)"
    writes: ClassVar[bool] = True
    answers: ClassVar[Mapping[str, str]] = {
        "rule": "topk or batchtopk, for a file without a configuration",
        "k": "active features per row, for an old top-k file",
    }

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with ``ae.pt``, or such a file."""
        folder, file = (path, path / _WEIGHTS) if path.is_dir() else (path.parent, path)
        if not file.is_file() or file.suffix != ".pt" or (path.is_file() and not re.fullmatch(r"ae(_\d+)?", file.stem)):
            return []
        config = self._config(folder)
        trainer = config.get("trainer") or {}
        place = _place(trainer, config.get("buffer") or {})
        about = ", ".join(str(part) for part in (trainer.get("dict_class"), trainer.get("submodule_name")) if part)
        layer = place.layer if place is not None else None
        return [Candidate(self.name, path.name, file, layer, about, details={"config": config})]

    def owns(self, stored: Stored) -> bool:
        """Whether the tensors are one of the classes', or a backup's."""
        return _kind(stored) is not None or "ae/encoder.weight" in stored.tensors or "ae/W_enc" in stored.tensors

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one ``ae.pt``; see the table at the top."""
        file = candidate.path
        config = candidate.details.get("config")
        if config is None:
            config = self._config(file.parent)
        stored = candidate.stored or read_stored(file)
        if any(name.startswith(("ae/", "optimizer/")) for name in stored.tensors):
            raise InputError(
                f"{file} is a backup of a run in dictionary_learning (weights, optimiser, step). Its biases are in units that "
                "the run normalised by a factor which the file does not give where it matters.",
                hint="Import the finished ae.pt, or a checkpoint from checkpoints/.",
            )
        kind = _kind(stored)
        if kind is None:
            known = ", ".join(sorted(stored.tensors)[:12])
            raise InputError(f"{file} is none of dictionary_learning's classes: it holds {known or 'no tensors'}.")
        wanted, optional = _KINDS[kind]
        lengths = dimensions(file, stored.shapes, wanted, optional)
        trainer, buffer = config.get("trainer") or {}, config.get("buffer") or {}
        sae, notes = _build(kind, stored, trainer, given)
        place = _place(trainer, buffer)
        metadata = foreign_metadata(
            candidate, given, [stored, *self._beside(file.parent)],
            config=config, model=trainer.get("lm_name"), place=place, width=lengths["D"],
        )  # fmt: skip
        if buffer.get("io") == "in_and_out":
            notes.append(
                "It was trained on pairs (input and output of a module): it may be a transcoder; the file does not say."
            )
        return Imported(sae, metadata.updated(seed=_integer(trainer.get("seed"))), _claims(file.parent), tuple(notes))

    def write(self, items: list[Exported], folder: Path, given: Given) -> list[Path]:
        """``ae.pt`` and ``config.json``; for several SAEs under ``trainer_0``, ``trainer_1``, ..."""
        del given
        written: list[Path] = []
        for number, item in enumerate(items):
            target = folder if len(items) == 1 else folder / f"trainer_{number}"
            target.mkdir(exist_ok=True)
            tensors, trainer = _foreign(item)
            hook, model = item.metadata.hook or {}, item.metadata.model or {}
            trainer |= {
                "layer": hook.get("layer"),
                "lm_name": model.get("name"),
                "submodule_name": hook.get("name") or hook.get("component"),
                "seed": item.metadata.seed,
                "steps": item.metadata.steps,
                "device": "cpu",
                "wandb_name": "",
            }
            save_plain(tensors, target / _WEIGHTS)
            write_json(
                target / _CONFIG,
                {"trainer": trainer, "buffer": {"d_submodule": item.sae.d_in, "io": hook.get("side", "out")}},
            )
            written += [target / _WEIGHTS, target / _CONFIG]
        return written

    @staticmethod
    def _config(folder: Path) -> dict[str, Any]:
        """Of this folder, or (for a file under ``checkpoints``) of the one above."""
        for place in (folder, folder.parent):
            if (place / _CONFIG).is_file() and (place == folder or folder.name == "checkpoints"):
                config = read_config(place / _CONFIG)
                for part in ("trainer", "buffer"):
                    if not isinstance(config.get(part) or {}, dict):
                        raise DamagedError(f"{place / _CONFIG}: {part} is not a JSON object.")
                return config
        return {}

    @staticmethod
    def _beside(folder: Path) -> list[Path]:
        return [folder / name for name in (_CONFIG, _EVALUATION) if (folder / name).is_file()]


def _kind(stored: Stored) -> str | None:
    """The class by its tensors: all it must have, and nothing that it may not."""
    names = set(stored.tensors)
    for kind, (wanted, optional) in _KINDS.items():
        if wanted.keys() <= names <= wanted.keys() | optional.keys():
            return kind
    return None


def _build(kind: str, stored: Stored, trainer: dict[str, Any], given: Given) -> tuple[SparseAutoencoder, list[str]]:
    file, tensors = stored.file, stored.tensors
    notes: list[str] = []
    if "encoder.weight" in tensors:
        W_enc_DF, W_dec_FD = tensors["encoder.weight"].T, tensors["decoder.weight"].T
    else:
        W_enc_DF, W_dec_FD = tensors["W_enc"], tensors["W_dec"]
    if kind == "GatedAutoEncoder":
        b_dec = tensors["decoder_bias"]
        gate = {"b_gate": tensors["gate_bias"], "b_mag": tensors["mag_bias"], "r_mag": tensors["r_mag"]}
        return Parts(W_enc_DF, W_dec_FD, b_dec, centre_D=b_dec, gate=gate).autoencoder(file, "gated"), notes
    b_enc = tensors["encoder.bias"] if "encoder.bias" in tensors else tensors["b_enc"]
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        b_dec = tensors["bias"] if kind == "AutoEncoder" else tensors["decoder.bias"]
        parts = Parts(W_enc_DF, W_dec_FD, b_dec, b_enc, centre_D=b_dec if kind == "AutoEncoder" else None)
        notes.append(
            "Decoder norms were moved into the encoder, as dictionary_learning does when it loads such a file."
        )
        return parts.with_unit_rows().autoencoder(file, "relu"), notes
    b_dec = tensors["b_dec"]
    if kind == "JumpReluAutoEncoder":
        return Parts(W_enc_DF, W_dec_FD, b_dec, b_enc, threshold_F=tensors["threshold"]).autoencoder(
            file, "jumprelu"
        ), notes
    k = _k(stored, trainer, given)
    parts = Parts(W_enc_DF, W_dec_FD, b_dec, b_enc, centre_D=b_dec)
    if kind == "top-k" and _rule(file, trainer, given) == "topk":
        return Parts(**{**parts.__dict__, "k": k}).autoencoder(file, "topk"), notes
    threshold = float(tensors["threshold"]) if "threshold" in tensors else -1.0
    if threshold < 0:
        notes.append("Its threshold was never set (the run was too short), so every positive feature fires.")
        threshold = 0.0
    filled = parts.double()
    filled = Parts(**{**filled.__dict__, "threshold_F": filled.b_dec_O.new_tensor(threshold)})
    if kind == "top-k":
        return filled.autoencoder(file, "batchtopk", {"k": k}), notes
    sizes = [int(size) for size in tensors["group_sizes"].tolist()]
    total = W_enc_DF.shape[1]
    if sum(sizes) != total or min(sizes) < 1:
        raise DamagedError(f"{file}: group_sizes {sizes} do not add up to the {total} features.")
    fractions = tuple(size / total for size in sizes)
    return filled.autoencoder(file, "matryoshka", {"k": k, "group_fractions": fractions}), notes


def _rule(file: Path, trainer: dict[str, Any], given: Given) -> str:
    said = given.assume.get("rule")
    if said is not None:
        if said not in ("topk", "batchtopk"):
            raise InputError(f"rule={said}: {file.name} can be topk or batchtopk.")
        return said
    names = f"{trainer.get('dict_class', '')} {trainer.get('trainer_class', '')}"
    if "BatchTopK" in names:
        return "batchtopk"
    if "TopK" in names:
        return "topk"
    raise InputError(
        f"{file} can be a top-k SAE or a BatchTopK SAE: their tensors are the same, and there is no configuration that tells.",
        hint="Say which: --assume rule=topk or --assume rule=batchtopk.",
    )


def _k(stored: Stored, trainer: dict[str, Any], given: Given) -> int:
    found = stored.tensors.get("k")
    k = int(found) if found is not None else _integer(given.assume.get("k", trainer.get("k")))
    if k is None or k < 1:
        raise InputError(f"{stored.file} does not say how many features are active (k).", hint="Say it: --assume k=N.")
    return k


def _integer(value: Any) -> int | None:
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError):
        return None


def _place(trainer: dict[str, Any], buffer: dict[str, Any]) -> Place | None:
    name = str(trainer.get("submodule_name") or "")
    for pattern, component in _PLACES:
        match = re.fullmatch(pattern, name)
        if match:
            if component == "residual" and buffer.get("io") == "in":
                component = "residual_pre"
            return Place(int(match[1]), component, None, name)
    layer = _integer(trainer.get("layer"))
    return Place(layer, None, None, name) if layer is not None or name else None


def _claims(folder: Path) -> dict[str, float]:
    file = folder / _EVALUATION
    if not file.is_file():
        return {}
    found = read_json(file)
    names = {"frac_variance_explained": "explained_variance", "l0": "l0", "frac_recovered": "ce_recovered"}
    return {
        ours: float(found[theirs])
        for theirs, ours in names.items()
        if isinstance(found, dict) and isinstance(found.get(theirs), int | float)
    }


def _foreign(item: Exported) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors under the package's names, and the part of the configuration that goes with them."""
    import torch

    sae = item.sae
    classes = _OUR_CLASSES.get(sae.architecture)
    if classes is None or sae.input_norm != "none":
        what = f"input_norm {sae.input_norm}" if classes else f"architecture {sae.architecture}"
        raise InputError(f"dictionary_learning has no class for an SAE with {what}. It has: {', '.join(_OUR_CLASSES)}.")
    parts = unfolded(sae)
    trainer = {
        "trainer_class": classes[1],
        "dict_class": classes[0],
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
    }
    tensors: dict[str, Tensor | None]
    linear = {"encoder.weight": parts.W_enc_DF.T, "decoder.weight": parts.W_dec_FO.T}
    plain = {"W_enc": parts.W_enc_DF, "W_dec": parts.W_dec_FO, "b_dec": parts.b_dec_O}
    if sae.architecture == "gated" and parts.gate is not None:
        gate = {"gate_bias": parts.gate["b_gate"], "mag_bias": parts.gate["b_mag"], "r_mag": parts.gate["r_mag"]}
        tensors = {**linear, **gate, "decoder_bias": parts.b_dec_O}
    elif sae.architecture == "relu":
        tensors = {**linear, "encoder.bias": parts.b_enc_F, "bias": parts.b_dec_O}
    elif sae.architecture == "jumprelu" and parts.b_enc_F is not None:
        tensors = {**plain, "b_enc": parts.b_enc_F - parts.b_dec_O @ parts.W_enc_DF, "threshold": parts.threshold_F}
    else:
        tensors = {**linear, "encoder.bias": parts.b_enc_F, "b_dec": parts.b_dec_O}
        if sae.architecture == "matryoshka":
            tensors = {**plain, "b_enc": parts.b_enc_F}
    found = {name: tensor.float().contiguous() for name, tensor in tensors.items() if tensor is not None}
    if sae.architecture in ("topk", "batchtopk", "matryoshka"):
        k = int(sae.options.k)  # type: ignore[attr-defined]  # the top-k family has one
        trainer["k"] = k
        level = -1.0 if parts.threshold_F is None else float(parts.threshold_F.max())
        found |= {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(level, dtype=torch.float32)}
    if sae.architecture == "matryoshka":
        widths = [0, *sae.level_widths()]  # type: ignore[operator]
        sizes = [end - start for start, end in pairwise(widths)]
        found["group_sizes"] = torch.tensor(sizes)
    return found, trainer
