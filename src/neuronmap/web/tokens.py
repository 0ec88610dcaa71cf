"""Rows of tokens as HTML: shaded by activation, no inline style, values reachable by mouse, keyboard and touch.

A token that fires is ``<b class="a7" tabindex="0" data-v="12.3" data-s="0.94">``: shade 1 to 20 by :func:`opacity` of its share of the
feature's largest activation. The script shows ``data-*`` in one shared tooltip; without it the same stands in the title. Runs of
tokens that do not fire are plain text. The peak is also bold and underlined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape
from pydantic import BaseModel, Field

from neuronmap.features.live.strips import MOST_OPAQUE, opacity, running

__all__ = ["ShownPiece", "level", "strip", "token"]


class ShownPiece(BaseModel):
    """A piece of text: one token, or several that share a character.

    ``shown`` has whitespace made visible; ``text`` is as it is.
    """

    text: str = Field(description="The text as it is.")
    shown: str = Field(description="The text with whitespace and special tokens made visible.")
    value: float = Field(default=0.0, description="Largest activation of its tokens.")
    special: bool = Field(default=False, description="Whether it is a special token.")
    masked: bool = Field(default=False, description="Whether it is no row of the SAE.")


def level(share: float) -> int:
    """Shade of a share of the largest activation: 0 (none) to 20."""
    if share == 0 or math.isnan(share):
        return 0
    return max(1, round(20 * opacity(share) / MOST_OPAQUE))


def strip(
    pieces: Sequence[ShownPiece], largest: float, peak: int | None = None, *, breaks: bool = False, focus: bool = True
) -> Markup:
    """Pieces in running text.

    Args:
        pieces: in order.
        largest: activation that is shown in full colour: the feature's largest.
        peak: the piece that is marked.
        breaks: let lines break where the text has line breaks.
        focus: let the keyboard stop at tokens that fire.
    """
    parts = []
    for at, piece in enumerate(pieces):
        text = escape(piece.shown if piece.special else running(piece.text))
        if breaks and not piece.special:
            text = Markup(text.replace("↵", "↵\n"))
        if piece.special:
            text = Markup('<u class="special">{}</u>').format(text)
        if piece.masked:
            text = Markup('<s title="masked: no row of the SAE">{}</s>').format(text)
        share = piece.value / largest if largest > 0 else 0.0
        shade = level(share)
        mark = " peak" if at == peak else ""
        if shade:
            name = f"{piece.shown.strip() or piece.shown}: {piece.value:.3g}, {share:.0%} of the largest"
            stop = Markup(' tabindex="0" role="note" aria-label="{}"').format(name) if focus else Markup("")
            parts.append(
                Markup('<b class="t {}{}{}"{} data-v="{}" data-s="{}" title="{}">{}</b>').format(
                    "a" if share > 0 else "n", shade, mark, stop, f"{piece.value:.4g}", f"{share:.3f}", name, text
                )
            )
        elif mark:
            parts.append(Markup('<b class="t peak">{}</b>').format(text))
        else:
            parts.append(Markup(text))
    return Markup("").join(parts)


def token(shown: str, kind: str = "") -> Markup:
    """One token as a small box."""
    return Markup('<code class="tok {}">{}</code>').format(kind, shown)
