"""What a search looks at: one document for each published version, its tags and its figures."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from neuronmap.database import now
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.registry.rows import latest_of
from neuronmap.zoo.search.words import fold, folded_model
from neuronmap.zoo.tables import figures, search_documents, tags, versions

__all__ = ["add_document", "date_document", "drop_document", "refresh_newest"]

_MOST_CARD = 20_000
_MOST_BODY = 80_000


def add_document(connection: Connection, version_id: int, manifest: Manifest, card: str) -> None:
    """Make a version findable; its ``newest`` is set by :func:`refresh_newest`."""
    fields = manifest.read_record().search_fields()
    names = [author.name for author in manifest.authors]
    words = [
        f"{manifest.namespace} {manifest.name}",
        manifest.title,
        manifest.summary,
        *manifest.tags,
        *(text or "" for text in (fields.model, fields.hook, fields.component, fields.architecture)),
        card[:_MOST_CARD],
        *names,
    ]
    connection.execute(
        insert(search_documents).values(
            version_id=version_id,
            findable=True,
            newest=False,
            namespace=manifest.namespace,
            name=manifest.name,
            kind=manifest.kind,
            title=manifest.title,
            body=fold("\n".join(words))[:_MOST_BODY],
            summary=manifest.summary,
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
            authors=names,
            authors_folded="\n".join(names).lower(),
            tokenizer_digest=fields.tokenizer_digest,
            model_digest=fields.model_digest,
            fits_models=_lines(folded_model(name) for name in fields.fits_models),
            fits_layers=_lines(fields.fits_layers),
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


def _lines(values: Iterable[object]) -> str:
    """Each value between line ends, so that a search for one finds no part of another."""
    found = "\n".join(str(value) for value in values)
    return f"\n{found}\n" if found else ""


def date_document(connection: Connection, version_id: int) -> None:
    """A draft was released: it is as new as that."""
    connection.execute(
        update(search_documents).where(search_documents.c.version_id == version_id).values(published_at=now())
    )


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
