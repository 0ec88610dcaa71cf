"""One SAE: its page, its plots as CSV, its files. This router comes last: ``/sae/{id}`` would take every address below it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from fastapi.responses import FileResponse, Response

from neuronmap.saes.metadata import read_bundle_info
from neuronmap.web.caching import unchanged
from neuronmap.web.downloads import csv_download, csv_response
from neuronmap.web.errors import WebError, responses
from neuronmap.web.parameters import Analysis, SAEInPath
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.map import MOST_ROWS, feature_map
from neuronmap.web.views.overview import FILES, SAEPage, sae_page
from neuronmap.web.views.plots import PLOTS, Plot, analysis_plots, curves

__all__ = ["router"]

router = PageRouter()

BundleFile = StrEnum("BundleFile", {name: name for name in FILES})  # type: ignore[misc]
"""The files that may be fetched: a fixed list, so that no path ever comes from a request."""


@router.get(
    "/sae/{sae:path}/-/file/{name}",
    responses=responses(404, 422),
    tags=["SAEs"],
    summary="A file of the bundle",
    response_class=FileResponse,
)
def bundle_file(request: Request, explorer: ExplorerOf, sae: SAEInPath, name: BundleFile) -> Response:
    """One of the bundle's own files. Its ETag is of its size and the time it was written."""
    entry = explorer.entry(sae)
    path = entry.path / name.value
    if path.is_symlink() or not path.is_file():
        raise WebError(404, "not_found", f"SAE '{sae}' has no {name.value}.")
    found = FileResponse(
        path,
        filename=f"{sae.replace('/', '-')}-{name.value}",
        headers={"Cache-Control": "no-cache"},
        stat_result=path.stat(),
    )
    return unchanged(request, found.headers["etag"]) or found


def _plot_route(name: str) -> None:
    """One address a plot, so that other plots' addresses stay free."""

    def plot_csv(explorer: ExplorerOf, sae: SAEInPath, analysis: Analysis = "") -> Response:
        found = _plots(explorer, sae, analysis, of_training=name.startswith("curve-"))
        for one in found:
            if one.name == name:
                return csv_response(f"{sae}-{name}.csv", one.columns, one.table())
        raise WebError(
            404,
            "not_found",
            f"SAE '{sae}' has no plot '{name}'.",
            hint=f"It has {', '.join(one.name for one in found) or 'none'}.",
        )

    about: dict[str, Any] = {
        "summary": f"Data of the plot {name} of an SAE, as CSV",
        "responses": responses(404, 409, 422),
    }
    router.add_api_route(
        f"/sae/{{sae:path}}/-/plot/{name}.csv",
        plot_csv,
        methods=["GET"],
        name=f"plot_{name}",
        tags=["SAEs"],
        response_class=Response,
        **about,
    )


def _plots(explorer: ExplorerOf, sae: str, analysis: str, *, of_training: bool) -> list[Plot]:
    if of_training:
        return curves(read_bundle_info(explorer.entry(sae).path))
    return analysis_plots(explorer.analysed(sae, analysis).store)


@router.get(
    "/sae/{sae:path}/-/plot/map.csv",
    tags=["SAEs"],
    summary="Data of the map of features, as CSV",
    response_class=Response,
    responses=responses(404, 409, 422),
)
def map_csv(request: Request, explorer: ExplorerOf, sae: SAEInPath, analysis: Analysis = "") -> Response:
    """All features with a place on the map."""
    analysed = explorer.analysed(sae, analysis)
    tag = analysed.etag_of(request)
    if (same := unchanged(request, tag)) is not None:
        return same
    found = feature_map(analysed, MOST_ROWS)
    columns = ("feature", "x", "y", "density", "class", "cluster", "label")
    classes = [found.classes[number] for number in found.firing_class]
    rows = zip(found.feature, found.x, found.y, found.density, classes, found.cluster, found.label, strict=True)
    return csv_download(f"{sae}-map.csv", columns, (dict(zip(columns, row, strict=True)) for row in rows), tag)


for _name in PLOTS:
    _plot_route(_name)


@router.page("/sae/{sae:path}", "sae.html", nav="home")
def sae(
    explorer: ExplorerOf,
    sae: SAEInPath,
    analysis: Analysis = "",
    fits: Annotated[
        str, Query(max_length=600, description="Another SAE, whose model and hook this one is held against.")
    ] = "",
    colour: Annotated[
        Literal["density", "class", "cluster"], Query(description="What colours the map of features.")
    ] = "density",
) -> SAEPage:
    """One SAE: what it is, how good, how it was trained, what its features look like together."""
    if "/-/" in f"{sae}/":
        raise WebError(404, "not_found", "There is no page at this address.")
    page = sae_page(explorer, sae, analysis, "" if fits == sae else fits)
    page.colour = colour
    return page
