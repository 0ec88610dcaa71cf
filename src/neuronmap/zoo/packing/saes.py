"""A bundle as an ``SAE_MODEL``, with the records of its evaluations. Weights are published byte for byte; paths of this machine are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.evaluation.suites.record import SuiteRecord
from neuronmap.saes.metadata import (
    CARD_FILE,
    CONFIG_FILE,
    EVALUATIONS_FOLDER,
    METRICS_FILE,
    WEIGHTS_FILE,
    BundleInfo,
    BundleMetadata,
    read_bundle_info,
)
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.packing.package import (
    Package,
    corpus_ref,
    figures,
    hook_ref,
    model_ref,
    named,
    tags_of,
    utc,
)
from neuronmap.zoo.packing.public import public_files, public_value

__all__ = ["pack_sae"]

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MOST_RECORD_BYTES = 16 << 20
"""Of one evaluation; one with all data sets of sae-probes has under one."""
_FILES = (CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE, "history.parquet", CARD_FILE)


def pack_sae(folder: str | Path, *, origin: Mapping[str, Any] | None = None) -> Package:
    """A bundle of the library, or a folder saved by SAELens.

    Args:
        folder: the bundle's folder; analyses beside the weights stay out, they are artefacts of their own.
        origin: for an SAE from elsewhere: where it came from, beyond what the bundle says.

    Raises:
        InputError, DamagedError: it is no sound bundle, or it does not say where the SAE reads.
    """
    folder = Path(folder)
    info = read_bundle_info(folder)
    files = named(folder / name for name in _FILES)
    metadata = info.metadata or _plain_metadata(info)
    hook = metadata.hook or (metadata.hooks[0] if metadata.hooks else None)
    if not hook:
        raise InputError(
            f"{folder} does not say at which hook point the SAE reads.", hint="Register it in the library first."
        )
    record = public_value(_record(info, metadata, hook, origin))
    model, place = record["model"]["name"], record["hook"]["name"]
    card = SafePath(CARD_FILE)
    records, left = _evaluations(folder)
    published, notes = public_files({**files, **records})
    return Package(
        kind="SAE_MODEL",
        record=record,
        files=published,
        created=utc(metadata.created, files.values()),
        title=f"{record['architecture']} SAE, {info.d_sae:,} features, {model} {place}"[:200],
        summary=_summary(record),
        tags=tags_of(metadata.tags),
        card=card if card in files else None,
        software={"neuronmap": metadata.neuronmap_version} if info.metadata is not None else {},
        sae_weights=metadata.weights_digest,
        notes=notes + left,
    )


def _evaluations(folder: Path) -> tuple[dict[SafePath, Path], tuple[str, ...]]:
    """Records of evaluation suites, which belong to the SAE; what is none stays on this machine.

    Raises:
        InvalidManifestError: one is a link out of its folder.
    """
    found: dict[SafePath, Path] = {}
    left: list[str] = []
    inner = folder / EVALUATIONS_FOLDER
    files = [] if inner.is_symlink() else [file for file in inner.glob("*.json") if not file.name.startswith(".")]
    for name, path in named(sorted(files)).items():
        try:
            sound = path.stat().st_size <= _MOST_RECORD_BYTES
            if sound:
                SuiteRecord.from_dict(paths.read_json(path))
        except (ConfigError, DamagedError, TypeError):
            sound = False
        if sound:
            found[SafePath(f"{EVALUATIONS_FOLDER}/{name}")] = path
        else:
            left.append(f"{EVALUATIONS_FOLDER}/{name}")
    said = f"Not published, since NeuronMap cannot read them as records of a suite: {', '.join(left[:4])}."
    return found, (said,) if left else ()


def _plain_metadata(info: BundleInfo) -> BundleMetadata:
    """What a plain SAELens folder says, in our words; the weights' digest is not known without reading them."""
    outer = info.config.get("metadata")
    said: dict[str, Any] = {**info.config, **(outer if isinstance(outer, dict) else {})}
    name, hook = said.get("model_name"), said.get("hook_name")
    layer = said.get("hook_layer")
    return BundleMetadata(
        model={"name": name} if name else None,
        hook={"name": hook, "layer": layer if isinstance(layer, int) else None, "width": info.d_in} if hook else None,
        origin={"format": "saelens", "version": said.get("sae_lens_version")},
    )


def _record(
    info: BundleInfo, metadata: BundleMetadata, hook: Mapping[str, Any], origin: Mapping[str, Any] | None
) -> dict[str, Any]:
    stored = info.tensors.get("W_dec") or next(iter(info.tensors.values()), None)
    model = model_ref(metadata.model)
    layer = hook.get("layer")
    origins = {**(metadata.origin or {}), **(origin or {})}
    training = {
        "config": metadata.training or {},
        "corpus": corpus_ref(metadata.corpus),
        "tokens_seen": metadata.tokens_seen,
        "steps": metadata.steps,
        "seed": metadata.seed,
        "software": {"neuronmap": metadata.neuronmap_version} if info.metadata is not None else {},
        "origin": origins or None,
    }
    precision = (metadata.model or {}).get("dtype")
    compatibility: dict[str, Any] = {
        "models": [model["name"]],
        "layers": [layer] if isinstance(layer, int) else [],
        "dtypes": [precision] if precision in _DTYPES.values() else [],
        "tokenizer_digest": model.get("tokenizer_digest"),
    }
    found: dict[str, Any] = {
        "format": "neuronmap-bundle" if info.metadata is not None else "saelens",
        "model": model,
        "hook": hook_ref(hook, info.d_in),
        "architecture": info.architecture.lower(),
        "d_in": info.d_in,
        "d_sae": info.d_sae,
        "dtype": _DTYPES.get(stored.dtype if stored is not None else "", "float32"),
        "training": {name: value for name, value in training.items() if value not in (None, {})},
        "metrics": figures(info.metrics),
        "compatibility": {name: value for name, value in compatibility.items() if value not in (None, [])},
    }
    if metadata.hook_out:
        found["hook_out"] = hook_ref(metadata.hook_out)
    if info.k is not None:
        found["k"] = info.k
    return found


def _summary(record: Mapping[str, Any]) -> str:
    """A paragraph from the figures that people look for first."""
    hook, metrics = record["hook"], record["metrics"]
    where = (
        hook["name"]
        if hook.get("layer") is None
        else f"{hook.get('component') or hook['name']} of block {hook['layer']}"
    )
    said = f"{record['d_sae']:,} features on the {where} of {record['model']['name']}"
    corpus = record["training"].get("corpus")
    if corpus:
        said += f", trained on {corpus['name']}"
    shown = [
        f"{title} {metrics[name]:.3g}"
        for name, title in (("explained_variance", "explained variance"), ("l0", "L0"), ("ce_score_mean", "CE score"))
        if name in metrics
    ]
    return f"{said}. {', '.join(shown)}." if shown else f"{said}."
