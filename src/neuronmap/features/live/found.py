"""What the finder gives back: features with examples of where they fire, and where they do not.

Shapes: W tokens of an example's window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronmap.features.live.strips import Strip, cell, page
from neuronmap.features.storage.store import Example, FeatureRecord

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from rich.console import RenderableType

    from neuronmap.features.live.analysis import FeatureOnText, TextAnalysis

__all__ = ["FoundExamples", "FoundFeature"]


@dataclass(frozen=True)
class FoundFeature:
    """One feature with its examples.

    Attributes:
        record: what the store knows of it.
        examples: where it fires.
        negatives: where it does not: its own top tokens first, then random places; empty unless asked for.
        on_text: what it does on the text that was searched by; None otherwise.
    """

    record: FeatureRecord
    examples: tuple[Example, ...]
    negatives: tuple[Example, ...]
    on_text: FeatureOnText | None

    @property
    def feature(self) -> int:
        """Its number."""
        return self.record.feature

    @property
    def largest(self) -> float:
        """Its largest activation in the analysed text: what full colour stands for; 0 if it never fired."""
        return float(self.record.row["max"] or 0.0)

    @property
    def title(self) -> str:
        """Number, label, density and maximum."""
        row = self.record.row
        label = f" · {self.record.label}{self._score}" if self.record.label else ""
        if not row["firings"]:
            return f"#{self.feature}{label}: never fired"
        here = f", {self.on_text.max:.3g} on this text" if self.on_text is not None else ""
        return f"#{self.feature}{label}: fires on {row['density']:.3%} of tokens, up to {self.largest:.3g}{here}"

    @property
    def _score(self) -> str:
        """How well the label's rule predicts firing on held-out documents."""
        hint = self.record.hint or {}
        scores = [hint.get(name) for name in ("precision", "recall")]
        if any(score is None for score in scores):
            return " [not scored: too few firings]"
        return f" [precision {scores[0]:.2f}, recall {scores[1]:.2f}]"

    def strip(self, example: Example) -> Strip:
        """One of its examples."""
        values = example.activations.tolist()
        return Strip(example.pieces(), values, self.largest, [f"{value:.3g}" if value > 0 else "" for value in values])


@dataclass(frozen=True)
class FoundExamples:
    """Features that were found.

    Attributes:
        features: in the order found.
        said: what was looked for; empty for numbers.
        analysis: the text that was searched by, token by token; None otherwise.
        notes: what a reader should know.
    """

    features: tuple[FoundFeature, ...]
    said: str
    analysis: TextAnalysis | None
    notes: tuple[str, ...]

    def __getitem__(self, place: int) -> FoundFeature:
        return self.features[place]

    def __len__(self) -> int:
        return len(self.features)

    def to_arrow(self) -> pa.Table:
        """One row an example; negatives have the kind ``hard`` or ``random``."""
        import pyarrow as pa

        pairs = [(found, example) for found in self.features for example in (*found.examples, *found.negatives)]
        return pa.table(
            {
                "feature": pa.array([found.feature for found, _ in pairs], pa.int32()),
                "label": pa.array([found.record.label for found, _ in pairs], pa.string()),
                "kind": pa.array([example.kind for _, example in pairs], pa.string()),
                "group": pa.array([example.group for _, example in pairs], pa.int32()),
                "rank": pa.array([example.rank for _, example in pairs], pa.int32()),
                "activation": pa.array([example.activation for _, example in pairs], pa.float32()),
                "sequence": pa.array([example.sequence for _, example in pairs], pa.int64()),
                "position": pa.array([example.position for _, example in pairs], pa.int32()),
                "document": pa.array([example.document for _, example in pairs], pa.string()),
                "text": pa.array([example.text for _, example in pairs], pa.string()),
                "token_ids": pa.array([example.token_ids.tolist() for _, example in pairs], pa.list_(pa.int32())),
                "activations": pa.array([example.activations.tolist() for _, example in pairs], pa.list_(pa.float32())),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row an example."""
        return self.to_arrow().to_pandas()

    def __str__(self) -> str:
        lines = [f"{len(self)} {self.said}"] if self.said else []
        for found in self.features:
            lines.append(f"\n{found.title}")
            lines += [f"  {example.activation:>8.3g}  {_plain(example)}" for example in found.examples]
            lines += [f"  {example.kind:>8}  {_plain(example)}" for example in found.negatives]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)]).lstrip("\n")

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(f"{len(self)} {self.said}")] if self.said else []
        for found in self.features:
            parts.append(Text(f"\n{found.title}", style="bold"))
            if found.on_text is not None and self.analysis is not None:
                text = int(self.analysis.text_N[found.on_text.token])
                parts.append(
                    Text("here      ", style="dim") + self.analysis.feature(found.feature).strip(text).to_rich()
                )
            heads = [f"{example.activation:>8.3g}  " for example in found.examples]
            heads += [f"{example.kind:>8}  " for example in found.negatives]
            shown = zip(heads, (*found.examples, *found.negatives), strict=True)
            parts += [Text(head, style="dim") + found.strip(example).to_rich() for head, example in shown]
        return Group(*parts, *(Text(f"Note: {note}", style="dim") for note in self.notes))

    def _repr_html_(self) -> str:
        parts = [f"<p>{cell(f'{len(self)} {self.said}')}</p>"] if self.said else []
        for found in self.features:
            parts.append(f'<p style="margin:1em 0 .2em"><b>{cell(found.title)}</b></p>')
            if found.on_text is not None and self.analysis is not None:
                text = int(self.analysis.text_N[found.on_text.token])
                parts.append(_row("here", self.analysis.feature(found.feature).strip(text)))
            parts += [_row(f"{example.activation:.3g}", found.strip(example)) for example in found.examples]
            parts += [_row(example.kind, found.strip(example)) for example in found.negatives]
        return page(*parts, notes=self.notes)


def _plain(example: Example) -> str:
    """The window in one line, the peak in brackets."""
    pieces = example.pieces()
    return "".join(
        f"[[{piece.shown}]]" if piece.start <= example.peak < piece.stop else piece.text.replace("\n", "↵")
        for piece in pieces
    )


def _row(head: str, strip: Strip) -> str:
    left = f'<span style="flex:0 0 4.5em;opacity:.75;font-variant-numeric:tabular-nums">{cell(head)}</span>'
    return f'<div style="display:flex;gap:.8em;align-items:baseline">{left}{strip.to_html()}</div>'
