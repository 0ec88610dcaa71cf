"""Analyses, evaluations and reports as ``ANALYSIS_RESULT``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronmap.errors import DamagedError, InputError
from neuronmap.features.storage.manifest import MANIFEST, check_files, read_manifest, seal
from neuronmap.features.storage.schema import FORMAT
from neuronmap.paths import read_json
from neuronmap.saes.metadata import METRICS_FILE, read_bundle_info, summary_numbers
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.packing.package import Package, corpus_ref, figures, model_ref, named, utc
from neuronmap.zoo.packing.public import public_document, public_files, public_value

__all__ = ["name_beside", "pack_analysis", "pack_evaluation", "pack_report"]

_STORE_PATHS = ("config", "facts")
_REPORT_PATHS = ("model", "settings", "similarity", "between", "warnings")
"""Fields of the two documents in which paths of this machine may stand: names of models and texts, settings, what is said of them."""


def name_beside(sae: str, analysis: str, *, alone: bool) -> str:
    """What an analysis is called that is published beside its SAE: ``<sae>-features``, with its own name behind where there are several.

    Args:
        sae: name of the artefact.
        analysis: name of the analysis.
        alone: whether it is the only one.
    """
    return f"{sae}-features" if alone else f"{sae}-features-{analysis.lower()}"


def pack_analysis(folder: str | Path) -> Package:
    """A feature store: what its manifest lists and the manifest, nothing else that may lie in the folder.

    The manifest is published without this machine's paths, and sealed again. Its key, which names the analysis beside the SAE, and the
    digests of the tables stay: no digest but the seal is over what is shortened.

    Raises:
        InputError: there is no feature store, or it does not say which SAE it is of.
        DamagedError, MismatchError: it is damaged, unfinished, or of another version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest, verify=True)
    facts = manifest["facts"]
    sae, hook = facts.get("sae") or {}, facts.get("hook") or {}
    if not sae.get("weights_digest"):
        raise InputError(
            f"The analysis {folder} does not say which SAE's weights it is of.", hint="Analyse the SAE again."
        )
    files = named(folder / name for name in (MANIFEST, *manifest["files"]))
    inside = SafePath(MANIFEST)
    files[inside], notes = public_document(inside, folder / MANIFEST, manifest, _STORE_PATHS, seal)
    model = model_ref(facts.get("model"))
    corpus = corpus_ref(facts.get("corpus"))
    record = {
        "analysis": "features",
        "format": FORMAT,
        "model": model,
        "layer": hook.get("layer"),
        "component": hook.get("component"),
        "weights_digest": sae["weights_digest"],
        "corpus": corpus,
        "settings": {**manifest["config"], "made_with": facts.get("made_with") or {}},
        "features": manifest["features"],
        "metrics": _overview(manifest["overview"]),
        "software": {"neuronmap": manifest["neuronmap"]},
    }
    text = corpus["name"] if corpus else "text"
    return Package(
        kind="ANALYSIS_RESULT",
        record=public_value({name: value for name, value in record.items() if value is not None}),
        files=files,
        created=utc(manifest["created"]),
        title=f"Features of {model['name']} {hook.get('name') or ''} on {manifest['rows']:,} tokens of {text}"[:200],
        summary=f"{manifest['features']:,} features: densities, examples, tokens, labels and map, over "
        f"{manifest['rows']:,} tokens of {text}.",
        software={"neuronmap": manifest["neuronmap"]},
        sae_weights=sae["weights_digest"],
        notes=(
            "The analysis holds the text it was made on: its licence must allow sharing that.",
            *notes,
        ),
    )


