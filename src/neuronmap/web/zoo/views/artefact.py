"""A version of an artefact as its page shows it: state, facts, figures, card, files, versions, lineage, how to get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.errors import DamagedError, NotInZooError
from neuronmap.web.zoo.looking import features_path
from neuronmap.web.zoo.views.lineage import draw_lineage
from neuronmap.zoo.labels import LABELS_FORMAT
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.views import CommentView
from neuronmap.zoo.reading import holds_features
from neuronmap.zoo.views import AliasMove, ArtefactView, FileView, LineageNode, LineageView, VersionView

if TYPE_CHECKING:
    from neuronmap.zoo.people.principal import Principal
    from neuronmap.zoo.registry.registry import Registry

__all__ = ["ArtefactPage", "Figure", "LookedAt", "Way", "artefact_page"]

_MOST_CARD = 200_000
_SHOWN_FILES = 200
_SHOWN_ANALYSES = 10
_FIRST_FIGURES = ("explained_variance", "l0", "ce_score_mean", "ce_recovered", "dead_share", "mse")
"""Figures that stand at the head, in this order."""


_SHOWN_FIELDS = ("model", "hook", "architecture", "d_in", "d_sae", "compatibility")


class Figure(BaseModel):
    """One figure of the record."""

    name: str = Field(description="Dotted name.")
    value: float = Field(description="As published; nobody here has checked it.")


class Way(BaseModel):
    """A way to get the version."""

    title: str = Field(description="Where it is typed.")
    text: str = Field(description="What is typed.")


class LookedAt(BaseModel):
    """An analysis whose features can be looked at in place."""

    reference: str = Field(description="``namespace/name@label``.")
    features: str = Field(description="Address of its features.")


class ArtefactPage(BaseModel):
    """One version with all that is known of it here."""

    version: VersionView = Field(description="The version.")
    artefact: ArtefactView = Field(description="The artefact with its other versions.")
    asked: str = Field(description="What was asked for: latest, an alias, a label or a digest.")
    figures: list[Figure] = Field(description="Figures of the record, the usual ones first.")
    shown_files: list[FileView] = Field(description="The first files.")
    lineage: LineageView = Field(description="What it was made from, and what was made from it.")
    alias_log: list[AliasMove] = Field(description="Every move of an alias, the newest first.")
    ways: list[Way] = Field(description="How to get it.")
    card: str = Field(description="The card, as Markdown; empty where there is none.")
    card_problem: str = Field(default="", description="Why the card is not shown.")
    base: str = Field(description="Address of the API's version, without the base path.")
    comments: list[CommentView] = Field(default=[], description="What people say of the artefact, the newest first.")
    starred: bool | None = Field(
        default=None, description="Whether the asker gave it a star; null for nobody in particular."
    )
    writes: bool = Field(default=False, description="Whether the asker may comment.")
    features: str = Field(default="", description="Address of its features, to be looked at in place; empty for none.")
    analyses: list[LookedAt] = Field(
        default=[], description="Of an SAE: analyses of its features that can be looked at."
    )
    opens: bool = Field(description="Whether it can be taken into the library of the machine that serves this page.")

    @property
    def drawn_card(self) -> Markup:
        """The card as safe HTML."""
        from neuronmap.web.views.card import card_html

        return card_html(self.card)

    def drawn_lineage(self, url: Callable[[str], str]) -> Markup:
        """The graph; ``url`` adds the base path."""
        return draw_lineage(self.lineage, lambda node: url(node_path(node)) if node.kind else "")

    def name_of(self, digest: str) -> str:
        """What a version of the lineage is called."""
        return next((node.reference for node in self.lineage.nodes if node.digest == digest), digest)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest with every field that this version knows."""
        from neuronmap.zoo.manifest import Manifest

        return {**dict.fromkeys(Manifest.model_fields), **self.version.manifest}

    @property
    def record(self) -> dict[str, Any]:
        """What the kind says of itself, with every field that its kind has; those that the page shows are there for all kinds."""
        from neuronmap.zoo.records import get_kind

        found = self.version.manifest.get("record")
        known = get_kind(self.version.kind).record_type.read(found if isinstance(found, dict) else {}).to_dict()
        return {**dict.fromkeys(_SHOWN_FIELDS), **known}


def node_path(node: LineageNode) -> str:
    """Address of a version's page."""
    artefact, _, label = node.reference.partition("@")
    return f"/zoo/{quote(artefact)}/{quote(label)}"


