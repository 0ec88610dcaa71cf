"""Rows of tokens with values, for notebooks and terminals.

Colour: one hue for activations (orange), and for signed values orange above zero and blue below. It is laid over whatever background
there is, at most 55 % opaque, so that text stays readable on light and dark pages (a test holds 4.5:1). Colour is never alone: the
largest value is bold and underlined, and every value is in the hover title. No scripts, no style sheets of the page are touched.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronmap.features.storage.text import Piece, visible

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["MOST_OPAQUE", "Shade", "Strip", "cell", "frame", "opacity", "page", "running", "table"]

MOST_OPAQUE = 0.55
Shade = tuple[int, int, int]
_ABOVE: Shade = (230, 120, 0)
_BELOW: Shade = (30, 110, 220)
_BOX = "line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext"
_PAGE = "font:14px/1.5 system-ui,sans-serif;max-width:70em"
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;white-space:normal"


def opacity(share: float) -> float:
    """How much a value that is ``share`` of the largest (-1 to 1) covers: logarithmic, so that weak ones are seen."""
    size = min(abs(share), 1.0)
    return 0.0 if size == 0 or math.isnan(size) else MOST_OPAQUE * (0.05 + 0.95 * math.log10(1 + 9 * size))


@dataclass(frozen=True)
class Strip:
    """One row of pieces.

    Attributes:
        pieces: what is shown, in order.
        values: one for each token of the row (not of each piece); a piece shows the one that is largest in size.
        largest: the value that is shown in full colour.
        titles: hover title of each token; empty for none.
        masked: whether a token is no row of the SAE: shown faint and struck through.
    """

    pieces: Sequence[Piece]
    values: Sequence[float]
    largest: float
    titles: Sequence[str] = ()
    masked: Sequence[bool] = ()

    def value(self, piece: Piece) -> float:
        """The value of a piece, largest in size of its tokens; NaN counts as 0."""
        inside = [value for value in self.values[piece.start : piece.stop] if not math.isnan(value)]
        return max(inside, key=abs, default=0.0)

    @property
    def peak(self) -> Piece | None:
        """The piece with the largest value, if any is not 0."""
        best = max(self.pieces, key=lambda piece: abs(self.value(piece)), default=None)
        return best if best is not None and self.value(best) != 0 else None

    def to_html(self) -> str:
        """One ``<div>``; neighbours without value, title or mark share a span."""
        peak, parts, plain = self.peak, list[str](), list[str]()
        for piece in self.pieces:
            span = self._span(piece, piece is peak)
            if span is None:
                plain.append(html.escape(_shown(piece, breaks=True)))
                continue
            if plain:
                parts.append(f"<span>{''.join(plain)}</span>")
                plain = []
            parts.append(span)
        if plain:
            parts.append(f"<span>{''.join(plain)}</span>")
        return f'<div style="{_BOX}">{"".join(parts)}</div>'

    def _span(self, piece: Piece, is_peak: bool) -> str | None:
        value = self.value(piece)
        share = value / self.largest if self.largest > 0 else 0.0
        title = "\n".join(title for title in self.titles[piece.start : piece.stop] if title)
        masked = any(self.masked[piece.start : piece.stop])
        styles = []
        if share:
            red, green, blue = _ABOVE if share > 0 else _BELOW
            styles.append(f"background:rgba({red},{green},{blue},{opacity(share):.2f});border-radius:3px")
        if is_peak:
            styles.append("font-weight:700;text-decoration:underline")
        if masked:
            styles.append("opacity:.75;text-decoration:line-through")
        if piece.special:
            styles.append("border:1px solid;border-radius:9px;padding:0 4px;font-size:85%")
        if not styles and not title:
            return None
        hover = f' title="{html.escape(title)}"' if title else ""
        style = f' style="{";".join(styles)}"' if styles else ""
        return f"<span{style}{hover}>{html.escape(_shown(piece, breaks=True))}</span>"

    def to_rich(self) -> Text:
        """For terminals: background by value, the peak bold and underlined, masked tokens dim."""
        from rich.text import Text

        line, peak = Text(), self.peak
        for piece in self.pieces:
            value = self.value(piece)
            share = max(-1.0, min(1.0, value / self.largest)) if self.largest > 0 else 0.0
            style = ""
            if share:
                level = opacity(share) / MOST_OPAQUE
                shade = _ABOVE if share > 0 else _BELOW
                # dark text on a colour mixed with white reads on every terminal background
                mixed = [round(255 - (255 - part) * (0.25 + 0.75 * level)) for part in shade]
                style = f"#101010 on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"
            if any(self.masked[piece.start : piece.stop]):
                style = "dim strike"
            line.append(
                _shown(piece, breaks=False), style=f"{style}{' bold underline' if piece is peak else ''}".strip()
            )
        return line


def running(text: str) -> str:
    """Spaces as they are, other whitespace as signs; no line breaks, so that examples stay one below the other."""
    core = text.strip(" ")
    return text.replace(core, visible(core)) if core else text


def _shown(piece: Piece, breaks: bool) -> str:
    """A piece in running text; where lines may break, one does after the sign of a line break."""
    text = piece.shown if piece.special else running(piece.text)
    return text.replace("↵", "↵\n") if breaks and not piece.special else text


def cell(content: object) -> str:
    """Text for HTML: escaped; floats with three digits."""
    if isinstance(content, float):
        return "–" if math.isnan(content) else f"{content:,.3g}"
    return html.escape(str(content))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """An HTML table of cells that are HTML already."""
    top = "".join(f'<th style="{_CELL}" scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td style={chr(34)}{_CELL}{chr(34)}>{part}</td>' for part in row)}</tr>" for row in rows
    )
    said = f'<caption style="text-align:left;font-weight:600">{html.escape(caption)}</caption>' if caption else ""
    return f'<table style="border-collapse:collapse;background:none">{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def frame(title: str, content: str, *, closed: bool = False) -> str:
    """A part that can be folded, without scripts."""
    return f'<details{"" if closed else " open"}><summary style="font-weight:600">{html.escape(title)}</summary>{content}</details>'


def page(*parts: str, notes: Sequence[str] = ()) -> str:
    """What ``_repr_html_`` gives: the parts, and the notes in small print."""
    small = "".join(f'<p style="font-size:12px;margin:.2em 0">{html.escape(note)}</p>' for note in notes)
    return f'<div style="{_PAGE}">{"".join(parts)}{small}</div>'
