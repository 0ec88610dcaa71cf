"""A model card as safe HTML: Markdown without HTML, images or addresses of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

__all__ = ["card_html"]

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_OUTSIDE = re.compile(r"(https?:|mailto:|#)", re.IGNORECASE)
_LONGEST = 200_000
"""Characters of a card that are shown."""


def card_html(text: str) -> Markup:
    """The card without its front matter.

    HTML in it is shown as text; links lead out with ``rel="nofollow noopener"``, relative ones nowhere.
    """
    shown = _FRONT.sub("", text[:_LONGEST].replace("\r\n", "\n"), count=1)
    return Markup(_markdown().render(shown))


@functools.cache
def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    made.core.ruler.push("tamed", lambda state: _tame(state.tokens))
    return made


def _tame(tokens: Sequence[Token]) -> None:
    """Headings below those of the page; no inline styles; links marked or taken out."""
    for token in tokens:
        token.attrs.pop("style", None)  # alignment of table cells, which our policy refuses
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.type == "link_open":
            _tame_link(token.attrs)
        _tame(token.children or [])


def _tame_link(attributes: dict[str, Any]) -> None:
    if _OUTSIDE.match(str(attributes.get("href", ""))):
        attributes["rel"] = "nofollow noopener"
    else:
        attributes.pop("href", None)
