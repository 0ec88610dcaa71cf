"""Version labels, in an order that a database can keep."""

from __future__ import annotations

from packaging.version import Version

__all__ = ["is_prerelease", "sort_key"]


def sort_key(label: str) -> str:
    """Text whose order by bytes is the order of labels by PEP 440 (without local parts, which are not allowed).

    Example:
        >>> sorted(["1.0", "1.0.post1", "1.0.dev1", "1.0rc1", "0.9", "1.0.1", "10"], key=sort_key)
        ['0.9', '1.0.dev1', '1.0rc1', '1.0', '1.0.post1', '1.0.1', '10']
    """
    version = Version(label)
    release = list(version.release)
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    numbers = "".join(f".{_number(part)}" for part in release)
    if version.pre is not None:
        phase = f"1{version.pre[0][0]}{_number(version.pre[1])}"
    elif version.post is None and version.dev is not None:
        phase = "0"
    else:
        phase = "2"
    post = "0" if version.post is None else f"1{_number(version.post)}"
    dev = "1" if version.dev is None else f"0{_number(version.dev)}"
    return f"{_number(version.epoch)}{numbers} {phase}{post}{dev}"


def is_prerelease(label: str) -> bool:
    """Whether it is an alpha, beta, release candidate or development version."""
    return Version(label).is_prerelease


def _number(value: int) -> str:
    """Digits after their count, so that longer numbers come later."""
    digits = str(value)
    return f"{len(digits):02d}{digits}"
