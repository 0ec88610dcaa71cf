"""What strangers wrote (cards, comments), as HTML that may stand in a page: Markdown without HTML, images and styles, cleaned once more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

__all__ = ["safe_html"]

_TAGS = {"p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr"} | {
    "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_OUTSIDE = re.compile(r"(https?:|mailto:|#)", re.IGNORECASE)


def safe_html(text: str, *, deeper: int) -> str:
    """Safe HTML of Markdown.

    HTML in it is shown as text; links lead out with ``rel="nofollow noopener"``, relative ones nowhere.

    Args:
        text: what was written.
        deeper: levels by which its headings stand below those of the page (2: ``#`` becomes ``h3``); at least 2.
    """
    made = _markdown().render(text, {"deeper": max(2, deeper)})
    return nh3.clean(
        made,
        tags=_TAGS,
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener",
    )


@cache
def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    made.core.ruler.push("tamed", _tame)
    return made


def _tame(state: StateCore) -> None:
    _tame_tokens(state.tokens, state.env["deeper"])


def _tame_tokens(tokens: Sequence[Token], deeper: int) -> None:
    for token in tokens:
        token.attrs.pop("style", None)  # alignment of table cells, which our policy refuses
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + deeper)}"
        if token.type == "link_open" and not _OUTSIDE.match(str(token.attrs.get("href", ""))):
            token.attrs.pop("href", None)
        _tame_tokens(token.children or [], deeper)
