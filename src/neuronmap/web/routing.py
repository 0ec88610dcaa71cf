"""How pages are routed: one function makes a typed context, which is shown by a template and, under ``.json``, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from neuronmap.web.errors import responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.parameters import known_query, unknown_query
from neuronmap.web.rendering import render

__all__ = ["ExplorerOf", "PageRouter"]


def _explorer(request: Request) -> Explorer:
    explorer: Explorer = request.app.state.explorer
    return explorer


ExplorerOf = Annotated[Explorer, Depends(_explorer)]
"""The server's explorer, for a route's arguments."""

Context = TypeVar("Context", bound=Callable[..., Any])


class PageRouter(APIRouter):
    """A router whose routes are pages: one function makes the context, which is shown as HTML and as JSON."""

    def page(
        self,
        path: str,
        template: str,
        *,
        nav: str = "",
        errors: tuple[int, ...] = (404, 409, 422),
        any_query: bool = False,
    ) -> Callable[[Context], Context]:
        """Register a page.

        Args:
            path: its address; ``<path>.json`` is the same as JSON.
            template: file under ``templates``; it sees the context as ``page``.
            nav: which entry of the head is marked.
            errors: statuses it may answer with besides 200.
            any_query: whether it reads the query by itself. Of others the page says which parameters it does not have; ``.json`` is for
                scripts, and refuses them.
        """

        def register(function: Context) -> Context:
            shown = get_type_hints(function)["return"]

            def as_html(request: Request, context: Any = Depends(function)) -> Response:
                if isinstance(context, Response):
                    return context
                ignored = [] if any_query else unknown_query(request)
                return render(request, template, {"page": context, "nav": nav, "ignored": ignored})

            def as_json(context: Any = Depends(function)) -> Response:
                if isinstance(context, Response):
                    return context
                return JSONResponse(context.model_dump(mode="json"))

            name = function.__name__
            self.add_api_route(
                f"{path}.json" if path != "/" else "/index.json",
                as_json,
                name=f"{name}_json",
                response_model=shown,
                tags=["pages"],
                summary=(function.__doc__ or name).strip().splitlines()[0],
                responses=responses(*errors),
                dependencies=[] if any_query else [Depends(known_query)],
            )
            self.add_api_route(
                path, as_html, name=name, response_class=HTMLResponse, include_in_schema=False, methods=["GET"]
            )
            return function

        return register
