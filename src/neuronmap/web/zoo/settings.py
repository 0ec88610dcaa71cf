"""How a zoo for several people is served. Nothing here is secret: those come from the environment only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from neuronmap import paths
from neuronmap.config import FrozenConfig
from neuronmap.database import Database, database_url
from neuronmap.errors import ConfigError
from neuronmap.web.settings import is_loopback
from neuronmap.web.zoo.context import READING_BYTES
from neuronmap.zoo.blobs import blob_store
from neuronmap.zoo.database import ZOO, private_folder
from neuronmap.zoo.registry.registry import Registry

__all__ = ["OIDC_SECRET_VARIABLE", "STORE_VARIABLE", "ZooServerSettings"]

STORE_VARIABLE = "NEURONMAP_ZOO_STORE"
"""Environment variable that says where the blobs are."""
OIDC_SECRET_VARIABLE = "NEURONMAP_ZOO_OIDC_SECRET"
"""Environment variable with the secret that the identity provider has given to this zoo."""


class ZooServerSettings(FrozenConfig):
    """Settings of ``neuronmap zoo serve``.

    Raises:
        ConfigError: settings that do not go together.
    """

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8770, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    address: Annotated[str | None, Field(max_length=300)] = None
    """Under which people reach it, such as https://zoo.example.org; a proxy stands there. Cookies then travel over https only."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names in the Host header that are answered; the one of ``address`` and the address listened on always are."""
    name: str = Field(default="NeuronMap zoo", min_length=1, max_length=100)
    """What it calls itself."""
    folder: Path | None = None
    """Folder for database and blobs where they are not named otherwise; ``zoo-server`` in the home folder when left out."""
    database: str | None = None
    """Its database; what NEURONMAP_ZOO_DATABASE says when left out, else SQLite in ``folder``."""
    store: str | None = None
    """Its blobs: a folder, or s3://bucket/prefix; what NEURONMAP_ZOO_STORE says when left out, else in ``folder``."""
    reading_folder: Path | None = None
    """Folder in which analyses are put to be looked at; ``reading`` in ``folder`` when left out. Everything in it can be made again."""
    reading_bytes: int = Field(default=READING_BYTES, ge=0)
    """Bytes that are fetched there from an object store and kept; the least recently used go. Blobs in a folder are not copied."""
    anonymous_read: bool = False
    """Let everybody read what is public; otherwise reading needs an account, too."""
    default_quota: int | None = Field(default=50 << 30, ge=0)
    """Bytes that a new namespace may hold; None for no limit."""
    most_organisations: int = Field(default=10, ge=0)
    """Organisations that one account may own; each has a quota of its own. Administrators may own more."""
    proxies: tuple[str, ...] = ()
    """Addresses of proxies that name the asker in X-Forwarded-For; without them everybody behind a proxy counts as one address."""
    oidc_issuer: Annotated[str | None, Field(max_length=300)] = None
    """Identity provider, such as https://login.example.org/realms/lab; exactly as it calls itself."""
    oidc_client_id: Annotated[str | None, Field(max_length=300)] = None
    """What it calls this zoo."""
    oidc_sign_up: bool = True
    """Whether somebody new, whom the provider knows, gets an account; otherwise administrators make accounts for them."""
    max_body_bytes: int = Field(default=2_000_000, ge=10_000)
    """Largest request that is neither a manifest nor a piece of an upload."""
    reads_per_minute: int = Field(default=6000, ge=1)
    """Requests for what is there, of one account or of one address without account; as many for files."""
    searches_per_minute: int = Field(default=600, ge=1)
    """Searches likewise."""
    writes_per_minute: int = Field(default=1200, ge=1)
    """Requests that change something likewise."""
    sign_ins_per_minute: int = Field(default=30, ge=1)
    """Attempts to sign in of one address."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ConfigError("oidc_issuer and oidc_client_id go together: give both, or none.")
        if self.oidc_issuer is not None and self.address is None:
            raise ConfigError(
                "Signing in through an identity provider needs the zoo's address, to which it sends people back.",
                hint="--address https://zoo.example.org",
            )
        for name, value in (("address", self.address), ("oidc_issuer", self.oidc_issuer)):
            parts = urlsplit(value or "https://unset")
            local = is_loopback(parts.hostname or "")
            if parts.scheme not in (("http", "https") if local else ("https",)) or not parts.hostname or parts.query:
                raise ConfigError(f"{name} = {value!r} must begin with https:// (http:// on this machine alone).")
        return self

    @property
    def reading(self) -> Path:
        """Where analyses are put to be looked at."""
        return self.reading_folder or self._folder / "reading"

    @property
    def _folder(self) -> Path:
        return (self.folder or paths.home() / "zoo-server").expanduser().absolute()

    @property
    def base_path(self) -> str:
        """Path of ``address``, without a slash at its end."""
        return urlsplit(self.address or "").path.rstrip("/")

    @property
    def hosts(self) -> frozenset[str]:
        """Names in the Host header that are answered, without port."""
        own = {"127.0.0.1", "localhost", "::1"} if is_loopback(self.host) else {self.host, "127.0.0.1", "localhost"}
        public = urlsplit(self.address or "").hostname
        return frozenset(own | {host.lower() for host in self.allowed_hosts} | ({public} if public else set()))

    @property
    def rates(self) -> dict[str, int]:
        """Requests in a minute by kind."""
        return {
            "read": self.reads_per_minute,
            "bytes": self.reads_per_minute,
            "search": self.searches_per_minute,
            "write": self.writes_per_minute,
            "sign-in": self.sign_ins_per_minute,
        }

    @property
    def oidc_secret(self) -> str | None:
        """The secret at the identity provider, from the environment; None for a public client."""
        return os.environ.get(OIDC_SECRET_VARIABLE, "").strip() or None

    def open_registry(self) -> Registry:
        """The zoo that these settings mean.

        Raises:
            ConfigError, MissingDependencyError, ResourceError, DamagedError, MismatchError: database or store cannot be used.
        """
        folder = self._folder
        database, store = self.database or os.environ.get(ZOO.variable), self.store or os.environ.get(STORE_VARIABLE)
        if not (database and store):
            private_folder(folder)
        database = database or f"sqlite:///{folder / 'zoo.sqlite3'}"
        return Registry(Database(ZOO, database_url(ZOO, database)), blob_store(store or folder / "blobs"))
