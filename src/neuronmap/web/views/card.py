"""A model card as safe HTML: Markdown without HTML, images or addresses of its own."""

from __future__ import annotations

import re

from markupsafe import Markup

__all__ = ["card_html"]

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LONGEST = 200_000
"""Characters of a card that are shown."""


def card_html(text: str) -> Markup:
    """The card without its front matter, as :func:`neuronmap.safe_html.safe_html` shows it."""
    from neuronmap.safe_html import safe_html

    shown = _FRONT.sub("", text[:_LONGEST].replace("\r\n", "\n"), count=1)
    made = safe_html(shown, deeper=2)  # in which "<" begins nothing but its own tags
    # Code is wider than a phone: keys must reach it to scroll it.
    return Markup(made.replace("<pre>", '<pre tabindex="0">'))
