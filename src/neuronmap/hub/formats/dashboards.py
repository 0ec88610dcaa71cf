"""SAEDashboard's output for Neuronpedia: ``batch-N.json`` and ``skipped_indexes.json``. Data about features, no weights.

    batch-N.json   model_id, layer, sae_set, sae_id_suffix, features[feature_index, frac_nonzero, pos_str, pos_values, neg_str,
                   neg_values, activations[tokens, values, qualifying_token_index, bin_min, bin_max, bin_contains], ...]

The group of the strongest examples has ``bin_min = bin_contains = -1``; it is written here without a lower end and share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from neuronmap.errors import DamagedError
from neuronmap.hub.formats.external import ExternalData, ExternalFeature, parsed
from neuronmap.hub.formats.format import Candidate, Format, Given
from neuronmap.hub.formats.places import layer_in
from neuronmap.hub.formats.stored import read_config

__all__ = ["SAEDashboard"]

_BATCH = re.compile(r"batch-(\d+)\.json")


class SAEDashboard(Format):
    """Reads batches of dashboards."""

    name: ClassVar[str] = "sae_dashboard"
    title: ClassVar[str] = "SAEDashboard: batch-N.json; examples and tokens of features, attached to an SAE"

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with batches."""
        if not path.is_dir():
            return []
        files = self._batches(path)
        if not files:
            return []
        first = read_config(files[0])
        if "features" not in first or "model_id" not in first:
            return []
        about = f"{len(files)} batches, {first.get('model_id')}, layer {first.get('layer')}, {first.get('sae_set')}"
        layer = first.get("layer")
        return [
            Candidate(
                self.name,
                path.name,
                path,
                layer if isinstance(layer, int) else layer_in(str(layer)),
                about,
                kind="features",
            )
        ]

    def read_features(self, candidate: Candidate, given: Given) -> ExternalData:
        """All batches, in the order of their numbers."""
        del given
        files = self._batches(candidate.path)
        first = read_config(files[0], ["features"])
        facts = {key: first.get(key) for key in ("model_id", "layer", "sae_set", "sae_id_suffix")}
        skipped = candidate.path / "skipped_indexes.json"
        return ExternalData(_features(files), facts, [*files, *([skipped] if skipped.is_file() else [])])

    @staticmethod
    def _batches(folder: Path) -> list[Path]:
        found = [(int(match[1]), file) for file in folder.iterdir() if (match := _BATCH.fullmatch(file.name))]
        return [file for _, file in sorted(found)]


def _features(files: list[Path]) -> Iterator[ExternalFeature]:
    for file in files:
        batch = read_config(file, ["features"])
        if not isinstance(batch["features"], list):
            raise DamagedError(f"{file}: features is a {type(batch['features']).__name__}, not a list.")
        for record in batch["features"]:
            yield _feature(file, record)


def _feature(file: Path, record: Any) -> ExternalFeature:
    if not isinstance(record, dict) or not isinstance(record.get("feature_index"), int):
        raise DamagedError(f"{file}: a feature has no feature_index.")
    examples = [_example(file, record["feature_index"], one) for one in record.get("activations") or []]
    return parsed(
        file,
        {
            "feature": record["feature_index"],
            "density": record.get("frac_nonzero"),
            "max": max((max(one["activations"], default=0.0) for one in examples), default=None),
            "promoted": _tokens(file, record, "pos"),
            "suppressed": _tokens(file, record, "neg"),
            "examples": examples,
        },
    )


def _example(file: Path, feature: int, one: Any) -> dict[str, Any]:
    tokens, values = (one.get("tokens"), one.get("values")) if isinstance(one, dict) else (None, None)
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values) or not tokens:
        raise DamagedError(f"{file}: an example of feature {feature} has not one value for each token.")
    strongest = max(range(len(values)), key=values.__getitem__)
    top = one.get("bin_contains") == -1
    return {
        "tokens": [str(token) for token in tokens],
        "activations": values,
        "peak": strongest,
        "low": None if top else _number(one.get("bin_min")),
        "high": _number(one.get("bin_max")),
        "share": None if top else _number(one.get("bin_contains")),
    }


def _tokens(file: Path, record: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    texts, values = record.get(f"{side}_str") or [], record.get(f"{side}_values") or []
    if len(texts) != len(values):
        raise DamagedError(
            f"{file}: feature {record['feature_index']} has {len(texts)} {side}_str for {len(values)} values."
        )
    return [{"token": str(text), "value": value} for text, value in zip(texts, values, strict=True)]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
