"""The JSON documents of ``neuronmap zoo``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.document import Document
from neuronmap.zoo.client.locking import LockedArtefact
from neuronmap.zoo.people.views import NamespaceView, NewToken, TokenView, UserView
from neuronmap.zoo.registry.housekeeping import Verified
from neuronmap.zoo.search.compatible import CompatibilityHit
from neuronmap.zoo.views import AliasMove, ArtefactView, LineageView, SearchHit, VersionSummary, VersionView

__all__ = ["ZOO_DOCUMENTS"]


class ZooVersionDocument(Document):
    """What shows or changes one version."""

    schema_name: Literal[
        "neuronmap/zoo.release/1",
        "neuronmap/zoo.show/1",
        "neuronmap/zoo.deprecate/1",
        "neuronmap/zoo.yank/1",
        "neuronmap/zoo.restore/1",
        "neuronmap/zoo.delete/1",
    ] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    version: VersionView
    """The version as it is now."""


class ZooPublishDocument(Document):
    """``neuronmap zoo publish``."""

    schema_name: Literal["neuronmap/zoo.publish/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    versions: list[VersionView]
    """What is published now: the SAE first, then its analyses."""


class ZooSearchDocument(Document):
    """``neuronmap zoo search``."""

    schema_name: Literal["neuronmap/zoo.search/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    hits: list[SearchHit]
    """What was found."""
    next: str | None
    """What ``--cursor`` takes for the next page; null on the last."""
    total: int | None
    """How many there are; counted on the first page only."""


class ZooCompatibleDocument(Document):
    """``neuronmap zoo compatible``."""

    schema_name: Literal["neuronmap/zoo.compatible/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    hits: list[CompatibilityHit]
    """SAEs, the best fit first, with the reasons."""
    total: int
    """How many there are."""


class ZooVersionsDocument(Document):
    """``neuronmap zoo versions``."""

    schema_name: Literal["neuronmap/zoo.versions/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    artefact: ArtefactView
    """The artefact with its versions."""


class ZooAliasDocument(Document):
    """``neuronmap zoo alias``."""

    schema_name: Literal["neuronmap/zoo.alias/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    alias: str | None
    """The alias that was moved or taken away; null with ``--log``."""
    version: VersionSummary | None
    """Where it points to; null when it was taken away, and with ``--log``."""
    log: list[AliasMove]
    """With ``--log``: every move, the newest first."""


class ZooPulledRecord(Document):
    """One version that was pulled."""

    reference: str
    """``namespace/name@label``."""
    digest: str
    """Of its manifest."""
    kind: str
    """Kind of the artefact."""
    zoo: str
    """Where from."""
    state: str
    """published, deprecated, yanked or draft."""
    warnings: list[str]
    """What whoever uses it should know."""
    folder: str
    """Where its files are."""
    fetched_bytes: int
    """That came from a server; the rest was here."""
    library: str | None
    """With ``--into-library``: the SAE that it is, or that it was attached to."""
    name: str | None
    """With ``--into-library``: name of the analysis, or of the report."""


class ZooPullDocument(Document):
    """``neuronmap zoo pull``."""

    schema_name: Literal["neuronmap/zoo.pull/1"] = Field(alias="schema")
    pulled: list[ZooPulledRecord]
    """What is here now."""


class ZooLockDocument(Document):
    """``neuronmap zoo lock``."""

    schema_name: Literal["neuronmap/zoo.lock/1"] = Field(alias="schema")
    file: str
    """The lock file."""
    artefacts: list[LockedArtefact]
    """What it pins."""


class ZooMirroredRecord(Document):
    """One version of a mirror."""

    reference: str
    """``namespace/name@label``."""
    digest: str
    """Of its manifest."""
    was_here: bool
    """Whether nothing had to be copied."""


class ZooMirrorDocument(Document):
    """``neuronmap zoo mirror``."""

    schema_name: Literal["neuronmap/zoo.mirror/1"] = Field(alias="schema")
    zoo: str
    """Folder of the mirror."""
    upstream: str
    """Where from."""
    versions: list[ZooMirroredRecord]
    """In the order in which they came: dependencies first."""


class ZooLineageDocument(Document):
    """``neuronmap zoo lineage``."""

    schema_name: Literal["neuronmap/zoo.lineage/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    lineage: LineageView
    """The graph."""
    svg: str | None
    """The picture that was written."""


class ZooVerifyDocument(Document):
    """``neuronmap zoo verify``."""

    schema_name: Literal["neuronmap/zoo.verify/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    reference: str | None
    """The version that was read; null for the whole store."""
    digest: str | None
    """Of its manifest."""
    store: Verified | None
    """What was found in the whole store."""


class ZooGcDocument(Document):
    """``neuronmap zoo gc``."""

    schema_name: Literal["neuronmap/zoo.gc/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo; of the cache with ``--cache``."""
    collected: dict[str, Any]
    """What was removed, or would be: dry_run, blobs, blob_bytes, publications, leftovers, leftover_bytes, kept_young."""


class ZooInitDocument(Document):
    """``neuronmap zoo init``."""

    schema_name: Literal["neuronmap/zoo.init/1"] = Field(alias="schema")
    zoo: str
    """Folder of the zoo."""
    upstream: str | None
    """Server that it asks for what it lacks."""


class ZooLoginDocument(Document):
    """``neuronmap zoo login`` and ``neuronmap zoo logout``."""

    schema_name: Literal["neuronmap/zoo.login/1", "neuronmap/zoo.logout/1"] = Field(alias="schema")
    zoo: str
    """Address of the zoo."""
    user: str | None
    """Who the token belongs to; null after logging out."""
    stored: str
    """Where tokens are kept."""


