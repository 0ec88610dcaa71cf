"""Delphi's cached latents (EleutherAI): where each latent fired, and the explanations beside. Data about features, no weights.

    latents/<module>/{first}_{last}.safetensors   locations [n, 3] (context, position, latent - first), activations [n],
                                                  tokens [contexts, length] where they were saved
    latents/<module>/config.json                  model_name, dataset_repo, ctx_len, ...
    explanations/<module>_latent<N>.txt           a JSON string
    scores/{detection,fuzz}/<module>_latent<N>.txt

Of each latent, the strongest contexts are kept as examples, at most twenty; its density is exact for the cached tokens. Without
``tokens`` in the files there are activations and no text: density and maximum are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuronmap.errors import DamagedError
from neuronmap.hub.formats.external import ExternalData, ExternalFeature, parsed
from neuronmap.hub.formats.format import Candidate, Format, Given
from neuronmap.hub.formats.places import layer_in
from neuronmap.hub.formats.stored import dimensions, read_config, read_headers, read_stored

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Delphi"]

_SPLIT = re.compile(r"(\d+)_(\d+)\.safetensors")
_EXAMPLES = 20
_TENSORS = {"locations": "N3", "activations": "N"}


class Delphi(Format):
    """Reads Delphi's caches."""

    name: ClassVar[str] = "delphi"
    title: ClassVar[str] = "Delphi: cached latents and explanations of features, attached to an SAE"

    def sniff(self, path: Path) -> list[Candidate]:
        """A module's folder with splits."""
        if not path.is_dir():
            return []
        files = _splits(path)
        if not files:
            return []
        headers = read_headers(files[0]) or {}
        if not {"locations", "activations"} <= headers.keys():
            return []
        return [
            Candidate(
                self.name, path.name, path, layer_in(path.name), f"{len(files)} files of {path.name}", kind="features"
            )
        ]

    def read_features(self, candidate: Candidate, given: Given) -> ExternalData:
        """All splits, in the order of their latents."""
        del given
        folder = candidate.path
        config_file = folder / "config.json"
        config = read_config(config_file) if config_file.is_file() else {}
        files = _splits(folder)
        facts: dict[str, Any] = {
            key: config.get(key)
            for key in ("model_name", "dataset_repo", "dataset_split", "ctx_len", "n_tokens")
            if key in config
        }
        return ExternalData(
            _features(folder, files), {**facts, "module": folder.name}, [*files, *([config_file] if config else [])]
        )


def _splits(folder: Path) -> list[Path]:
    found = [(int(match[1]), file) for file in folder.iterdir() if (match := _SPLIT.fullmatch(file.name))]
    return [file for _, file in sorted(found)]


def _features(folder: Path, files: list[Path]) -> Iterator[ExternalFeature]:
    import torch

    tokens: Tensor | None = None
    for file in files:
        match = _SPLIT.fullmatch(file.name)
        first, last = (int(match[1]), int(match[2])) if match else (0, 0)
        stored = read_stored(file)
        shapes = {name: shape for name, shape in stored.shapes.items() if name != "tokens"}
        lengths = dimensions(file, shapes, _TENSORS)
        if lengths["3"] != 3:
            raise DamagedError(f"{file}: locations have {lengths['3']} columns where 3 are needed.")
        tokens = stored.tensors.get("tokens", tokens)
        place_N3 = stored.tensors["locations"].to(torch.int64)
        value_N = stored.tensors["activations"].to(torch.float32)
        latent_N = place_N3[:, 2] + first
        _check(file, place_N3, latent_N, last, tokens)
        order = torch.argsort(latent_N, stable=True)
        latents, counts = torch.unique_consecutive(latent_N[order], return_counts=True)
        start = 0
        for latent, count in zip(latents.tolist(), counts.tolist(), strict=True):
            chosen = order[start : start + count]
            start += count
            yield _feature(folder, file, latent, place_N3[chosen], value_N[chosen], tokens)


def _check(file: Path, place_N3: Tensor, latent_N: Tensor, last: int, tokens: Tensor | None) -> None:
    if not len(place_N3):
        return
    if int(latent_N.max()) > last:
        raise DamagedError(f"{file} holds latent {int(latent_N.max())}, beyond the {last} of its name.")
    if tokens is not None and (
        tokens.ndim != 2 or bool((place_N3[:, :2].amax(dim=0) >= place_N3.new_tensor(tokens.shape)).any())
    ):
        raise DamagedError(f"{file}: locations lie outside its tokens {list(tokens.shape)}.")


def _feature(
    folder: Path, file: Path, latent: int, place_N3: Tensor, value_N: Tensor, tokens: Tensor | None
) -> ExternalFeature:
    record: dict[str, Any] = {"feature": latent, "max": float(value_N.max()), "scores": _scores(folder, latent)}
    label = _said(folder.parent.parent / "explanations" / f"{folder.name}_latent{latent}.txt")
    if isinstance(label, str):
        record["label"] = label
    if tokens is not None:
        record["density"] = len(value_N) / tokens.numel()
        record["examples"] = _examples(place_N3, value_N, tokens)
    return parsed(file, record)


def _examples(place_N3: Tensor, value_N: Tensor, tokens: Tensor) -> list[dict[str, Any]]:
    """The contexts with the largest activations, each once."""
    import torch

    contexts: list[int] = []
    for number in torch.argsort(value_N, descending=True).tolist():
        context = int(place_N3[number, 0])
        if context not in contexts:
            contexts.append(context)
        if len(contexts) == _EXAMPLES:
            break
    found = []
    for context in contexts:
        inside = place_N3[:, 0] == context
        activation_T = torch.zeros(tokens.shape[1])
        activation_T[place_N3[inside, 1]] = value_N[inside]
        found.append(
            {
                "token_ids": [int(token) for token in tokens[context]],
                "activations": [float(value) for value in activation_T],
                "peak": int(activation_T.argmax()),
            }
        )
    return found


def _said(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise DamagedError(f"{file} is not valid JSON: {error}.") from error


def _scores(folder: Path, latent: int) -> dict[str, float]:
    """Share of correct answers, by scorer; records without ``correct`` are left out."""
    found: dict[str, float] = {}
    top = folder.parent.parent / "scores"
    for scorer in sorted(top.iterdir()) if top.is_dir() else []:
        said = _said(scorer / f"{folder.name}_latent{latent}.txt")
        correct = (
            [one["correct"] for one in said if isinstance(one, dict) and isinstance(one.get("correct"), bool)]
            if isinstance(said, list)
            else []
        )
        if correct:
            found[scorer.name] = sum(correct) / len(correct)
    return found