def pack_evaluation(folder: str | Path) -> Package:
    """The ``metrics.json`` of a bundle as an artefact of its own, about the SAE whose bundle it lies in.

    Raises:
        InputError: the folder is no bundle, or has not been evaluated.
    """
    folder = Path(folder)
    info = read_bundle_info(folder)
    file = folder / METRICS_FILE
    if not file.is_file() or info.metadata is None:
        raise InputError(f"{folder} holds no evaluation of a NeuronMap bundle.", hint="neuronmap sae evaluate NAME")
    metrics = read_json(file)
    core = metrics.get("core") if isinstance(metrics, dict) else None
    protocol = core.get("protocol") if isinstance(core, dict) else None
    hook, model = info.metadata.hook or {}, model_ref(info.metadata.model)
    record = {
        "analysis": "evaluation",
        "format": "neuronmap-metrics",
        "model": model,
        "layer": hook.get("layer"),
        "component": hook.get("component"),
        "weights_digest": info.metadata.weights_digest,
        "settings": protocol if isinstance(protocol, dict) else {},
        "features": info.d_sae,
        "metrics": figures(summary_numbers(metrics)),
        "software": {"neuronmap": info.metadata.neuronmap_version},
    }
    files, notes = public_files(named([file]))
    return Package(
        kind="ANALYSIS_RESULT",
        record=public_value({name: value for name, value in record.items() if value is not None}),
        files=files,
        created=utc(None, [file]),
        title=f"Evaluation of a {info.architecture} SAE, {info.d_sae:,} features, {model['name']}"[:200],
        software={"neuronmap": info.metadata.neuronmap_version},
        sae_weights=info.metadata.weights_digest,
        notes=notes,
    )


def pack_report(folder: str | Path) -> Package:
    """A report of the abstraction tracker: the folder that holds its ``report.json``, or the file.

    It is published without this machine's paths. No digest is over them; prompts, examples and concepts stay as they are.

    Raises:
        InputError: there is no report.
        DamagedError: it cannot be read.
    """
    from neuronmap.abstraction.record import TrackingReport

    path = Path(folder)
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"There is no report in {folder} (report.json is missing).")
    values: Any = read_json(file)
    if not isinstance(values, Mapping) or values.get("format") != "neuronmap-tracking-report":
        raise InputError(f"{file} is no report of the abstraction tracker.")
    try:
        report = TrackingReport(**values)
    except (TypeError, ValueError) as error:
        raise DamagedError(f"The report {file} cannot be read: {error}") from error
    names = [str(one.concept.get("title") or one.concept.get("name")) for one in report.concepts]
    model = model_ref(report.model)
    record = {
        "analysis": "abstraction",
        "format": report.format,
        "model": model,
        "settings": report.settings,
        "concepts": [name[:500] for name in names][:1000],
        "metrics": _verdicts(report),
        "software": {"neuronmap": report.code_version},
    }
    inside = SafePath("report.json")
    published, notes = public_document(inside, file, values, _REPORT_PATHS)
    return Package(
        kind="ANALYSIS_RESULT",
        record=public_value(record),
        files={inside: published},
        created=utc(report.created),
        title=f"{len(names)} concepts through the layers of {model['name']}"[:200],
        summary=f"At which layers of {model['name']} these are held: {', '.join(names)}."[:2000],
        software={"neuronmap": report.code_version},
        notes=notes,
    )


def _overview(overview: Mapping[str, Any]) -> dict[str, float]:
    """The main figures of an analysis, by the names that SAEs have them under."""
    l0, status = overview.get("l0") or {}, overview.get("status") or {}
    explained = overview.get("explained_variance")
    found = {
        "l0": l0.get("mean"),
        "explained_variance": explained.get("value") if isinstance(explained, Mapping) else explained,
        **{f"features.{name}": count for name, count in status.items()},
    }
    return figures({name: value for name, value in found.items() if isinstance(value, int | float)})


def _verdicts(report: Any) -> dict[str, float]:
    counts: dict[str, float] = {}
    for one in report.concepts:
        name = f"verdict.{one.summary.verdict}"
        counts[name] = counts.get(name, 0.0) + 1.0
    return counts
