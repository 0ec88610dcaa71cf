"""The tables of the zoo, and the index that full text search reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST = sa.String(71)


def upgrade() -> None:
    """Make all tables."""
    _people()
    _versions()
    _aliases()
    _bytes()
    _searching()
    _additions()
    _housekeeping()


def _people() -> None:
    """Who may do what."""
    op.create_table(
        "zoo_users",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("is_admin", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_users")),
        sa.UniqueConstraint("name", name=op.f("uq_zoo_users_name")),
        sa.UniqueConstraint("subject", name=op.f("uq_zoo_users_subject")),
    )
    op.create_table(
        "zoo_namespaces",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("title", sa.String(length=200), server_default="", nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_namespaces")),
        sa.UniqueConstraint("name", name=op.f("uq_zoo_namespaces_name")),
    )
    op.create_table(
        "zoo_members",
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["zoo_namespaces.id"], name=op.f("fk_zoo_members_namespace_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_members_user_id")),
        sa.PrimaryKeyConstraint("namespace_id", "user_id", name=op.f("pk_zoo_members")),
    )
    with op.batch_alter_table("zoo_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_members_user_id"), ["user_id"], unique=False)
    op.create_table(
        "zoo_tokens",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("title", sa.String(length=200), server_default="", nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("shown", sa.String(length=20), nullable=False),
        sa.Column("scopes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("namespace_id", _ID, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["namespace_id"], ["zoo_namespaces.id"], name=op.f("fk_zoo_tokens_namespace_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_tokens")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_zoo_tokens_secret_sha256")),
    )
    with op.batch_alter_table("zoo_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_tokens_user_id"), ["user_id"], unique=False)


def _versions() -> None:
    """What was published."""
    op.create_table(
        "zoo_artefacts",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column(
            "name", sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("kind", sa.String(length=42), nullable=False),
        sa.Column("private", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("stars", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["namespace_id"], ["zoo_namespaces.id"], name=op.f("fk_zoo_artefacts_namespace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_artefacts")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_zoo_artefacts_namespace_id_name")),
    )
    op.create_table(
        "zoo_versions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column(
            "sort_key",
            sa.String(length=200).with_variant(sa.String(length=200, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=42), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("successor_id", _ID, nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("downloads", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("publisher_id", _ID, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=True),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('draft', 'published', 'deprecated', 'yanked', 'deleted')", name=op.f("ck_zoo_versions_state")
        ),
        sa.ForeignKeyConstraint(["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_versions_artefact_id")),
        sa.ForeignKeyConstraint(["publisher_id"], ["zoo_users.id"], name=op.f("fk_zoo_versions_publisher_id")),
        sa.ForeignKeyConstraint(["successor_id"], ["zoo_versions.id"], name=op.f("fk_zoo_versions_successor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_versions")),
        sa.UniqueConstraint("artefact_id", "label", name=op.f("uq_zoo_versions_artefact_id_label")),
    )
    with op.batch_alter_table("zoo_versions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_versions_digest"), ["digest"], unique=False)
    op.create_table(
        "zoo_files",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_files_version_id")),
        sa.PrimaryKeyConstraint("version_id", "path", name=op.f("pk_zoo_files")),
    )
    with op.batch_alter_table("zoo_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_files_digest"), ["digest"], unique=False)
    op.create_table(
        "zoo_edges",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("parent_id", _ID, nullable=False),
        sa.Column("role", sa.String(length=42), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["zoo_versions.id"], name=op.f("fk_zoo_edges_parent_id")),
        sa.ForeignKeyConstraint(["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_edges_version_id")),
        sa.PrimaryKeyConstraint("version_id", "parent_id", "role", name=op.f("pk_zoo_edges")),
    )
    with op.batch_alter_table("zoo_edges", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_edges_parent_id"), ["parent_id"], unique=False)


def _aliases() -> None:
    """Names that move, and every move."""
    op.create_table(
        "zoo_aliases",
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_aliases_artefact_id")),
        sa.ForeignKeyConstraint(["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_aliases_version_id")),
        sa.PrimaryKeyConstraint("artefact_id", "alias", name=op.f("pk_zoo_aliases")),
    )
    with op.batch_alter_table("zoo_aliases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_aliases_version_id"), ["version_id"], unique=False)
    op.create_table(
        "zoo_alias_log",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("from_id", _ID, nullable=True),
        sa.Column("to_id", _ID, nullable=True),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_alias_log_artefact_id")),
        sa.ForeignKeyConstraint(["from_id"], ["zoo_versions.id"], name=op.f("fk_zoo_alias_log_from_id")),
        sa.ForeignKeyConstraint(["to_id"], ["zoo_versions.id"], name=op.f("fk_zoo_alias_log_to_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_alias_log_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_alias_log")),
    )
    with op.batch_alter_table("zoo_alias_log", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_alias_log_artefact_id"), ["artefact_id"], unique=False)


def _bytes() -> None:
    """Bytes that are here, and publications under way."""
    op.create_table(
        "zoo_blobs",
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("verified_at", sa.Double(), nullable=False),
        sa.Column("sound", sa.Boolean(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_zoo_blobs")),
    )
    op.create_table(
        "zoo_publications",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("reserved_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["zoo_namespaces.id"], name=op.f("fk_zoo_publications_namespace_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_publications_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_publications")),
        sa.UniqueConstraint("key", name=op.f("uq_zoo_publications_key")),
    )
    with op.batch_alter_table("zoo_publications", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_publications_namespace_id"), ["namespace_id"], unique=False)
    op.create_table(
        "zoo_uploads",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("publication_id", _ID, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("done", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["publication_id"], ["zoo_publications.id"], name=op.f("fk_zoo_uploads_publication_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_uploads")),
        sa.UniqueConstraint("key", name=op.f("uq_zoo_uploads_key")),
        sa.UniqueConstraint("publication_id", "digest", name=op.f("uq_zoo_uploads_publication_id_digest")),
    )


def _searching() -> None:
    """What a search looks at, and the index that full text search reads."""
    op.create_table(
        "zoo_search_documents",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("findable", sa.Boolean(), nullable=False),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=42), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("model_folded", sa.String(length=200), nullable=True),
        sa.Column("hook", sa.String(length=300), nullable=True),
        sa.Column("layer", sa.Integer(), nullable=True),
        sa.Column("component", sa.String(length=60), nullable=True),
        sa.Column("architecture", sa.String(length=64), nullable=True),
        sa.Column("d_in", sa.Integer(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=True),
        sa.Column("l0", sa.Double(), nullable=True),
        sa.Column("licence", sa.String(length=200), nullable=False),
        sa.Column("authors", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("authors_folded", sa.Text(), nullable=False),
        sa.Column("tokenizer_digest", _DIGEST, nullable=True),
        sa.Column("model_digest", _DIGEST, nullable=True),
        sa.Column("fits_models", sa.Text(), nullable=False),
        sa.Column("fits_layers", sa.Text(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_search_documents_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_zoo_search_documents")),
    )
    with op.batch_alter_table("zoo_search_documents", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_zoo_search_documents_kind_published_at"), ["kind", "published_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_zoo_search_documents_newest_published_at"), ["newest", "published_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_zoo_search_documents_model_folded_layer"), ["model_folded", "layer"], unique=False
        )
    op.create_table(
        "zoo_tags",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("tag", sa.String(length=50), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_tags_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "tag", name=op.f("pk_zoo_tags")),
    )
    with op.batch_alter_table("zoo_tags", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_tags_tag"), ["tag"], unique=False)
    op.create_table(
        "zoo_figures",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_figures_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "name", name=op.f("pk_zoo_figures")),
    )
    with op.batch_alter_table("zoo_figures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_figures_name_value"), ["name", "value"], unique=False)
    for statement in _SQLITE_TEXT if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL_TEXT:
        op.execute(statement)


def _additions() -> None:
    """What people add."""
    op.create_table(
        "zoo_stars",
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_stars_artefact_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_stars_user_id")),
        sa.PrimaryKeyConstraint("artefact_id", "user_id", name=op.f("pk_zoo_stars")),
    )
    op.create_table(
        "zoo_comments",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("version_id", _ID, nullable=True),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_comments_artefact_id")),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_comments_user_id")),
        sa.ForeignKeyConstraint(["version_id"], ["zoo_versions.id"], name=op.f("fk_zoo_comments_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_comments")),
    )
    with op.batch_alter_table("zoo_comments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_comments_artefact_id"), ["artefact_id"], unique=False)
    op.create_table(
        "zoo_collections",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["zoo_namespaces.id"], name=op.f("fk_zoo_collections_namespace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_collections")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_zoo_collections_namespace_id_name")),
    )
    op.create_table(
        "zoo_collection_items",
        sa.Column("collection_id", _ID, nullable=False),
        sa.Column("artefact_id", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["artefact_id"], ["zoo_artefacts.id"], name=op.f("fk_zoo_collection_items_artefact_id")
        ),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["zoo_collections.id"],
            name=op.f("fk_zoo_collection_items_collection_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "artefact_id", name=op.f("pk_zoo_collection_items")),
    )


def _housekeeping() -> None:
    """Who did what, and who is at work."""
    op.create_table(
        "zoo_audit",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("target", sa.String(length=300), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["zoo_users.id"], name=op.f("fk_zoo_audit_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_zoo_audit")),
    )
    with op.batch_alter_table("zoo_audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_zoo_audit_at"), ["at"], unique=False)
    op.create_table(
        "zoo_leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_zoo_leases")),
    )


_SQLITE_TEXT = (
    """
    CREATE VIRTUAL TABLE zoo_search_text USING fts5(
        title, body, namespace, name,
        content='zoo_search_documents', content_rowid='version_id', tokenize='unicode61 remove_diacritics 2', prefix='2 3'
    )
    """,
    """
    CREATE TRIGGER zoo_search_text_insert AFTER INSERT ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (rowid, title, body, namespace, name)
        VALUES (new.version_id, new.title, new.body, new.namespace, new.name);
    END
    """,
    """
    CREATE TRIGGER zoo_search_text_delete AFTER DELETE ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (zoo_search_text, rowid, title, body, namespace, name)
        VALUES ('delete', old.version_id, old.title, old.body, old.namespace, old.name);
    END
    """,
    """
    CREATE TRIGGER zoo_search_text_update
    AFTER UPDATE OF version_id, title, body, namespace, name ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (zoo_search_text, rowid, title, body, namespace, name)
        VALUES ('delete', old.version_id, old.title, old.body, old.namespace, old.name);
        INSERT INTO zoo_search_text (rowid, title, body, namespace, name)
        VALUES (new.version_id, new.title, new.body, new.namespace, new.name);
    END
    """,
)
"""An index without a copy of the text: the triggers tell it what it held, so that it can take it out again."""

_POSTGRESQL_TEXT = (
    """
    ALTER TABLE zoo_search_documents ADD COLUMN text_vector tsvector GENERATED ALWAYS AS (
        setweight(to_tsvector('simple', translate(name, '._-', '   ')), 'A')
        || setweight(to_tsvector('simple', title), 'B')
        || setweight(to_tsvector('simple', translate(namespace, '._-', '   ')), 'C')
        || to_tsvector('simple', body)
    ) STORED
    """,
    "CREATE INDEX ix_zoo_search_documents_text_vector ON zoo_search_documents USING gin (text_vector)",
)
