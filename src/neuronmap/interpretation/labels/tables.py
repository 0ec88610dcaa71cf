"""The two tables. The migrations make them; a test holds both together.

label_acts     every act, as it was said; rows are added and never changed
label_current  the labels that hold now, one row each, made anew from the acts of a feature whenever one of them is added
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text

__all__ = ["acts", "current", "metadata"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself for INTEGER alone
_JSON = JSON(none_as_null=True)


def _ordered(length: int) -> String:
    """Text that is ordered by its bytes in both databases."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


acts = Table(
    "label_acts",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),  # in the order in which this book heard of them
    Column("id", _ordered(32), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("sae", String(71), nullable=False),
    Column("feature", BigInteger, nullable=False),
    Column("author_kind", String(10), nullable=False),
    Column("author", String(200), nullable=False),
    Column("at", _ordered(27), nullable=False),
    Column("target", String(32), index=True),  # the label or act that it is about
    Column("said", _JSON, nullable=False),  # all of it but the judgements of a score
    Column("judgements", _JSON),
    Index(None, "sae", "feature"),
    Index(None, "kind", "author"),
    sqlite_autoincrement=True,
)

current = Table(
    "label_current",
    metadata,
    Column("id", _ordered(32), primary_key=True),
    Column("sae", String(71), nullable=False),
    Column("feature", BigInteger, nullable=False),
    Column("side", String(10), nullable=False),
    Column("author_kind", String(10), nullable=False),
    Column("author", _ordered(200), nullable=False),
    Column("method", _ordered(120), nullable=False),
    Column("at", _ordered(27), nullable=False),
    Column("text", _ordered(200), nullable=False),
    Column("searched", Text, nullable=False),  # its text and explanation in small letters
    Column("protocol", String(120)),  # of its first score, see HeldLabel.score
    Column("value", Double),
    Column("low", Double),
    Column("up", Integer, nullable=False),
    Column("down", Integer, nullable=False),
    Column("flags", Integer, nullable=False),
    Column("conflict", Boolean, nullable=False),
    Column("held", _JSON, nullable=False),  # a HeldLabel
    Index(None, "sae", "feature"),
    Index(None, "sae", "author_kind", "author"),
)
