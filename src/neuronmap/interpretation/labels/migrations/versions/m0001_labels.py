"""The tables of acts and of the labels that hold now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _ordered(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "label_acts",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", _ordered(32), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("sae", sa.String(71), nullable=False),
        sa.Column("feature", sa.BigInteger, nullable=False),
        sa.Column("author_kind", sa.String(10), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("at", _ordered(27), nullable=False),
        sa.Column("target", sa.String(32)),
        sa.Column("said", sa.JSON, nullable=False),
        sa.Column("judgements", sa.JSON),
        sa.PrimaryKeyConstraint("number", name="pk_label_acts"),
        sa.UniqueConstraint("id", name="uq_label_acts_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_acts_target", "label_acts", ["target"])
    op.create_index("ix_label_acts_sae_feature", "label_acts", ["sae", "feature"])
    op.create_index("ix_label_acts_kind_author", "label_acts", ["kind", "author"])
    op.create_table(
        "label_current",
        sa.Column("id", _ordered(32), nullable=False),
        sa.Column("sae", sa.String(71), nullable=False),
        sa.Column("feature", sa.BigInteger, nullable=False),
        sa.Column("side", sa.String(10), nullable=False),
        sa.Column("author_kind", sa.String(10), nullable=False),
        sa.Column("author", _ordered(200), nullable=False),
        sa.Column("method", _ordered(120), nullable=False),
        sa.Column("at", _ordered(27), nullable=False),
        sa.Column("text", _ordered(200), nullable=False),
        sa.Column("searched", sa.Text, nullable=False),
        sa.Column("protocol", sa.String(120)),
        sa.Column("value", sa.Double),
        sa.Column("low", sa.Double),
        sa.Column("up", sa.Integer, nullable=False),
        sa.Column("down", sa.Integer, nullable=False),
        sa.Column("flags", sa.Integer, nullable=False),
        sa.Column("conflict", sa.Boolean, nullable=False),
        sa.Column("held", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_label_current"),
    )
    op.create_index("ix_label_current_sae_feature", "label_current", ["sae", "feature"])
    op.create_index("ix_label_current_sae_author_kind_author", "label_current", ["sae", "author_kind", "author"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("label_current")
    op.drop_table("label_acts")
