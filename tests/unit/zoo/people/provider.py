"""A small OpenID Connect provider on loopback: discovery, keys, authorisation code with PKCE. Faults can be switched on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

CLIENT, SECRET = "the-zoo", "a secret of the zoo"


class SmallProvider:
    """Its state; ``claims`` and ``fault`` are for tests to set."""

    def __init__(self) -> None:
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}, private=True)]
        self.algorithm = "RS256"
        self.claims: dict[str, Any] = {
            "sub": "7",
            "preferred_username": "grace",
            "email": "grace@example.org",
            "email_verified": True,
        }
        self.overrides: dict[str, Any] = {}
        self.fault = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.issuer = ""

    def rotate(self) -> None:
        """A new key in place of the old one."""
        self.keys = [ECKey.generate_key("P-256", {"kid": "second", "use": "sig"}, private=True)]
        self.algorithm = "ES256"

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": "https://other.example" if self.fault == "issuer" else self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorise",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def authorise(self, query: dict[str, str]) -> str:
        """Lets everybody in; where to send the browser."""
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        back = {"code": code, "state": query["state"], "session_state": "x", "iss": self.issuer}
        if self.fault == "denied":
            back = {"error": "access_denied", "state": query["state"]}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if given != f"{CLIENT}:{SECRET}" and given != f"{CLIENT}:{SECRET.replace(' ', '%20')}":
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            begun is None
            or begun["redirect_uri"] != form["redirect_uri"]
            or base64.urlsafe_b64encode(challenge).decode().rstrip("=") != begun["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(16)
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = {
            "iss": self.issuer, "aud": CLIENT, "iat": int(time.time()), "exp": int(time.time()) + 300, "nonce": begun["nonce"],
            "at_hash": base64.urlsafe_b64encode(half).decode().rstrip("="), **self.claims, **self.overrides,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return 200, {"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": self.sign(claims)}

    def sign(self, claims: dict[str, Any]) -> str:
        key = self.keys[0]
        header = {"alg": self.algorithm, "kid": key.kid}
        if self.fault == "none":
            return f"{encoded({'alg': 'none'}, claims)}."
        if self.fault == "hmac":  # signed with the public key as if it were a shared secret
            text = encoded({"alg": "HS256", "kid": key.kid}, claims)
            made = hmac.new(key.as_pem(private=False), text.encode(), hashlib.sha256).digest()
            return f"{text}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"
        if self.fault == "stranger":
            key = RSAKey.generate_key(2048, {"kid": key.kid}, private=True)
        return jwt.encode(header, claims, key, algorithms=[self.algorithm])


def encoded(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Header and claims of a token, unsigned."""
    parts = (base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (header, claims))
    return ".".join(parts)


@contextmanager
def small_provider() -> Iterator[SmallProvider]:
    """The provider, while this lasts."""
    provider = SmallProvider()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.asked.append(parts.path)
            if parts.path == "/.well-known/openid-configuration":
                self.answer(200, provider.metadata())
            elif parts.path == "/keys":
                self.answer(200, KeySet(provider.keys).as_dict(private=False))
            elif parts.path == "/authorise":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.answer(302, {}, {"location": provider.authorise(query)})
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            values = {name: found[0] for name, found in parse_qs(form).items()}
            self.answer(*provider.token(values, self.headers.get("authorization", "")))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
