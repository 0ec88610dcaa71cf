"""The tables of the zoo. The migrations make them; a test holds both together.

Every time is in seconds since 1970 by the clock of the database. Digests are stored as text (``sha256:<hex>``).

Each name begins with ``zoo_``, since a PostgreSQL database may hold other tables as well.

    users, namespaces, members, tokens                who may do what; a signed-in browser holds a token of kind "session"
    artefacts, versions, files, edges                 what was published, its files, what it was made from or is about
    aliases, alias_log                                names that move, and every move
    blobs, publications, uploads                      bytes that are here; publications under way and their unfinished uploads
    search_documents, tags, figures                   what a search looks at
    stars, comments, collections, collection_items    what people add
    audit                                             who did what
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "alias_log",
    "aliases",
    "artefacts",
    "audit",
    "blobs",
    "collection_items",
    "collections",
    "comments",
    "edges",
    "figures",
    "files",
    "leases",
    "members",
    "metadata",
    "namespaces",
    "publications",
    "search_documents",
    "stars",
    "tags",
    "tokens",
    "uploads",
    "users",
    "versions",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself for INTEGER alone
_JSON = JSON(none_as_null=True)
_DIGEST = String(71)


def _ordered(length: int) -> String:
    """Text that is ordered by its bytes in both databases."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _to(table: str, name: str, **options: bool) -> Column[int]:
    """A column that refers to a row of another table."""
    return Column(name, _ID, ForeignKey(f"zoo_{table}.id"), **options)  # type: ignore[arg-type]


# --- people ---------------------------------------------------------------------------------------------------------------

users = Table(
    "zoo_users",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),  # is also the name of their namespace
    Column("email", String(320)),
    Column("password_hash", Text),  # argon2id; empty for people who sign in elsewhere
    Column("subject", Text, unique=True),  # issuer and subject of OIDC
    Column("is_admin", Boolean, nullable=False, server_default="0"),
    Column("disabled", Boolean, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
)

namespaces = Table(
    "zoo_namespaces",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),  # never reused
    Column("kind", String(20), nullable=False),  # person, organisation
    Column("title", String(200), nullable=False, server_default=""),
    Column("quota_bytes", BigInteger),  # none: unlimited
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
)

members = Table(
    "zoo_members",
    metadata,
    _to("namespaces", "namespace_id", primary_key=True),
    _to("users", "user_id", primary_key=True),
    Column("role", String(20), nullable=False),  # reader, writer, owner
    Index(None, "user_id"),
)

tokens = Table(
    "zoo_tokens",
    metadata,
    _id(),
    _to("users", "user_id", nullable=False, index=True),
    Column("kind", String(20), nullable=False),  # token, session
    Column("title", String(200), nullable=False, server_default=""),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("shown", String(20), nullable=False),  # its first characters, to tell it from others
    Column("scopes", _JSON, nullable=False),  # read, write, admin
    _to("namespaces", "namespace_id"),  # the only one that it is good for; none: all of the user's
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("used_at", Double),
    Column("revoked_at", Double),
)

# --- what is published ----------------------------------------------------------------------------------------------------