class ZooWhoamiDocument(Document):
    """``neuronmap zoo whoami``."""

    schema_name: Literal["neuronmap/zoo.whoami/1"] = Field(alias="schema")
    zoo: str
    """Address or folder of the zoo."""
    about: dict[str, Any]
    """What the zoo says of itself."""
    me: dict[str, Any] | None
    """Who asks; null for nobody in particular."""


class ZooSchemaDocument(Document):
    """``neuronmap zoo schema``."""

    schema_name: Literal["neuronmap/zoo.schema/1"] = Field(alias="schema")
    name: str
    """``manifest``, or a kind."""
    json_schema: dict[str, Any]
    """The JSON schema: what is printed without ``--json``."""


class ZooCheckRecord(Document):
    """One check of a server."""

    name: str
    """What was tried."""
    passed: bool
    """Whether it held."""
    message: str
    """What was found otherwise; empty when it held."""


class ZooConformanceDocument(Document):
    """``neuronmap zoo conformance``."""

    schema_name: Literal["neuronmap/zoo.conformance/1"] = Field(alias="schema")
    zoo: str
    """Address of the server."""
    passed: bool
    """Whether all held."""
    checks: list[ZooCheckRecord]
    """Each check."""


class ZooNamespaceDocument(Document):
    """``neuronmap zoo org create``, ``neuronmap zoo org members`` and ``neuronmap zoo org add``."""

    schema_name: Literal["neuronmap/zoo.org.create/1", "neuronmap/zoo.org.members/1", "neuronmap/zoo.org.add/1"] = (
        Field(alias="schema")
    )
    zoo: str
    """Address of the server."""
    namespace: NamespaceView
    """The organisation as it is now; its members are null for who does not belong to it."""


class ZooLeftDocument(Document):
    """``neuronmap zoo org remove``."""

    schema_name: Literal["neuronmap/zoo.org.remove/1"] = Field(alias="schema")
    zoo: str
    """Address of the server."""
    namespace: str
    """The organisation."""
    user: str
    """Who does not belong to it any more."""


class ZooNewTokenDocument(Document):
    """``neuronmap zoo token create``."""

    schema_name: Literal["neuronmap/zoo.token.create/1"] = Field(alias="schema")
    zoo: str
    """Address of the server."""
    token: NewToken
    """The token, with its secret in the field `token`: this once."""


class ZooTokensDocument(Document):
    """``neuronmap zoo token list``."""

    schema_name: Literal["neuronmap/zoo.token.list/1"] = Field(alias="schema")
    zoo: str
    """Address of the server."""
    tokens: list[TokenView]
    """The newest first, without their secrets."""


class ZooRevokedDocument(Document):
    """``neuronmap zoo token revoke``."""

    schema_name: Literal["neuronmap/zoo.token.revoke/1"] = Field(alias="schema")
    zoo: str
    """Address of the server."""
    number: int
    """The token that is not good any more."""


class ZooAccountDocument(Document):
    """``neuronmap zoo admin create-user``."""

    schema_name: Literal["neuronmap/zoo.admin.create-user/1"] = Field(alias="schema")
    user: UserView
    """The account."""


class ZooPasswordDocument(Document):
    """``neuronmap zoo admin set-password``."""

    schema_name: Literal["neuronmap/zoo.admin.set-password/1"] = Field(alias="schema")
    user: str
    """Who has a new password."""


class ZooQuotaDocument(Document):
    """``neuronmap zoo admin quota``."""

    schema_name: Literal["neuronmap/zoo.admin.quota/1"] = Field(alias="schema")
    namespace: NamespaceView
    """The namespace as it is now."""


class ZooStoreDocument(Document):
    """``neuronmap zoo admin verify``."""

    schema_name: Literal["neuronmap/zoo.admin.verify/1"] = Field(alias="schema")
    store: Verified
    """What was read. Where something is damaged or missing, the command fails and prints an error."""


ZOO_DOCUMENTS: dict[str, type[Document]] = {
    "zoo init": ZooInitDocument,
    "zoo login": ZooLoginDocument,
    "zoo logout": ZooLoginDocument,
    "zoo whoami": ZooWhoamiDocument,
    "zoo schema": ZooSchemaDocument,
    "zoo publish": ZooPublishDocument,
    "zoo release": ZooVersionDocument,
    "zoo pull": ZooPullDocument,
    "zoo search": ZooSearchDocument,
    "zoo compatible": ZooCompatibleDocument,
    "zoo show": ZooVersionDocument,
    "zoo versions": ZooVersionsDocument,
    "zoo alias": ZooAliasDocument,
    "zoo deprecate": ZooVersionDocument,
    "zoo yank": ZooVersionDocument,
    "zoo restore": ZooVersionDocument,
    "zoo delete": ZooVersionDocument,
    "zoo verify": ZooVerifyDocument,
    "zoo lineage": ZooLineageDocument,
    "zoo gc": ZooGcDocument,
    "zoo lock": ZooLockDocument,
    "zoo mirror": ZooMirrorDocument,
    "zoo conformance": ZooConformanceDocument,
    "zoo org create": ZooNamespaceDocument,
    "zoo org members": ZooNamespaceDocument,
    "zoo org add": ZooNamespaceDocument,
    "zoo org remove": ZooLeftDocument,
    "zoo token create": ZooNewTokenDocument,
    "zoo token list": ZooTokensDocument,
    "zoo token revoke": ZooRevokedDocument,
    "zoo admin create-user": ZooAccountDocument,
    "zoo admin set-password": ZooPasswordDocument,
    "zoo admin quota": ZooQuotaDocument,
    "zoo admin verify": ZooStoreDocument,
}
"""By command, without the leading ``neuronmap``."""
