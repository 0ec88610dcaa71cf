"""An analysis that is open for pages: its store, what was worked out of it lately, and where its pages are.

The library's (:class:`neuronmap.web.explorer.Analysed`) and one that is looked at in a zoo
(:class:`neuronmap.web.zoo.looking.PublishedAnalysis`) are shown by the same views and templates. What differs is a :class:`Home`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from starlette.requests import Request

from neuronmap.hashing import digest_json
from neuronmap.web.caching import Kept, etag
from neuronmap.web.rendering import sae_path

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.web.books import Books

__all__ = ["Home", "OpenAnalysis", "WorkedOut"]

_ORDERS_KEPT = 16
_FRAGMENTS_KEPT = 2048


@dataclass(frozen=True)
class Home:
    """Where the pages of an analysis are, and what it is called there. This one: beside its SAE in the library.

    Attributes:
        sae: what the SAE is called.
        analysis: what the analysis is called.
    """

    sae: str
    analysis: str

    @property
    def title(self) -> str:
        """What pages say that they show features of."""
        return self.sae

    @property
    def sae_page(self) -> str:
        """Address of the SAE's page; empty where it has none."""
        return self.path()

    @property
    def crumbs(self) -> list[tuple[str, str]]:
        """(name, address) of the pages above."""
        return [("SAEs", "/"), (self.sae, self.path())]

    @property
    def alone(self) -> bool:
        """Whether nothing but the analysis is at hand: no model to run, no weights, no other SAEs."""
        return False

    def path(self, *parts: object, **query: object) -> str:
        """Address of a page, without the base path; see :func:`neuronmap.web.rendering.sae_path`."""
        return sae_path(self.sae, *parts, **query)


class WorkedOut:
    """What was worked out of an analysis lately.

    Attributes:
        orders: features that meet conditions, in an order; 512 KiB each with 65,536 features.
        fragments: parts of pages, about 6 KiB each.
    """

    def __init__(self) -> None:
        self.orders: Kept[Any] = Kept(_ORDERS_KEPT)
        self.fragments: Kept[Markup] = Kept(_FRAGMENTS_KEPT)


class OpenAnalysis:
    """An open analysis.

    Args:
        store: its feature store.
        home: where its pages are.
        worked_out: what is known already; nothing when left out.
        books: where it is written what people and models call its features; nowhere when left out.

    Attributes:
        key: what decides every number of it.
        weights: digest of the weights of its SAE, by which labels know it; empty where the analysis does not say.
        orders, fragments: see :class:`WorkedOut`.
    """

    def __init__(
        self, store: FeatureStore, home: Home, worked_out: WorkedOut | None = None, books: Books | None = None
    ) -> None:
        self.store, self.home = store, home
        self.key = store.key
        self.weights = str((store.facts.get("sae") or {}).get("weights_digest") or "")
        if books is not None:
            from neuronmap.web.books import GivenLabels

            store.given = GivenLabels(books, self.weights)
        kept = worked_out or WorkedOut()
        self.orders, self.fragments = kept.orders, kept.fragments

    def etag_of(self, request: Request) -> str:
        """ETag of what is made of the analysis for a request: changes with its files, the address and this NeuronMap."""
        files = {name: one["sha256"] for name, one in self.store.manifest["files"].items()}
        address = [request.scope["path"], request.scope["query_string"].decode("latin-1")]
        return etag(digest_json([self.key, files, address, version("neuronmap")]).encode())
