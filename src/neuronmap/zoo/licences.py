"""Licences, as SPDX expressions."""

from __future__ import annotations

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from neuronmap.errors import InputError

__all__ = ["check_licence"]


def check_licence(expression: str) -> str:
    """A licence in SPDX's spelling: ``mit`` becomes ``MIT``, ``apache-2.0 or mit`` becomes ``Apache-2.0 OR MIT``.

    Own terms are named ``LicenseRef-<words>`` and lie in a file of the artefact.

    Raises:
        InputError: it is empty, or no expression of known licences.
    """
    try:
        if not expression.strip() or len(expression) > 200:
            raise InvalidLicenseExpression
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression:
        raise InputError(
            f"{expression[:80]!r} is no SPDX licence: use MIT, Apache-2.0, CC-BY-4.0, CC0-1.0, ... (https://spdx.org/licenses), or "
            "LicenseRef-<name> for terms of your own."
        ) from None
