"""What things in the zoo are called.

    namespace/name                     an artefact
    namespace/name@1.2                 a version, by its label (PEP 440, as Python packages are numbered)
    namespace/name@production          a version, by an alias that can be moved
    namespace/name@sha256:<64 hex>     a version, by the digest of its manifest: never anything else

Names are lower case, and stay taken for ever: a deleted artefact's name can never mean something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from packaging.version import InvalidVersion, Version

from neuronmap.errors import InputError
from neuronmap.zoo.digests import Digest

__all__ = [
    "LATEST",
    "RESERVED",
    "Reference",
    "check_alias",
    "check_label",
    "check_name",
    "check_namespace",
    "check_tag",
]

LATEST = "latest"
"""What a reference without version means: the greatest published label that is no pre-release, else the greatest pre-release."""
_RESERVED = """
about account accounts admin aliases all anonymous api artefact artefacts artifact artifacts auth blob blobs browse collections
conformance deleted docs explore explorer favicon health help home latest lineage local-user login logout manifest manifests me metrics
mirror namespace namespaces neuronmap new none null openapi org organisations organizations people public registry robots root sae
schemas search security settings sign-in sign-out stars static status support system terms tokens true false undefined upload uploads
user users versions web well-known www zoo
"""
RESERVED = frozenset(_RESERVED.split())
"""Namespaces that nobody gets: they are, or may become, part of an address."""

_DEVICES = frozenset(("con", "prn", "aux", "nul")) | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}
"""What Windows takes for a device, whatever stands behind a full stop; a folder there cannot have the name."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|[._-](?=[a-z0-9])){0,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
_TAG = re.compile(r"[a-z0-9][a-z0-9 ._:+/-]{0,48}[a-z0-9]|[a-z0-9]")
_ADDRESS = ".json"
"""A page's address with this ending is the page as JSON."""
_RULE = "lower-case letters and digits, with single . _ - between them, 64 at most"


def check_namespace(name: str) -> str:
    """A namespace: a person's or an organisation's.

    Raises:
        InputError: it does not fit the pattern, is reserved, or is what Windows calls a device.
    """
    if not _NAME.fullmatch(name) or len(name) < 2 or name.endswith(_ADDRESS):
        raise InputError(f"{name[:80]!r} cannot be a namespace: {_RULE}, and at least 2, not ending in .json.")
    if name in RESERVED:
        raise InputError(f"{name!r} cannot be a namespace: the name is reserved.")
    return _no_device(name, "a namespace")


def check_name(name: str) -> str:
    """An artefact's name within its namespace.

    Raises:
        InputError: it does not fit the pattern, or is what Windows calls a device.
    """
    if not _NAME.fullmatch(name) or name.endswith(_ADDRESS):
        raise InputError(f"{name[:80]!r} cannot be an artefact's name: {_RULE}, not ending in .json.")
    return _no_device(name, "an artefact's name")


def _no_device(name: str, what: str) -> str:
    if name.partition(".")[0] in _DEVICES:
        raise InputError(f"{name!r} cannot be {what}: Windows takes it for a device, and nobody could pull it there.")
    return name


def check_label(label: str) -> str:
    """A version's label, normalised (``1.0``, ``2.0rc1``, ``2026.11``).

    Raises:
        InputError: it is no version number by PEP 440, is longer than 64, or has a local part (``+...``).
    """
    try:
        if len(label) > 64:
            raise InvalidVersion(label)
        found = Version(label)
    except InvalidVersion:
        raise InputError(
            f"{label[:80]!r} cannot be a version: numbers by PEP 440 are, such as 1.0, 1.0.2, 2.0rc1 or 2026.11."
        ) from None
    if found.local is not None:
        raise InputError(f"{label!r} cannot be a version: a local part (+{found.local}) is not allowed.")
    return str(found)


def check_alias(alias: str) -> str:
    """An alias: a word that can be moved from version to version.

    Raises:
        InputError: it does not fit the pattern, is ``latest``, or could be read as a version number.
    """
    if not _ALIAS.fullmatch(alias) or len(alias) > 64 or alias == LATEST:
        raise InputError(
            f"{alias[:80]!r} cannot be an alias: a lower-case letter, then letters and digits with single . _ - between, 64 at most; "
            f"'{LATEST}' always means the newest version."
        )
    try:
        Version(alias)
    except InvalidVersion:
        return alias
    raise InputError(f"{alias!r} cannot be an alias: it could be taken for a version number.")


def check_tag(tag: str) -> str:
    """A tag: words to search by, lower case, 50 characters at most.

    Raises:
        InputError: it does not fit the pattern.
    """
    if not _TAG.fullmatch(tag):
        raise InputError(
            f"{tag[:80]!r} cannot be a tag: lower-case letters, digits, spaces and . _ : + / -, 50 at most."
        )
    return tag


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody calls a version.

    Attributes:
        namespace, name: of the artefact.
        label: of the version, normalised; None for none.
        alias: an alias, or ``latest``.
        digest: of the manifest.
    """

    namespace: str
    name: str
    label: str | None = None
    alias: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``namespace/name[@version]``; without a version it is ``latest``. A leading ``zoo:`` is allowed.

        Raises:
            InputError: it is not of that form.
        """
        address, at, version = text.removeprefix("zoo:").partition("@")
        namespace, slash, name = address.partition("/")
        if not slash or (at and not version):
            raise InputError(
                f"{text[:100]!r} names no artefact: namespace/name, namespace/name@version, @alias or @sha256:... do."
            )
        owner, called = check_namespace(namespace), check_name(name)
        if not at or version == LATEST:
            return cls(owner, called, alias=LATEST)
        if version.startswith("sha256:"):
            return cls(owner, called, digest=Digest(version))
        if version[0].isdigit() or (version[0] == "v" and version[1:2].isdigit()):
            return cls(owner, called, label=check_label(version))
        return cls(owner, called, alias=check_alias(version))

    @property
    def artefact(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def exact(self) -> bool:
        """Whether it can mean one version only: a digest or a label. Yanked versions are found by these alone."""
        return self.alias is None

    def __str__(self) -> str:
        return f"{self.artefact}@{self.digest or self.label or self.alias}"
