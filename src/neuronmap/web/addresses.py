"""Addresses of this server: the path under which a proxy serves it, where a form leads, and what is a path of ours at all."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import RedirectResponse

__all__ = ["base_path", "is_own_path", "lead_to"]

_OWN = re.compile(r"/(?![/\\])[^\x00-\x20\\\x7f]{0,2000}")


def base_path(request: Request) -> str:
    """What stands before every path; empty where no proxy adds anything."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def lead_to(request: Request, path: str) -> RedirectResponse:
    """After a form: the browser goes on to a path of this server (303)."""
    return RedirectResponse(f"{base_path(request)}{path}", status_code=303)


def is_own_path(address: str) -> bool:
    """Whether an address is a path of this server, and can lead nowhere else."""
    return _OWN.fullmatch(address) is not None
