"""How the server is reached and what it allows. Nothing here is secret: tokens come from the environment only."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = ["TOKEN_VARIABLE", "ServerSettings", "is_loopback"]

TOKEN_VARIABLE = "NEURONMAP_TOKEN"
"""Environment variable that holds the access token."""


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServerSettings(FrozenConfig):
    """Settings of ``neuronmap serve``.

    Raises:
        ConfigError: an address beyond this machine without a token or a trusted proxy.
    """

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs a token or a trusted proxy."""
    port: int = Field(default=8765, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names in the Host header that are answered (behind a proxy); the address listened on is always."""
    user_header: str | None = None
    """Header in which a trusted reverse proxy names the signed-in user; requests without it are refused."""
    base_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path under which a proxy serves the explorer, such as /neuronmap."""
    library: Path | None = None
    """The library's folder; this machine's when left out."""
    database: str | None = None
    """Database of jobs; SQLite in the home folder when left out."""
    supervise: bool = True
    """Start jobs from this process; without it another server or `neuronmap jobs work` does."""
    keep_jobs: bool = False
    """Let running jobs go on by themselves when the server is stopped; otherwise they save, and the next server goes on with them."""
    text_folder: Path | None = None
    """Folder whose files and folders may be named as text over the web. No path of a client is ever opened."""
    model_folder: Path | None = None
    """Folder whose folders and GGUF files may be named as language models over the web."""
    max_body_bytes: int = Field(default=2_000_000, ge=1_000)
    """Largest request body."""
    max_import_bytes: int = Field(default=16 << 30, ge=1_000)
    """Largest SAE that is taken in through the browser, all its files together."""
    max_text_characters: int = Field(default=20_000, ge=100)
    """Longest text that is run through a model at once."""
    inferences_per_minute: int = Field(default=240, ge=1)
    """Requests to the model from one address in a minute."""
    inference_seconds: float = Field(default=120.0, gt=0)
    """Longest time that one request to the model may take."""

    @model_validator(mode="after")
    def _reachable_by_friends_only(self) -> Self:
        if not is_loopback(self.host) and self.token is None and self.user_header is None:
            raise ConfigError(
                f"host = {self.host!r} can be reached by others, so it needs a key.",
                hint=f"Set {TOKEN_VARIABLE} to a long random text, name the header of a signing-in proxy (--user-header), "
                "or listen on 127.0.0.1.",
            )
        return self

    @property
    def token(self) -> str | None:
        """The access token, from the environment; None for no token."""
        found = os.environ.get(TOKEN_VARIABLE, "").strip()
        if found and len(found) < 16:
            raise ConfigError(f"{TOKEN_VARIABLE} has {len(found)} characters; it needs at least 16.")
        return found or None

    @property
    def hosts(self) -> frozenset[str]:
        """Names in the Host header that are answered, without port."""
        own = {"127.0.0.1", "localhost", "::1"} if is_loopback(self.host) else {self.host, "127.0.0.1", "localhost"}
        return frozenset(own | {host.lower() for host in self.allowed_hosts})
