"""What strangers wrote, as HTML that may stand in a page: Markdown without HTML, images and styles, then cleaned once more."""

from __future__ import annotations

from functools import cache

import nh3
from markdown_it import MarkdownIt

__all__ = ["shown_html"]

_TAGS = {"p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr", "h4", "h5", "h6"} | {
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")


def shown_html(text: str) -> str:
    """Safe HTML of Markdown. HTML in it is shown as text; links lead out with ``rel="nofollow noopener"``."""
    made = _markdown().render(text)
    for level, lower in ((3, 6), (2, 5), (1, 4)):
        made = made.replace(f"<h{level}>", f"<h{lower}>").replace(f"</h{level}>", f"</h{lower}>")
    return nh3.clean(
        made,
        tags=_TAGS,
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener",
    )
