"""Neuronpedia's bulk format: what ``GET /api/admin/import`` reads.

    <target>/<model>/<source>/release.jsonl model.jsonl sourceset.jsonl source.jsonl      one line each
        features/batch-N.jsonl.gz   activations/batch-N.jsonl.gz   explanations/batch-N.jsonl.gz

The importer takes its columns from the first line of each file, so every line has the same keys; it cannot store NUL; ids of
activations and explanations are unique in its database, so they are made from the analysis' key and the names. It reads from
its own bucket only: a bundle is handed over, or loaded into a database of one's own.
"""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuronmap import paths
from neuronmap.errors import ConfigError
from neuronmap.features.export.records import example_record, finite, public_name
from neuronmap.features.summary.distributions import histogram_quantiles
from neuronmap.hashing import digest_json, short

if TYPE_CHECKING:
    from neuronmap.features.storage.store import Example, FeatureRecord, FeatureStore

__all__ = ["CREATOR", "NeuronpediaNames", "feature_document", "model_id", "write_bundle"]

CREATOR = "clkht01d40000jv08hvalcvly"
"""The user that Neuronpedia's database is seeded with; activations of others are hidden by default."""
BATCH = 1024
_MODEL_ID = re.compile(r"[a-z][a-z0-9.-]{0,30}[a-z0-9]")
_SET = re.compile(r"[A-Za-z0-9.-]+")


@dataclass(frozen=True)
class NeuronpediaNames:
    """What things are called there.

    Attributes:
        model: id of the model: lower case letters, digits, dots and hyphens, at most 32.
        source_set: name of the set of sources: letters, digits, dots and hyphens; the source is ``<layer>-<set>``.
        layer: number of the block.
        release: name of the release.
        author: who made it.
        description: of the release.
    """

    model: str
    source_set: str
    layer: int
    release: str
    author: str
    description: str = ""

    def __post_init__(self) -> None:
        if not _MODEL_ID.fullmatch(self.model):
            raise ConfigError(
                f"Neuronpedia cannot have a model {self.model!r}: lower case letters, digits, dots and hyphens, 2 to 32 of them,"
                " a letter first and no hyphen or dot last."
            )
        if not _SET.fullmatch(self.source_set) or "__" in self.source_set:
            raise ConfigError(
                f"Neuronpedia cannot have a source set {self.source_set!r}: letters, digits, dots and hyphens."
            )
        if self.layer < 0:
            raise ConfigError(f"layer = {self.layer}: blocks are counted from 0.")

    @property
    def source(self) -> str:
        """Id of the source."""
        return f"{self.layer}-{self.source_set}"


def model_id(name: str) -> str:
    """An id that Neuronpedia allows, from the name of a model: ``org/My_Model`` -> ``my-model``."""
    letters = [c if c.isalnum() and c.isascii() else "-" for c in Path(name).name.lower()]
    return "".join(letters).lstrip("-0123456789")[:32].rstrip("-") or "model"


def feature_document(store: FeatureStore, feature: int, names: NeuronpediaNames) -> dict[str, Any]:
    """One feature as ``GET /api/feature/{model}/{source}/{index}`` answers there: its row with activations and explanations.

    Raises:
        InputError: no such feature.
    """
    lines: dict[str, list[bytes]] = {"features": [], "activations": [], "explanations": []}
    _add(store, feature, names, lines)
    heads = _heads(store, names)
    return {
        **json.loads(lines["features"][0]),
        "activations": [json.loads(line) for line in lines["activations"]],
        "explanations": [json.loads(line) for line in lines["explanations"]],
        "model": heads["model"],
        "source": heads["source"],
        "sourceSet": heads["sourceset"],
        "lists": [],
        "comments": [],
    }


