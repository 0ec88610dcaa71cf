"""Pages from templates: what every template may use, and the addresses in them."""

from __future__ import annotations

import datetime
import functools
import hashlib
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from neuronmap.paths import human_bytes
from neuronmap.web import charts, tokens
from neuronmap.web.addresses import base_path
from neuronmap.web.guard import is_embedded
from neuronmap.web.plotly import plotly_address
from neuronmap.web.zoo import COOKIE as ZOO_COOKIE

__all__ = ["asset", "environment", "render", "report_path", "sae_path"]


@functools.cache
def _versions() -> dict[str, str]:
    """Digest of every static file: in its address, so that a browser may keep it for ever."""
    folder = files("neuronmap.web") / "static"
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:10] for file in folder.iterdir() if file.is_file()
    }


def asset(name: str) -> str:
    """Address of a static file, without the base path."""
    return f"/static/{name}?v={_versions()[name]}"


def sae_path(sae: str, *parts: object, **query: object) -> str:
    """Address of a page about an SAE: ``/sae/<id>/-/<parts>?<query>``; values that are None or empty are left out.

    The ``-`` ends the id, which may itself have slashes in it.
    """
    tail = "/".join(quote(str(part), safe="") for part in parts)
    path = f"/sae/{quote(sae, safe='/')}" + (f"/-/{tail}" if tail else "")
    given = {name.rstrip("_"): value for name, value in query.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def report_path(report: str, *parts: object, **query: object) -> str:
    """Address of a page of a report: ``/concepts/<report>/<parts>?<query>``; values that are None or empty are left out."""
    tail = "".join(f"/{quote(str(part), safe=':')}" for part in parts)
    given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    return f"/concepts/{quote(report, safe='')}{tail}" + (f"?{urlencode(given, doseq=True)}" if given else "")


@functools.cache
def environment() -> Environment:
    """The templates' environment: everything is escaped, and a name that the context lacks is an error."""
    made = Environment(
        loader=PackageLoader("neuronmap.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        sae_path=sae_path,
        report_path=report_path,
        asset=asset,
        plotly_address=plotly_address,
        charts=charts,
        tokens=tokens,
    )
    made.filters.update(
        visible=_visible,
        count=_count,
        number=_number,
        percent=_percent,
        bytes=human_bytes,
        when=_when,
        ago=_ago,
        duration=_duration,
    )
    return made


def render(
    request: Request,
    template: str,
    context: dict[str, Any],
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    """A page from a template. Addresses in templates go through ``url``, which adds the base path."""
    base = base_path(request)
    query = dict(request.query_params)
    shared = {
        "url": lambda path: f"{base}{path}",
        "path": request.scope["path"].removeprefix(base),
        "query": query,
        "again": functools.partial(_again, request, base),
        "embedded": is_embedded(request.scope),
        "nav": "",
        "ignored": (),
        "zoo_only": not hasattr(request.app.state, "explorer"),
        "signed_in": ZOO_COOKIE in request.cookies,
        "as_json": _as_json(request, base),
    }
    page = environment().get_template(template).render({**shared, **context})
    return HTMLResponse(page.replace("\x00", "\ufffd"), status, headers=headers)  # HTML has no NUL


def _again(request: Request, base: str, **changes: object) -> str:
    """The same address with some query values changed; None or empty takes one out."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changes]
    for name, value in changes.items():
        values = value if isinstance(value, list | tuple) else [value]
        kept += [(name, str(one)) for one in values if one not in (None, "")]
    path = quote(request.scope["path"].removeprefix(base), safe="/-~._:@")
    return f"{base}{path}?{urlencode(kept)}" if kept else f"{base}{path}"


def _as_json(request: Request, base: str) -> str:
    """Address of the same page as JSON."""
    path = quote(request.scope["path"].removeprefix(base), safe="/-~._:@")
    query = request.url.query
    return f"{base}{path if path != '/' else '/index'}.json" + (f"?{query}" if query else "")


# --- filters -----------------------------------------------------------------------------------------------------------


def _visible(token: str) -> str:
    """A token with its spaces and other whitespace visible; one without text is there too."""
    from neuronmap.corpora.pieces import visible  # not before the first page with tokens: it takes long to import

    return visible(token) or "∅"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float | None, digits: int = 3) -> str:
    """A figure with that many significant digits, never in exponents where people read it."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _percent(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    share = 100 * value
    if abs(share) >= 10**digits - 0.5:  # else rounding would bring an exponent
        return f"{share:,.0f} %"
    return f"{share:.{digits}g} %" if share == 0 or abs(share) >= 1e-4 else f"{share:.1e} %"


def _when(value: str | None) -> Markup:
    """A time as ``2026-01-31 12:00 UTC``, in a ``<time>``."""
    if not value:
        return Markup("–")
    shown = value[:16].replace("T", " ")
    return Markup('<time datetime="{}">{} UTC</time>').format(value, shown)


def _ago(value: str | None) -> str:
    if not value:
        return "–"
    then = datetime.datetime.fromisoformat(value)
    then = then if then.tzinfo is not None else then.replace(tzinfo=datetime.UTC)
    seconds = (datetime.datetime.now(datetime.UTC) - then).total_seconds()
    return f"{_duration(max(seconds, 0))} ago"


def _duration(seconds: float | None) -> str:
    """Seconds in words: 45 s, 3 min 20 s, 2 h 5 min, 3 d."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d"
