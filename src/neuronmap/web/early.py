"""Pages that are answered before the whole application is there: the first page always, the page of an SAE until then.

Each is made by the same view and template as its route in :mod:`neuronmap.web.pages`, so that nobody can tell by the answer. Only the
plain address is taken; one with a query waits for the route that checks it.
"""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from neuronmap.web.arrow import import_arrow
from neuronmap.web.rendering import render
from neuronmap.web.rest import Rest
from neuronmap.web.views.home import home_page

__all__ = ["SAE_MODULE", "SAE_TEMPLATE", "EarlySAE", "first_page"]

SAE_MODULE, SAE_TEMPLATE = "neuronmap.web.views.overview", "sae.html"
"""What the page of an SAE needs besides what the first page does; not imported before somebody asks or the first page was sent."""

_LONGEST = 600
"""Characters of an address that is taken here; what is longer may be too long, which the route says."""


def first_page(request: Request) -> Response:
    """The page of :mod:`neuronmap.web.pages.home`."""
    page, ignored = home_page(request.app.state.explorer), list(request.query_params)
    answer = render(request, "home.html", {"page": page, "nav": "home", "ignored": ignored})
    if (warming := request.app.warming) is not None:
        answer.background = BackgroundTask(warming.page_sent)
    return answer


def _sae(request: Request) -> Response:
    import_arrow()
    from neuronmap.web.views.overview import sae_page

    page = sae_page(request.app.state.explorer, request.path_params["sae"])
    return render(request, SAE_TEMPLATE, {"page": page, "nav": "home"})


class EarlySAE(Route):
    """The page of :mod:`neuronmap.web.pages.sae`, for as long as that cannot answer.

    Args:
        rest: has the whole application, once it is made.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        super().__init__("/sae/{sae:path}", _sae, methods=["GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if self._rest.made or scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return Match.NONE, {}
        path = scope["path"]
        if path.endswith(".json") or "/-/" in f"{path}/" or len(path) > _LONGEST:
            return Match.NONE, {}
        return super().matches(scope)
