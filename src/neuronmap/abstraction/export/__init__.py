"""Reports of the tracker for other readers: one self-contained page, one long table, and short rows for terminals."""

from neuronmap.abstraction.export.html import report_html
from neuronmap.abstraction.export.parquet import report_arrow, report_parquet

__all__ = ["report_arrow", "report_html", "report_parquet"]
