"""Everything of one SAE: facts, figures, plots, clusters, analyses, files, what it fits."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.errors import DamagedError, NeuronMapError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import LibraryEntry
from neuronmap.paths import public_name
from neuronmap.saes.fit import differences
from neuronmap.saes.metadata import CARD_FILE, CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE, BundleInfo, read_bundle_info
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.card import card_html
from neuronmap.web.views.figures import Evaluation, evaluation_of
from neuronmap.web.views.names import FeatureName, feature_names
from neuronmap.web.views.plots import HISTORY_FILE, Plot, analysis_plots, curves
from neuronmap.web.views.saes import SAELine, sae_line
from neuronmap.web.views.suites import Suites, suites_of

__all__ = ["FILES", "Cluster", "Dictionary", "Fit", "SAEPage", "dictionary_of", "sae_page"]

FILES = {
    CONFIG_FILE: "configuration, as SAELens 6 reads it",
    WEIGHTS_FILE: "weights, float32",
    CARD_FILE: "model card",
    METRICS_FILE: "evaluation, every figure with its error",
    HISTORY_FILE: "training curves",
}
"""The files of a bundle that may be fetched, and what each is. Nothing else of a bundle is ever sent."""

_MOST_CLUSTERS = 400


class FileLine(BaseModel):
    """A file of the bundle."""

    name: str
    about: str
    size_bytes: int


class Cluster(BaseModel):
    """A group of features that lie together on the map."""

    cluster: int
    label: str = Field(description="Words that its features' hints or top tokens share.")
    size: int
    x: float
    y: float


class Frequent(BaseModel):
    """A feature that fires often."""

    about: FeatureName
    firings: int
    density: float


class Dictionary(BaseModel):
    """What an analysis says of all features together."""

    status: dict[str, int] = Field(
        description="Features that never fired, fired rarely (under 10 times), are alive, are dense (on over 10 % of the tokens)."
    )
    never_density_bound: float = Field(
        description="Upper end of the 95 % interval for the density of a feature that never fired."
    )
    l0_mean: float
    explained_variance: float | None = Field(description="On the analysed text; null where it cannot be computed.")
    plots: list[Plot]
    most_frequent: list[Frequent]
    clusters: list[Cluster] = Field(description="Clusters of the map, the largest first; empty without a map.")
    has_map: bool
    basis: Basis


class Line(BaseModel):
    """A fact and its value."""

    name: str
    value: str


class Difference(BaseModel):
    """A difference between what the SAE was trained on and what it would be used on."""

    what: str
    ours: str
    theirs: str
    severity: str = Field(description="impossible, wrong or note.")


class Fit(BaseModel):
    """Whether the SAE fits what another SAE was trained on."""

    other: str
    differences: list[Difference]
    verdict: str


class SAEPage(BaseModel):
    """One SAE."""

    sae: SAELine
    facts: list[Line] = Field(description="What is known of its making.")
    compatibility: list[Line] = Field(description="What it belongs to.")
    fit: Fit | None = Field(description="Against the other SAE that was asked for.")
    others: list[str] = Field(description="Other SAEs of the library.")
    evaluation: Evaluation | None
    suites: Suites | None = Field(description="What the evaluation suites found; null where none has measured it.")
    curves: list[Plot]
    dictionary: Dictionary | None = Field(description="Of the chosen analysis; null where there is none.")
    analysis: str = Field(description="The chosen analysis; empty if there is none.")
    tensors: list[Line]
    files: list[FileLine]
    card: str = Field(description="The model card, Markdown.")
    notes: list[str] = Field(description="What could not be read.")
    colour: str = Field(default="density", description="What colours the map of features.")

    @property
    def card_html(self) -> Markup:
        """The card as safe HTML."""
        return card_html(self.card)


def sae_page(explorer: Explorer, sae: str, analysis: str = "", fits: str = "") -> SAEPage:
    """One SAE with one of its analyses.

    Args:
        explorer: the server's.
        sae: id.
        analysis: name; the newest when empty.
        fits: id of another SAE, whose model and hook it is held against; none when empty.

    Raises:
        NotInLibraryError: no such SAE or analysis.
    """
    entry = explorer.entry(sae)
    page = SAEPage(
        sae=sae_line(explorer, entry),
        facts=[],
        compatibility=[],
        fit=None,
        others=[other.id for other in explorer.entries() if other.id != sae],
        evaluation=None,
        suites=None,
        curves=[],
        dictionary=None,
        analysis="",
        tensors=[],
        files=_files(entry),
        card="",
        notes=[],
    )
    page.sae.problem = _without_path(entry, entry.problem)
    if entry.problem:
        return page
    info = read_bundle_info(entry.path)
    page.facts, page.compatibility = _facts(info), _compatibility(info)
    page.tensors = [
        Line(name=name, value=f"{head.dtype} {' × '.join(f'{n:,}' for n in head.shape)}")
        for name, head in info.tensors.items()
    ]
    page.card = _card(entry)
    page.evaluation = _kept(page.notes, lambda: evaluation_of(info))
    page.suites, unread = suites_of(entry)
    page.notes += unread
    page.curves = _kept(page.notes, lambda: curves(info)) or []
    page.notes = [_without_path(entry, note) for note in page.notes]
    if analysis or page.sae.analyses:
        analysed = explorer.analysed(sae, analysis)
        page.analysis, page.dictionary = analysed.analysis.name, dictionary_of(analysed)
    page.fit = _fit(explorer, info, fits) if fits else None
    return page


def dictionary_of(analysed: Analysed) -> Dictionary:
    """What an analysis says of all features together."""
    store = analysed.store
    overview = store.overview
    clusters: list[dict[str, Any]] = (
        store.tables.read("clusters").to_pylist() if "clusters" in store.tables.names else []
    )
    clusters.sort(key=lambda one: (-one["size"], one["cluster"]))
    return Dictionary(
        status=overview["status"],
        never_density_bound=overview["never_density_bound"],
        l0_mean=overview["l0"]["mean"],
        explained_variance=overview["explained_variance"]["value"],
        plots=analysis_plots(store),
        most_frequent=[
            Frequent(about=feature_names(store, [one["feature"]])[0], firings=one["firings"], density=one["density"])
            for one in overview["most_frequent"][:10]
        ],
        clusters=[Cluster(**one) for one in clusters[:_MOST_CLUSTERS]],
        has_map=bool(clusters) or _has_places(store),
        basis=Basis.of(analysed),
    )


def _has_places(store: FeatureStore) -> bool:
    places = store.tables.read("features", ["map_x"])["map_x"]
    return bool(places.null_count < len(places))


def _without_path(entry: LibraryEntry, text: str) -> str:
    """A message without the folder's place on this machine: others may read it."""
    return text.replace(f"{entry.path}/", "").replace(str(entry.path), entry.id)


