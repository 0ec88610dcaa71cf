"""OpenID Connect: authorisation code with PKCE, for one identity provider that the settings name.

State, nonce and PKCE verifier are derived from one random secret, which the browser keeps in a cookie: the server stores nothing, and
only the browser that began can finish. People are known by issuer and subject; what they are called, or their e-mail, decides nothing.
Specifications: OpenID Connect Core 1.0, RFC 7636 (PKCE), RFC 9207 (issuer in the answer).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from neuronmap.errors import MissingDependencyError, UnauthorizedError, ZooError, ZooOfflineError

__all__ = ["Begun", "Identity", "Provider"]

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Signatures by a key that the provider alone has. Neither none nor HMAC."""
_LEEWAY_S = 60
_KEPT_S = 3600.0
_PATIENCE_S = 10.0
_MOST_ANSWER = 1 << 20


class Begun(NamedTuple):
    """A sign-in that was begun.

    Attributes:
        url: where to send the browser.
        secret: for its cookie.
    """

    url: str
    secret: str


class Identity(NamedTuple):
    """For whom the provider vouches.

    Attributes:
        subject: ``<issuer> <subject>``; the only thing that they are found by.
        name: what they would like to be called.
        email: an address that the provider has verified.
    """

    subject: str
    name: str
    email: str | None


class Provider:
    """An identity provider.

    Args:
        issuer: its address, exactly as it calls itself.
        client_id: what it calls this zoo.
        secret: this zoo's secret there; None for a public client.

    Raises:
        MissingDependencyError: authlib is not installed.
    """

    def __init__(self, issuer: str, client_id: str, secret: str | None = None) -> None:
        try:
            import authlib.integrations.httpx_client  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise MissingDependencyError(
                "Signing in through an identity provider needs authlib.", hint='pip install "neuronmap[oidc]"'
            ) from error
        self.issuer, self.client_id, self._client_secret = issuer, client_id, secret
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def begin(self, redirect_uri: str) -> Begun:
        """Begin to sign somebody in.

        Args:
            redirect_uri: where the provider leads them back.

        Raises:
            ZooOfflineError: the provider does not answer.
            ZooError: it answers something else than it must.
        """
        secret = secrets.token_urlsafe(32)
        address = str(self._metadata()["authorization_endpoint"])
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                address, state=_derived("state", secret), code_verifier=_derived("verifier", secret),
                nonce=_derived("nonce", secret),
            )  # fmt: skip
        return Begun(str(url), secret)

    def finish(self, secret: str, redirect_uri: str, *, code: str, state: str, issuer: str | None = None) -> Identity:
        """Who came back.

        Args:
            secret: of the browser's cookie.
            redirect_uri: as at the beginning.
            code, state, issuer: with which the provider led them back.

        Raises:
            UnauthorizedError: it is not what was begun, or the provider does not vouch for them as it must.
            ZooOfflineError, ZooError: the provider does not answer, or something else than it must.
        """
        if not _SECRET.fullmatch(secret) or not hmac.compare_digest(_derived("state", secret), state) or not code:
            raise UnauthorizedError("This sign-in was not begun in this browser, or is too old.", hint="Begin again.")
        if issuer is not None and issuer != self.issuer:
            raise UnauthorizedError("The answer comes from another identity provider.", hint="Begin again.")
        import httpx2
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.httpx_client import OAuthError

        try:
            with self._client(redirect_uri) as client:
                token = client.fetch_token(
                    str(self._metadata()["token_endpoint"]), code=code, code_verifier=_derived("verifier", secret)
                )
        except (OAuthError, AuthlibBaseError, ValueError) as error:
            raise UnauthorizedError(
                "The identity provider does not take the code of this sign-in.", hint="Begin again."
            ) from error
        except httpx2.HTTPStatusError as error:
            raise ZooError(f"The identity provider {self.issuer} answered with an error.") from error
        except httpx2.HTTPError as error:
            raise self._offline() from error
        return self._identity(token, _derived("nonce", secret))

    # --- steps -----------------------------------------------------------------------------------------------------------

    def _identity(self, token: Any, nonce: str) -> Identity:
        """Check the ID token: signature, issuer, audience, time, nonce, and that it belongs to the access token."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        given = token.get("id_token")
        if not isinstance(given, str) or len(given) > 100_000:
            raise UnauthorizedError("The identity provider sent no ID token.")
        try:
            try:
                read = jwt.decode(given, KeySet.import_key_set(self._keys()), algorithms=_ALGORITHMS)
            except (JoseError, ValueError):  # perhaps it has a new key: ask once more
                read = jwt.decode(given, KeySet.import_key_set(self._keys(anew=True)), algorithms=_ALGORITHMS)
            claims = CodeIDToken(
                read.claims,
                read.header,
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self.client_id},
                    "nonce": {"essential": True, "value": nonce},
                },
                {"nonce": nonce, "client_id": self.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_S)
            subject = claims["sub"]
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise UnauthorizedError(
                f"The identity provider's word cannot be trusted: {type(error).__name__}.", hint="Begin again."
            ) from error
        if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
            raise UnauthorizedError("The identity provider sent no usable subject.")
        email = claims.get("email") if claims.get("email_verified") is True else None
        name = claims.get("preferred_username") or claims.get("nickname") or claims.get("email") or subject
        return Identity(f"{self.issuer} {subject}", str(name)[:200], email if isinstance(email, str) else None)

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        return OAuth2Client(
            self.client_id,
            self._client_secret,
            scope="openid profile email",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_PATIENCE_S,
            follow_redirects=False,
        )

    def _metadata(self) -> dict[str, Any]:
        """What the provider says of itself, kept for an hour."""
        found = self._fetched(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise ZooError(
                f"{self.issuer} calls itself {str(found.get('issuer'))[:200]!r}.", hint="Give --oidc-issuer exactly so."
            )
        own = urlsplit(self.issuer).scheme
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            parts = urlsplit(str(found.get(name, "")))
            if parts.scheme not in {"https", own} or not parts.hostname:
                raise ZooError(f"The identity provider's {name} is no https address.")
        return found

    def _keys(self, *, anew: bool = False) -> Any:
        return self._fetched(str(self._metadata()["jwks_uri"]), anew=anew)

    def _fetched(self, address: str, *, anew: bool = False) -> dict[str, Any]:
        import httpx2

        with self._lock:
            kept = self._kept.get(address)
            if kept is not None and time.monotonic() < kept[0] and not anew:
                return kept[1]
            try:
                answer = httpx2.get(address, timeout=_PATIENCE_S, follow_redirects=False)
            except httpx2.HTTPError as error:
                raise self._offline() from error
            try:
                found = answer.json() if answer.status_code == 200 and len(answer.content) <= _MOST_ANSWER else None
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise ZooError(
                    f"The identity provider {self.issuer} answered with status {answer.status_code} and no document."
                )
            self._kept[address] = (time.monotonic() + _KEPT_S, found)
            return found

    def _offline(self) -> ZooOfflineError:
        return ZooOfflineError(f"The identity provider {self.issuer} cannot be reached.", hint="Try again in a moment.")


def _derived(what: str, secret: str) -> str:
    """43 characters for one purpose that tell nothing of the secret, nor of those for another."""
    made = hmac.new(secret.encode(), f"neuronmap zoo oidc {what}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=")