def write_bundle(
    store: FeatureStore, features: Sequence[int], target: Path, names: NeuronpediaNames, advance: Callable[[int], None]
) -> None:
    """Write the bundle beside the target and rename it into place.

    Args:
        store: the analysis.
        features: which, in this order.
        target: a folder, replaced if it is there.
        names: how things are called.
        advance: is told of each feature that is done.
    """
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with paths.staging_folder(made) as staging:
        folder = paths.new_folder(staging / names.model / names.source)
        for name, line in _heads(store, names).items():
            paths.write_bytes(folder / f"{name}.jsonl", _line(line))
        for number, first in enumerate(range(0, len(features), BATCH)):
            lines: dict[str, list[bytes]] = {"features": [], "activations": [], "explanations": []}
            for feature in features[first : first + BATCH]:
                _add(store, feature, names, lines)
                advance(1)
            for name, found in lines.items():
                if found:  # a part of 1,024 features may have no label, or none that fired
                    paths.new_folder(folder / name)
                    # mtime 0: the same features give the same bytes
                    paths.write_bytes(
                        folder / name / f"batch-{number}.jsonl.gz", gzip.compress(b"".join(found), mtime=0)
                    )
    paths.replace_folder(made, target)


def _heads(store: FeatureStore, names: NeuronpediaNames) -> dict[str, dict[str, Any]]:
    model, corpus, sae = (store.facts.get(part) or {} for part in ("model", "corpus", "sae"))
    created, called = str(store.manifest["created"]), public_name(model.get("name")) or names.model
    return {
        "release": {
            "name": names.release,
            "description": names.description or f"SAE features of {called}",
            "descriptionShort": None,
            "urls": [],
            "creatorName": names.author,
            "creatorNameShort": None,
            "creatorId": CREATOR,
            "visibility": "UNLISTED",
            "isNewUi": True,
            "featured": False,
            "default": False,
            "createdAt": created,
        },
        "model": {
            "id": names.model,
            "displayName": called,
            "displayNameShort": names.model,
            "layers": int(model.get("num_layers") or names.layer + 1),
            "neuronsPerLayer": 0,
            "owner": called.split("/")[0] if "/" in called else names.author,
            "creatorId": CREATOR,
            "instruct": False,
            "dimension": int(model.get("hidden_size") or 0),
            "visibility": "UNLISTED",
            "inferenceEnabled": False,
            "createdAt": created,
            "updatedAt": created,
            "website": None,
        },
        "sourceset": {
            "modelId": names.model,
            "name": names.source_set,
            "description": names.description or names.release,
            "type": "SAE",
            "creatorName": names.author,
            "creatorId": CREATOR,
            "urls": [],
            "releaseName": names.release,
            "hasDashboards": True,
            "visibility": "UNLISTED",
            "defaultRange": 1,
            "defaultShowBreaks": True,
            "showDfa": False,
            "showCorrelated": False,
            "showHeadAttribution": False,
            "showUmap": False,
        },
        "source": {
            "id": names.source,
            "modelId": names.model,
            "setName": names.source_set,
            "creatorId": CREATOR,
            "hasDashboards": True,
            "visibility": "UNLISTED",
            "dataset": public_name(corpus.get("name")),
            "num_prompts": store.num_contexts,
            "num_tokens_in_prompt": store.context_length,
            "hfRepoId": None,
            "hfFolderId": None,
            "notes": f"NeuronMap analysis {store.key}; SAE {sae.get('id', '')} {sae.get('weights_digest', '')}",
        },
    }


def _add(store: FeatureStore, feature: int, names: NeuronpediaNames, lines: dict[str, list[bytes]]) -> None:
    record = store.feature(feature)
    row, details = record.row, record.details
    lines["features"].append(_line(_feature_line(store, feature, row, details, names)))
    for example in store.examples(feature):
        if example.kind in ("top", "quantile"):
            lines["activations"].append(_line(_activation_line(store, example, row, details, names)))
    if record.label:
        lines["explanations"].append(_line(_explanation_line(store, record, names)))


def _explanation_line(store: FeatureStore, record: FeatureRecord, names: NeuronpediaNames) -> dict[str, Any]:
    hint = record.hint or {}
    return {
        "id": _id(store, names, "explanation", record.feature),
        "modelId": names.model,
        "layer": names.source,
        "index": str(record.feature),
        "description": record.label,
        "authorId": CREATOR,
        "typeName": None,  # both name rows of tables of theirs
        "explanationModelName": None,
        "notes": f"rule: {hint.get('rule') or ''}; F1 {_short(hint.get('f1'))} on held-out documents",
    }


