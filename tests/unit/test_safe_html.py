"""What strangers write never becomes more than words, whatever they write."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.safe_html import safe_html

TAGS = {"p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr", "h4", "h5", "h6"} | {
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


class Found(HTMLParser):
    """Every tag and attribute of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def require_harmless(html: str) -> None:
    for tag, attributes in Found(html).tags:
        assert tag in TAGS, tag
        assert set(attributes) <= {"href", "title", "rel"}, attributes
        if "href" in attributes:
            assert tag == "a"
            assert attributes["rel"] == "nofollow noopener"
            address = attributes["href"] or ""
            assert ":" not in address.split("/")[0] or address.lower().startswith(("http:", "https:", "mailto:")), (
                address
            )


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt&#58;alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "[x]( javascript:alert(1))",
        "[x](java\tscript:alert(1))",
        "![x](https://a.example/b.png)",
        '[x](https://a.example "onclick=alert(1)")',
        '[x](https://a.example/"onmouseover="alert(1))',
        "<https://a.example/onclick=alert(1)>",
        "<javascript:alert(1)>",
        "<!-- <script>alert(1)</script> -->",
        "<style>*{display:none}</style>",
        '<a href="x" style="position:fixed">x</a>',
        "| a |\n| :-: |\n| b |",
        "```html\n<script>alert(1)</script>\n```",
        "# Large\n\n## Larger\n\n###### small",
        "<details open ontoggle=alert(1)>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "[x]: javascript:alert(1)\n\n[x]",
    ],
)
def test_attacks(text: str) -> None:
    html = safe_html(text, deeper=3)
    require_harmless(html)
    assert "<script" not in html
    assert "<h1" not in html


PARTS = st.sampled_from(
    ["<", ">", "script", "img ", "[", "]", "(", ")", "javascript:", "https://a.b", '"', "'", " onx=", "`", "\n", "# ", "| ", "*", "&#", ";",
     "data:", "\\", "~", "!", "- ", "=", "/", "a", "\t", "é", "<!--", "-->", "<a href=", "<style>"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=40).map("".join))
def test_anything(text: str) -> None:
    require_harmless(safe_html(text, deeper=3))


def test_what_is_kept() -> None:
    html = safe_html(
        "**bold** *slanted* ~~out~~ `code`\n\n1. one\n2. two\n\n> said\n\n[there](https://a.example)", deeper=3
    )
    for part in (
        "<strong>bold</strong>",
        "<em>slanted</em>",
        "<s>out</s>",
        "<code>code</code>",
        "<ol>",
        "<blockquote>",
    ):
        assert part in html
    assert '<a href="https://a.example" rel="nofollow noopener">there</a>' in html
