"""Forms that say something of a feature: what they send, and what they are answered."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from neuronmap.web.addresses import lead_to
from neuronmap.web.rendering import render
from neuronmap.web.views.labels.panel import LabelPanel

__all__ = ["said_answer", "said_fields"]

_MOST_FIELDS = 20


async def said_fields(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    form = await request.form(max_fields=_MOST_FIELDS, max_files=0)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def said_answer(request: Request, panel: LabelPanel) -> Response:
    """After something was said: the panel for htmx, else back to the feature's page."""
    if request.headers.get("hx-request") == "true":
        return render(request, "labels/_panel.html", {"panel": panel})
    answer = lead_to(request, panel.page)
    answer.headers["location"] += "#labels"
    return answer