def _kept(notes: list[str], read: Any) -> Any:
    """What was read; a damaged file is noted and leaves the rest of the page."""
    try:
        return read()
    except NeuronMapError as error:
        notes.append(error.message)
        return None


def _facts(info: BundleInfo) -> list[Line]:
    metadata = info.metadata
    if metadata is None:
        return []
    corpus = metadata.corpus or {}
    options = ", ".join(f"{name} {value}" for name, value in metadata.options.items() if value is not None)
    found = {
        "architecture": info.architecture,
        "options": options,
        "features": f"{info.d_sae:,} over activations of width {info.d_in:,}",
        "trained on": public_name(corpus.get("name")),
        "activations seen": "" if metadata.tokens_seen is None else f"{metadata.tokens_seen:,}",
        "steps": "" if metadata.steps is None else f"{metadata.steps:,}",
        "seed": "" if metadata.seed is None else str(metadata.seed),
        "made": f"{(metadata.created or '')[:16].replace('T', ' ')} UTC, NeuronMap {metadata.neuronmap_version}",
        "comes from": str((metadata.origin or {}).get("format") or ""),
        "weights": metadata.weights_digest or "",
        "notes": metadata.notes,
    }
    return [Line(name=name, value=value) for name, value in found.items() if value]


def _compatibility(info: BundleInfo) -> list[Line]:
    metadata = info.metadata
    model, hook = (metadata.model or {}, metadata.hook or {}) if metadata else ({}, {})
    found = {
        "model": public_name(model.get("name")),
        "revision": model.get("revision"),
        "model architecture": model.get("architecture"),
        "model weights": model.get("model_digest"),
        "tokenizer": model.get("tokenizer_digest"),
        "layers": model.get("num_layers"),
        "hook": hook.get("name"),
        "module": f"{hook['module_path']}:{hook.get('side', 'out')}" if hook.get("module_path") else None,
        "width at the hook": info.d_in,
        "stored for SAELens as": info.config.get("architecture"),
    }
    return [Line(name=name, value=str(value)) for name, value in found.items() if value not in (None, "")]


def _fit(explorer: Explorer, info: BundleInfo, other: str) -> Fit:
    """Held against the model and hook of another SAE."""
    theirs = read_bundle_info(explorer.entry(other).path).metadata
    if info.metadata is None or theirs is None or not theirs.model:
        raise DamagedError(f"SAE '{other}' does not say which model it was trained on.")
    hook = {
        name: value for name, value in (theirs.hook or {}).items() if name in ("module_path", "side", "width")
    } or None
    found = differences(info.metadata, info.d_in, theirs.model, hook)
    worst = found[0].severity if found else ""
    verdict = {
        "": "It fits: same model, same hook, same width.",
        "note": "It fits; small differences may change figures slightly.",
        "wrong": "Shapes fit, but it was trained on something else: what its features mean there is unknown.",
        "impossible": "It does not fit: the widths differ.",
    }[worst]
    shown = [
        Difference(what=one.what, ours=public_name(one.expected), theirs=public_name(one.found), severity=one.severity)
        for one in found
    ]
    return Fit(other=other, differences=shown, verdict=verdict)


def _card(entry: LibraryEntry) -> str:
    file = entry.path / CARD_FILE
    try:
        return file.read_text("utf-8", errors="replace") if file.is_file() else ""
    except OSError:
        return ""


def _files(entry: LibraryEntry) -> list[FileLine]:
    found = [(name, about, entry.path / name) for name, about in FILES.items()]
    return [
        FileLine(name=name, about=about, size_bytes=path.stat().st_size)
        for name, about, path in found
        if path.is_file()
    ]