artefacts = Table(
    "zoo_artefacts",
    metadata,
    _id(),
    _to("namespaces", "namespace_id", nullable=False),
    Column("name", _ordered(64), nullable=False),
    Column("kind", String(42), nullable=False),
    Column("private", Boolean, nullable=False, server_default="0"),
    Column("stars", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("deleted_at", Double),  # its name stays taken
    UniqueConstraint("namespace_id", "name"),
)

versions = Table(
    "zoo_versions",
    metadata,
    _id(),
    _to("artefacts", "artefact_id", nullable=False),
    Column("label", String(64), nullable=False),
    Column("sort_key", _ordered(200), nullable=False),  # orders labels as PEP 440 does
    Column("digest", _DIGEST, nullable=False, index=True),  # of the manifest's bytes
    Column("manifest", LargeBinary, nullable=False),
    Column("kind", String(42), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),  # why it is deprecated, yanked, deleted
    _to("versions", "successor_id"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("downloads", BigInteger, nullable=False, server_default="0"),
    _to("users", "publisher_id"),  # none for the embedded zoo
    Column("created_at", Double, nullable=False),
    Column("published_at", Double),
    Column("changed_at", Double, nullable=False),  # of the state
    UniqueConstraint("artefact_id", "label"),
    CheckConstraint("state IN ('draft', 'published', 'deprecated', 'yanked', 'deleted')", name="state"),
)

files = Table(
    "zoo_files",
    metadata,
    _to("versions", "version_id", primary_key=True),
    Column("path", String(512), primary_key=True),
    Column("digest", _DIGEST, nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(100), nullable=False),
)

edges = Table(
    "zoo_edges",
    metadata,
    _to("versions", "version_id", primary_key=True),
    _to("versions", "parent_id", primary_key=True),
    Column("role", String(42), primary_key=True),  # a dependency's role, or "subject"
    Index(None, "parent_id"),
)

aliases = Table(
    "zoo_aliases",
    metadata,
    _to("artefacts", "artefact_id", primary_key=True),
    Column("alias", String(64), primary_key=True),
    _to("versions", "version_id", nullable=False),
    Column("changed_at", Double, nullable=False),
    Index(None, "version_id"),
)

alias_log = Table(
    "zoo_alias_log",
    metadata,
    _id(),
    _to("artefacts", "artefact_id", nullable=False, index=True),
    Column("alias", String(64), nullable=False),
    _to("versions", "from_id"),
    _to("versions", "to_id"),  # none: it was taken away
    _to("users", "user_id"),
    Column("at", Double, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
)

# --- bytes ----------------------------------------------------------------------------------------------------------------

blobs = Table(
    "zoo_blobs",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("verified_at", Double, nullable=False),  # when its bytes were last hashed
    Column("sound", Boolean, nullable=False, server_default="1"),
)

publications = Table(
    "zoo_publications",
    metadata,
    _id(),
    Column("key", String(32), nullable=False, unique=True),
    _to("namespaces", "namespace_id", nullable=False, index=True),
    _to("users", "user_id"),
    Column("reserved_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

uploads = Table(
    "zoo_uploads",
    metadata,
    _id(),
    Column("key", String(32), nullable=False, unique=True),
    Column("publication_id", _ID, ForeignKey("zoo_publications.id", ondelete="CASCADE"), nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False, server_default="0"),
    Column("state", _JSON),  # of a store that takes parts
    Column("done", Boolean, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("publication_id", "digest"),
)

# --- searching ------------------------------------------------------------------------------------------------------------

# What full text search reads is made from it by the database itself, and not among these tables: on SQLite the FTS5 table
# zoo_search_text and its triggers, on PostgreSQL the column text_vector. See migration 0001 and neuronmap.zoo.search.index.
search_documents = Table(
    "zoo_search_documents",
    metadata,
    Column("version_id", _ID, ForeignKey("zoo_versions.id", ondelete="CASCADE"), primary_key=True),
    Column("findable", Boolean, nullable=False),  # published or deprecated
    Column("newest", Boolean, nullable=False),  # whether it is what "latest" means
    Column("namespace", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("kind", String(42), nullable=False),
    Column("title", Text, nullable=False),
    Column("model", String(200)),
    Column("model_folded", String(200)),  # last part, lower case
    Column("hook", String(300)),
    Column("layer", Integer),
    Column("component", String(60)),
    Column("architecture", String(64)),
    Column("d_in", Integer),
    Column("width", BigInteger),
    Column("l0", Double),
    Column("licence", String(200), nullable=False),
    Column("authors", _JSON, nullable=False),  # names, as they are to be cited
    Column("authors_folded", Text, nullable=False),  # lower case, one a line
    Column("tokenizer_digest", _DIGEST),
    Column("model_digest", _DIGEST),
    Column("fits_models", Text, nullable=False),  # folded names of further models that it is said to fit, one a line
    Column("fits_layers", Text, nullable=False),  # further blocks, one a line
    Column("published_at", Double, nullable=False),
    Column("summary", Text, nullable=False),
    # All that full text search finds it by, as words (neuronmap.zoo.search.words). Last, since SQLite reads past what stands before.
    Column("body", Text, nullable=False),
    Index(None, "kind", "published_at"),
    Index(None, "newest", "published_at"),
    Index(None, "model_folded", "layer"),
)

tags = Table(
    "zoo_tags",
    metadata,
    Column("version_id", _ID, ForeignKey("zoo_versions.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(50), primary_key=True),
    Index(None, "tag"),
)

figures = Table(
    "zoo_figures",
    metadata,
    Column("version_id", _ID, ForeignKey("zoo_versions.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(120), primary_key=True),
    Column("value", Double, nullable=False),
    Index(None, "name", "value"),
)

# --- what people add ------------------------------------------------------------------------------------------------------

stars = Table(
    "zoo_stars",
    metadata,
    _to("artefacts", "artefact_id", primary_key=True),
    _to("users", "user_id", primary_key=True),
    Column("created_at", Double, nullable=False),
)

comments = Table(
    "zoo_comments",
    metadata,
    _id(),
    _to("artefacts", "artefact_id", nullable=False, index=True),
    _to("versions", "version_id"),
    _to("users", "user_id"),
    Column("text", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
)

collections = Table(
    "zoo_collections",
    metadata,
    _id(),
    _to("namespaces", "namespace_id", nullable=False),
    Column("name", String(64), nullable=False),
    Column("title", String(200), nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("namespace_id", "name"),
)

collection_items = Table(
    "zoo_collection_items",
    metadata,
    Column("collection_id", _ID, ForeignKey("zoo_collections.id", ondelete="CASCADE"), primary_key=True),
    _to("artefacts", "artefact_id", primary_key=True),
    Column("position", Integer, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
)

# --- housekeeping ---------------------------------------------------------------------------------------------------------

audit = Table(
    "zoo_audit",
    metadata,
    _id(),
    Column("at", Double, nullable=False, index=True),
    _to("users", "user_id"),
    Column("action", String(60), nullable=False),
    Column("target", String(300), nullable=False),
    Column("details", _JSON),
)

leases = Table(
    "zoo_leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Double, nullable=False),
)
