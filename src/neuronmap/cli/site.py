"""``neuronmap sae site``: the explorer of one SAE as plain files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.features import AnalysisOption, NameArgument
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.errors import ConfigError
from neuronmap.paths import human_bytes

__all__ = ["site"]

_TABS = ("quantile", "bin", "random", "hard")


@command_output
def site(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; it must not exist yet.")],
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Only these features, e.g. 'density>=0.001'; repeat for more."),
    ] = None,
    sort: Annotated[str, typer.Option(help="Order of the list: a column, - in front turns it round.")] = "feature",
    limit: Annotated[int | None, typer.Option(help="At most so many features.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Also features that never fired or hardly ever.")] = False,
    tabs: Annotated[
        list[str] | None,
        typer.Option(
            "--tab", help="Also a page of these examples for each feature: quantile, bin, random, hard, or all."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a site that lies there.")] = False,
    analysis: AnalysisOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write an explorer of an SAE's features that any web server, or GitHub Pages, can host.

    The pages are those of `neuronmap serve`, about 80 kB a feature; they are read without scripts and load nothing from elsewhere.
    What needs a model (texts, steering, effects) is not in it.

    Examples:

        neuronmap sae site demo --out demo-site

        neuronmap sae site demo --out best --where "f1>=0.7" --sort=-f1 --limit 500 --tab quantile

        python -m http.server --directory demo-site
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.web.app import create_app
    from neuronmap.web.settings import ServerSettings
    from neuronmap.web.site import SiteChoice, export_site

    output = Output(as_json, quiet)
    chosen = _tabs(tabs or [])
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: at least 1 feature is exported.")
    entry = SAEModelHub().get(name)
    app = create_app(ServerSettings(supervise=False))

    async def write() -> tuple[int, int, str]:
        explorer: Any = app.state.explorer
        try:
            analysed = explorer.analysed(entry.id, analysis)
            found = analysed.store.queries.select(where or (), sort=sort, limit=None, columns=["status"])
            rows = [row["feature"] for row in found if dead or row["status"] in ("alive", "dense")][:limit]
            choice = SiteChoice(rows, chosen)
            size = await export_site(app, analysed, choice, out, replace=replace, progress=output.progress())
            return len(rows), size, analysed.analysis.name
        finally:
            await explorer.close()

    features, size, made_from = asyncio.run(write())
    output.show(
        f"{features:,} features of {escape(entry.id)} are in {escape(str(out))} ({human_bytes(size)}).",
        f"Look at it: python -m http.server --directory {escape(str(out))}",
    )
    output.document(
        {
            "schema": "neuronmap/sae.site/1",
            "sae": entry.id,
            "analysis": made_from,
            "folder": str(out),
            "features": features,
            "bytes": size,
        }
    )


def _tabs(given: list[str]) -> tuple[str, ...]:
    if "all" in given:
        return _TABS
    if wrong := [tab for tab in given if tab not in _TABS]:
        raise ConfigError(f"--tab {wrong[0]}: there are {', '.join(_TABS)} and all.")
    return tuple(dict.fromkeys(given))
