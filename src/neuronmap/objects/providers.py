"""What differs between S3, Google Cloud Storage and Azure: parameters of a URL, credentials, what their refusals say."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from neuronmap.errors import ConfigError

__all__ = ["SCHEMES", "Provider", "options_of", "provider_of", "said"]

_FORMS = (
    "s3://bucket/prefix?endpoint=https://...&region=..., gs://bucket/prefix or az://container/prefix?account=... "
    "(gs and az take endpoint= too)"
)
_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_WHO_AM_I = ("169.254.169.254", "metadata.google")  # a cloud's own machines get credentials there


class Provider(NamedTuple):
    """A kind of object store.

    Attributes:
        options: parameters of its URL, and what obstore calls them.
        credentials: the environment variables that hold them.
        missing: what to ask about when it finds nothing.
        waits: a copy may still be on its way when the request for it is answered.
    """

    options: dict[str, str]
    credentials: str
    missing: str
    waits: bool = False

    @property
    def credentials_hint(self) -> str:
        """Where they come from."""
        return f"Credentials come from the environment ({self.credentials})."

    def hint(self, error: str) -> str:
        """The next step after an error of obstore."""
        if any(host in error for host in _WHO_AM_I):  # asked for credentials by who finds none in the environment
            return f"{self.credentials_hint[:-1]}, and there are none."
        if self.is_refusal(error):
            return self.credentials_hint
        if _status(error) == 404 or "NoSuchBucket" in error:
            return self.missing
        if "Account must be specified" in error:
            return "az://container/prefix?account=NAME, or AZURE_STORAGE_ACCOUNT_NAME in the environment."
        if "builder error" in error:  # of a request, for an address that may not be asked
            return "http:// is taken where the URL says it: ?endpoint=http://..."
        if "HTTP error" in error:
            return "Is the endpoint right, and can this machine reach it?"
        return ""

    def is_refusal(self, error: str) -> bool:
        """Whether it is the store that does not take who asks; listings and removals say it in their text only."""
        return _status(error) in (401, 403) and not any(host in error for host in _WHO_AM_I)


_PROVIDERS = {
    "s3": Provider(
        options={"endpoint": "endpoint", "region": "region"},
        credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        missing="Does the bucket exist?",
    ),
    "gs": Provider(
        options={"endpoint": "base_url"},
        credentials="GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS: the path of a key",
        missing="Does the bucket exist?",
    ),
    "az": Provider(
        options={"account": "account_name", "endpoint": "endpoint"},
        credentials="AZURE_STORAGE_ACCOUNT_KEY; AZURE_STORAGE_SAS_TOKEN; or AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID",
        missing="Does the container exist, and is it in this account?",
        waits=True,
    ),
}
SCHEMES = tuple(_PROVIDERS)
"""Of the URLs: S3, Google Cloud Storage, Azure."""


def provider_of(url: str, parts: SplitResult) -> Provider:
    """Whose URL it is.

    Raises:
        ConfigError: nobody's, or it holds credentials.
    """
    if parts.scheme not in _PROVIDERS or not parts.hostname or parts.fragment:
        raise ConfigError(f"{url[:100]!r} is no object store.", hint=_FORMS)
    provider = _PROVIDERS[parts.scheme]
    if parts.username is not None or parts.password is not None:
        raise ConfigError("The URL of an object store holds no credentials.", hint=provider.credentials_hint)
    return provider


def options_of(provider: Provider, parts: SplitResult) -> dict[str, str]:
    """The parameters of a URL, checked, by their names in the URL.

    Raises:
        ConfigError: there are others, or the endpoint is no address.
    """
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(found) - set(provider.options))
    if unknown:
        raise ConfigError(
            f"{', '.join(map(repr, unknown))} cannot be set in the URL of an object store; "
            f"{parts.scheme}:// takes {', '.join(sorted(provider.options))}.",
            hint=provider.credentials_hint if any("key" in name or "token" in name for name in unknown) else "",
        )
    if "endpoint" in found:
        address = urlsplit(found["endpoint"])
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(f"endpoint = {found['endpoint']!r}: an http or https address is needed.")
    return found


def said(error: Exception) -> str:
    """What an error of obstore says, in one line: without the XML in which stores answer, but with the name that it gives the error."""
    text = str(error).strip()
    line = re.split(r"\n|:? ?<\?x|:? ?<Error", text, maxsplit=1, flags=re.IGNORECASE)[0][:300].rstrip(". :")
    code = _CODE.search(text)
    return f"{line} ({code[1]})" if code else line


def _status(error: str) -> int | None:
    """The HTTP status in an error of obstore."""
    found = _STATUS.search(error)
    return int(found[1]) if found else None