def artefact_page(
    registry: Registry, principal: Principal, reference: Reference, *, server: str, embedded: bool, depth: int = 3
) -> ArtefactPage:
    """Everything of one version.

    Args:
        registry: the zoo.
        principal: who asks.
        reference: the version.
        server: address of this zoo for others to type; empty for the embedded one.
        embedded: whether this is the zoo of the machine that serves the page.
        depth: edges of the lineage.

    Raises:
        NotInZooError: there is no such version, or not for them.
    """
    version = registry.show(principal, reference)
    exact = Reference(version.namespace, version.name, label=version.label)
    card, problem = _card(registry, principal, exact, version)
    lineage = registry.lineage(principal, exact, depth=depth)
    return ArtefactPage(
        version=version,
        artefact=registry.artefact(principal, version.namespace, version.name),
        asked=str(reference.digest or reference.label or reference.alias),
        figures=_figures(version),
        shown_files=list(version.files[:_SHOWN_FILES]),
        lineage=lineage,
        alias_log=registry.changing.alias_log(principal, version.namespace, version.name)[:50],
        ways=_ways(version, server),
        card=card,
        card_problem=problem,
        base=f"/api/zoo/artefacts/{version.namespace}/{version.name}/versions/{version.label}",
        features=features_path(version, "features") if holds_features(version) else "",
        analyses=_analyses(registry, principal, version, lineage),
        opens=embedded and _has_a_place(version) and version.state in ("published", "deprecated", "yanked"),
    )


def _analyses(registry: Registry, principal: Principal, version: VersionView, lineage: LineageView) -> list[LookedAt]:
    """Analyses that were made from an SAE and can be looked at; the first few of them."""
    children = {edge.child for edge in lineage.edges if edge.parent == version.digest and edge.role != "subject"}
    nodes = [one for one in lineage.nodes if one.digest in children and one.kind == "ANALYSIS_RESULT"]
    seen = [one for one in nodes if one.state in ("published", "deprecated")] if version.kind == "SAE_MODEL" else []
    found = [registry.show(principal, Reference.parse(one.reference)) for one in seen[:_SHOWN_ANALYSES]]
    return [
        LookedAt(reference=one.reference, features=features_path(one, "features"))
        for one in found
        if holds_features(one)
    ]


def _figures(version: VersionView) -> list[Figure]:
    record = version.manifest.get("record")
    metrics = record.get("metrics") if isinstance(record, dict) else None
    found = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
    first = [name for name in _FIRST_FIGURES if name in found]
    return [Figure(name=name, value=found[name]) for name in [*first, *sorted(set(found) - set(first))]]


def _card(registry: Registry, principal: Principal, reference: Reference, version: VersionView) -> tuple[str, str]:
    path = version.manifest.get("card")
    if not path or version.state == "deleted":
        return "", ""
    try:
        _, size, pieces = registry.blob(principal, reference, path, 0, _MOST_CARD)
        text = b"".join(pieces).decode("utf-8", "replace")
    except (NotInZooError, DamagedError) as error:
        return "", error.message
    return text, f"Only its first {_MOST_CARD:,} bytes are shown." if size > _MOST_CARD else ""


def _has_a_place(version: VersionView) -> bool:
    """Whether it belongs into the library, or, labels, into the book."""
    record = version.manifest.get("record")
    labels = version.kind == "EXPLANATIONS" and isinstance(record, dict) and record.get("format") == LABELS_FORMAT
    return labels or version.kind in ("SAE_MODEL", "ANALYSIS_RESULT")


def _ways(version: VersionView, server: str) -> list[Way]:
    if version.state in ("deleted", "draft"):
        return []
    pinned = version.reference
    where = f'"{server}"' if server else ""
    into = " --into-library" if _has_a_place(version) else f" --to {version.name}"
    zoo = f" --zoo {server}" if server else ""
    python = [
        "from neuronmap.zoo import Zoo",
        f"zoo = Zoo({where})",
        f'zoo.pull("{pinned}", "{version.name}")',
    ]
    if version.kind == "SAE_MODEL":
        python += ["from neuronmap.saes import load_sae", f'sae = load_sae("{version.name}")']
    return [
        Way(title="On the command line", text=f"neuronmap zoo pull {pinned}{into}{zoo}"),
        Way(title="In Python", text="\n".join(python)),
        Way(title="Exactly these bytes, for ever", text=f"{version.namespace}/{version.name}@{version.digest}"),
    ]
