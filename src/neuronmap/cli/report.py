"""What commands print about SAEs: tables for people, documents for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape

from neuronmap.cli.output import table
from neuronmap.paths import human_bytes
from neuronmap.training.config import SAEConfig

if TYPE_CHECKING:
    from neuronmap.evaluation import CoreMetrics
    from neuronmap.hub import LibraryEntry

__all__ = ["config_help", "entry_rows", "metric_table", "show_entry", "stored_document"]


def config_help() -> str:
    """Every field of SAEConfig with its default and meaning, for ``--help``."""
    lines = ["**Settings** for `--set` and recipes (TOML files with the same names):", ""]
    for name, field in SAEConfig.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, {}, ()) else f" [default: {default}]"
        lines.append(f"- `{name}`: {' '.join((field.description or '').split())}{shown}")
    return "\n".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a table; a dash for what is absent."""
    if value is None:
        return "-"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}" if abs(value) >= 10 ** (1 - digits) else f"{value:.2g}"


def metric_table(metrics: CoreMetrics) -> list[RenderableType]:
    """Every figure with its error and meaning, then the density histogram."""
    from neuronmap.evaluation import density_text

    rows = [
        [row.name, number(row.value), f"± {number(row.error)}" if row.error is not None else "", row.explanation]
        for row in metrics.rows()
    ]
    protocol = metrics.protocol
    where = f"{protocol.tokens:,} held-out tokens in {protocol.contexts:,} contexts"
    if protocol.behaviour_tokens:
        where += f"; loss and KL on {protocol.behaviour_tokens:,}"
    return [
        table(f"Evaluation on {where}", ["metric", "value", "std. error", "what it is"], rows, right=["value"]),
        "",
        f"[bold]How often features fire[/] (share of {protocol.tokens:,} tokens; number of features)",
        escape(density_text(metrics.sparsity.histogram)),
        "",
    ]


def entry_rows(entries: Sequence[LibraryEntry]) -> list[list[str]]:
    """Rows of ``list-models``."""
    return [
        [
            entry.id,
            entry.architecture if not entry.problem else f"damaged: {entry.problem}",
            number(entry.d_sae),
            number(entry.metrics.get("l0"), 1),
            number(entry.metrics.get("explained_variance")),
            number(entry.metrics.get("ce_score_mean")),
            human_bytes(entry.size_bytes),
            (entry.created or "")[:10],
        ]
        for entry in entries
    ]


def show_entry(entry: LibraryEntry, verified: bool = False) -> list[RenderableType]:
    """What an SAE is, where it lies, and the lines that load it."""
    facts = [
        ("name", entry.id),
        (
            "architecture",
            f"{entry.architecture}, {entry.d_in} -> {entry.d_sae:,} features" + (f", k = {entry.k}" if entry.k else ""),
        ),
        ("model", " ".join(part for part in (entry.model, entry.revision) if part)),
        ("hook", entry.hook or ""),
        ("tags", ", ".join(entry.tags)),
        ("created", entry.created or ""),
        ("analyses", "\n".join(_analysis_lines(entry))),
        ("lies in", str(entry.path)),
        ("weights", f"{entry.weights_digest}{' (verified)' if verified else ''}"),
    ]
    load = (
        f"  from neuronmap import SAEModelHub;  sae = SAEModelHub().load({entry.id!r})\n"
        f"  from sae_lens import SAE;           sae = SAE.load_from_disk({str(entry.path)!r})"
    )
    return [
        table("", ["", ""], [[name, value] for name, value in facts if value]),
        "",
        "[bold]Load it[/] in NeuronMap or in SAELens:",
        escape(load),
    ]


def _analysis_lines(entry: LibraryEntry) -> list[str]:
    from neuronmap.hub.analyses import list_analyses

    found = [one for one in list_analyses(entry) if not one.problem]
    return [f"{one.name} ({one.tokens:,} tokens of {one.corpus or 'text'})" for one in found]


def stored_document(schema: str, entry: LibraryEntry, **more: Any) -> dict[str, Any]:
    """The JSON document about one SAE."""
    return {"schema": schema, "sae": entry.to_dict(), **more}
