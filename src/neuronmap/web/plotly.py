"""Plotly's script, served from the Python package ``plotly`` to the pages that have an interactive plot, when one is opened.

What our content security policy means for it (tried with plotly.js 4.1.1 in Chromium):

- ``scattergl`` and everything else on WebGL does **not** work: its ``regl`` compiles functions from text, which needs ``'unsafe-eval'``.
  It then draws "WebGL is not supported by your browser". No page allows ``'unsafe-eval'``, so plots are of type ``scatter`` (SVG), which
  works in full. SVG is quick up to about ten thousand points: :data:`MOST_POINTS`. Above, draw a sample and say so.
- Plotly adds ``<style>`` elements, which the policy refuses. ``static/plots.js`` puts what it looks for in place beforehand (a
  ``<link class="no-inline-styles">`` to ``static/plotly.css``), so that nothing is refused and the console stays empty.
- Colour bars and heat maps set some styles by ``setAttribute("style", ...)``, which is refused too. ``plots.js`` makes of that an
  assignment to ``style.cssText``, which is not.

On a page: ``<script src="{{ url(asset('plots.js')) }}" defer></script>`` and, in a script of the page, ``const Plotly = await
openPlotly();`` — the address is taken from ``data-plotly="{{ url(plotly_address()) }}"``, which some element of the page carries.
``plotLook()`` gives a layout in the page's colours, ``plotBars`` the few buttons of ours. Colours must be changed by ``Plotly.relayout``
on the event ``theme`` of the document.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neuronmap.web.caching import unchanged

__all__ = ["MOST_POINTS", "ROUTE", "plotly_address"]

MOST_POINTS = 10_000
"""Points that an SVG scatter shows at once; more are sampled, and the page says so."""


@functools.cache
def _script() -> tuple[bytes, str]:
    """The script, packed with gzip, and its digest. 1.5 MB are held from the first plot on."""
    data = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return gzip.compress(data, 6), hashlib.sha256(data).hexdigest()[:10]


@functools.cache
def _version() -> str:
    from importlib.metadata import version

    return version("plotly")


def plotly_address() -> str:
    """Address of the script, without the base path; it changes with the version of the package."""
    return f"/plotly.js?v={_version()}"


def _answer(request: Request) -> Response:
    """Plotly's script; a browser that has it keeps it."""
    packed, digest = _script()
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache",
        "ETag": f'"{digest}"',
        "Vary": "Accept-Encoding",
    }
    if (same := unchanged(request, headers["ETag"])) is not None:
        same.headers.update(headers)
        return same
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
    return Response(gzip.decompress(packed), media_type="text/javascript", headers=headers)


ROUTE = Route("/plotly.js", _answer, name="plotly")