def _feature_line(
    store: FeatureStore, feature: int, row: dict[str, Any], details: dict[str, Any], names: NeuronpediaNames
) -> dict[str, Any]:
    heights, values = _bars(details["histogram"] or [], np.sqrt(store.edges[:-1] * store.edges[1:]))
    centre = row.get("logit_mean") or 0.0
    logit_heights, logit_values = _bars(
        details["logit_histogram"] or [], centre + (np.arange(64) * 0.25 - 7.875) * (row.get("logit_std") or 0.0)
    )

    def texts(name: str) -> list[str]:
        vocabulary = store.vocabulary  # an id without a text is shown as a number
        return [vocabulary.text_of(entry["token"]) or vocabulary.shown(entry["token"]) for entry in details[name] or []]

    neighbours = details["neighbours"] or []
    return {
        "modelId": names.model,
        "layer": names.source,
        "index": str(feature),
        "sourceSetName": names.source_set,
        "creatorId": CREATOR,
        "createdAt": str(store.manifest["created"]),
        "maxActApprox": float(row["max"] or 0.0),
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "hookName": (store.facts.get("hook") or {}).get("name"),
        "vectorDefaultSteerStrength": None,
        "topkCosSimIndices": [entry["feature"] for entry in neighbours],
        "topkCosSimValues": [entry["cosine"] for entry in neighbours],
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [],
        "correlated_features_pearson": [],
        "correlated_features_l1": [],
        "neg_str": texts("suppressed"),
        "neg_values": [entry["value"] for entry in details["suppressed"] or []],
        "pos_str": texts("promoted"),
        "pos_values": [entry["value"] for entry in details["promoted"] or []],
        "frac_nonzero": float(row["density"]),
        "freq_hist_data_bar_heights": heights,
        "freq_hist_data_bar_values": values,
        "logits_hist_data_bar_heights": logit_heights,
        "logits_hist_data_bar_values": logit_values,
        "decoder_weights_dist": [],
    }


def _bars(counts: Sequence[int], centres: Any) -> tuple[list[int], list[float]]:
    """Heights and centres of the bars from the first to the last that is not empty."""
    filled = [at for at, count in enumerate(counts) if count]
    if not filled:
        return [], []
    part = slice(filled[0], filled[-1] + 1)
    return [int(count) for count in counts[part]], [float(value) for value in centres[part]]


def _activation_line(
    store: FeatureStore, example: Example, row: dict[str, Any], details: dict[str, Any], names: NeuronpediaNames
) -> dict[str, Any]:
    record = example_record(example)
    values = record["activations"]
    low, high, share = -1.0, float(row["max"]), -1.0
    if example.kind == "quantile":
        low, high, share = _interval(store, example.group, row, details)
    return {
        "id": _id(store, names, example.kind, example.feature, example.group, example.rank),
        "tokens": record["pieces"],
        "modelId": names.model,
        "layer": names.source,
        "index": str(example.feature),
        "creatorId": CREATOR,
        "createdAt": str(store.manifest["created"]),
        "maxValue": max(values),
        "maxValueTokenIndex": int(np.argmax(values)),
        "minValue": min(values),
        "values": values,
        "binMin": low,
        "binMax": high,
        "binContains": share,
        "qualifyingTokenIndex": record["peak"],
        "dataSource": record["document"],
        "dataIndex": str(example.sequence),
        "dfaValues": [],
        "dfaTargetIndex": None,
        "dfaMaxValue": None,
        "lossValues": [],
        "logitContributions": None,
    }


def _interval(
    store: FeatureStore, group: int, row: dict[str, Any], details: dict[str, Any]
) -> tuple[float, float, float]:
    """Of a quantile group: its smallest and largest activation, and its share of all tokens."""
    groups = store.config.quantiles
    histogram = np.asarray(details["histogram"], np.int64)[None]
    shares = [step / groups for step in range(1, groups + 1)]
    edges = histogram_quantiles(histogram, np.asarray([row["max"]]), float(store.manifest["unit"]), shares)[0]
    return (0.0 if group == 0 else float(edges[group - 1])), float(edges[group]), float(row["density"]) / groups


def _id(store: FeatureStore, names: NeuronpediaNames, *parts: str | int) -> str:
    return f"nm{short(digest_json([store.key, names.model, names.source, *parts]), 23)}"


def _short(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(_storable(row), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _storable(value: Any) -> Any:
    """Without NUL and lone surrogates, which its database cannot store, and without NaN, which JSON has not."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", errors="replace").decode()
    if isinstance(value, dict):
        return {name: _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else finite(value)
