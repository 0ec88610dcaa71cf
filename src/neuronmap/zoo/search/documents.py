"""What a search looks at: one document for each published version, its tags and its figures."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from neuronmap.database import now
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.registry.rows import latest_of
from neuronmap.zoo.tables import figures, search_documents, tags, versions

__all__ = ["add_document", "drop_document", "folded_model", "refresh_newest"]

_MOST_CARD = 20_000


def folded_model(name: str | None) -> str | None:
    """A model's name without its owner, lower case: what people mean by "gpt2" or "Llama-3.1-8B"."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower() if name else None


def add_document(connection: Connection, version_id: int, manifest: Manifest, card: str) -> None:
    """Make a version findable; its ``newest`` is set by :func:`refresh_newest`."""
    fields = manifest.read_record().search_fields()
    names = [author.name for author in manifest.authors]
    words = [manifest.summary, *manifest.tags, *names, fields.model or "", fields.hook or "", fields.architecture or ""]
    connection.execute(
        insert(search_documents).values(
            version_id=version_id,
            findable=True,
            newest=False,
            namespace=manifest.namespace,
            name=manifest.name,
            kind=manifest.kind,
            title=manifest.title,
            body="\n".join([*words, card[:_MOST_CARD]]).replace("\0", ""),
            model=fields.model,
            model_folded=folded_model(fields.model),
            hook=fields.hook,
            layer=fields.layer,
            component=fields.component,
            architecture=fields.architecture,
            d_in=fields.d_in,
            width=fields.width,
            l0=fields.metrics.get("l0"),
            licence=manifest.licence,
            authors="\n".join(name.lower() for name in names),
            tokenizer_digest=fields.tokenizer_digest,
            model_digest=fields.model_digest,
            published_at=now(),
        )
    )
    if manifest.tags:
        connection.execute(
            insert(tags), [{"version_id": version_id, "tag": tag} for tag in dict.fromkeys(manifest.tags)]
        )
    if fields.metrics:
        rows = [{"version_id": version_id, "name": name, "value": value} for name, value in fields.metrics.items()]
        connection.execute(insert(figures), rows)


def drop_document(connection: Connection, version_id: int) -> None:
    """Take a version out of the search for good."""
    connection.execute(delete(search_documents).where(search_documents.c.version_id == version_id))
    connection.execute(delete(tags).where(tags.c.version_id == version_id))
    connection.execute(delete(figures).where(figures.c.version_id == version_id))


def refresh_newest(connection: Connection, artefact_id: int) -> None:
    """After a version of an artefact came, or changed its state: which are found, and which one is the newest."""
    rows = connection.execute(
        select(versions.c.id, versions.c.label, versions.c.state, versions.c.sort_key).where(
            versions.c.artefact_id == artefact_id
        )
    ).all()
    newest = latest_of(rows)
    findable = {row.id for row in rows if row.state in ("published", "deprecated")}
    of_artefact = search_documents.c.version_id.in_([row.id for row in rows])
    connection.execute(update(search_documents).where(of_artefact).values(newest=False, findable=False))
    if findable:
        connection.execute(
            update(search_documents).where(search_documents.c.version_id.in_(findable)).values(findable=True)
        )
    if newest is not None:
        connection.execute(
            update(search_documents).where(search_documents.c.version_id == newest.id).values(newest=True)
        )
