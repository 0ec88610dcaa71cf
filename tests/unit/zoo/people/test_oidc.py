"""Signing in through a real, small provider on loopback; everything that it, or somebody between, may do wrong is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from tests.unit.zoo.people.provider import CLIENT, SECRET, SmallProvider, small_provider

from neuronmap.errors import NeuronMapError, UnauthorizedError, ZooError, ZooOfflineError
from neuronmap.zoo.people.oidc import Identity, Provider

BACK = "http://localhost:8770/api/zoo/oidc/callback"


@pytest.fixture
def small() -> Iterator[SmallProvider]:
    with small_provider() as found:
        yield found


def returned(url: str) -> dict[str, str]:
    """What the browser comes back with."""
    location = httpx2.get(url).headers["location"]
    assert location.startswith(f"{BACK}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def sign_in(provider: Provider, **changed: Any) -> Identity:
    begun = provider.begin(BACK)
    back = returned(begun.url)
    values = {"code": back["code"], "state": back["state"], "issuer": back["iss"], **changed}
    return provider.finish(
        changed.pop("secret", begun.secret), BACK, **{k: v for k, v in values.items() if k != "secret"}
    )


def test_somebody_signs_in(small: SmallProvider) -> None:
    provider = Provider(small.issuer, CLIENT, SECRET)
    assert sign_in(provider) == Identity(f"{small.issuer} 7", "grace", "grace@example.org")
    assert sign_in(provider).subject == f"{small.issuer} 7"
    assert small.asked.count("/.well-known/openid-configuration") == small.asked.count("/keys") == 1  # kept for an hour


def test_an_address_that_nobody_verified_is_not_taken(small: SmallProvider) -> None:
    small.claims = {"sub": "8", "email": "ada@example.org", "email_verified": False}
    assert sign_in(Provider(small.issuer, CLIENT, SECRET)) == Identity(f"{small.issuer} 8", "ada@example.org", None)


def test_a_new_key_is_fetched(small: SmallProvider) -> None:
    provider = Provider(small.issuer, CLIENT, SECRET)
    sign_in(provider)
    small.rotate()
    assert sign_in(provider).name == "grace"
    assert small.asked.count("/keys") == 2


def test_only_the_browser_that_began_finishes(small: SmallProvider) -> None:
    """A code that somebody else got, or slipped in, is of no use."""
    provider = Provider(small.issuer, CLIENT, SECRET)
    mine, theirs = provider.begin(BACK), provider.begin(BACK)
    back, other = returned(mine.url), returned(theirs.url)
    for secret in (theirs.secret, "", "x", "A" * 43):
        with pytest.raises(UnauthorizedError, match="not begun in this browser"):
            provider.finish(secret, BACK, code=back["code"], state=back["state"])
    with pytest.raises(UnauthorizedError, match="does not take the code"):  # PKCE: another one's code under my state
        provider.finish(mine.secret, BACK, code=other["code"], state=back["state"])
    assert provider.finish(mine.secret, BACK, code=back["code"], state=back["state"]).name == "grace"
    with pytest.raises(UnauthorizedError, match="does not take the code"):  # used up
        provider.finish(mine.secret, BACK, code=back["code"], state=back["state"])


def test_the_three_values_of_an_attempt_differ(small: SmallProvider) -> None:
    begun = Provider(small.issuer, CLIENT, SECRET).begin(BACK)
    query = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
    found = {query["state"], query["nonce"], query["code_challenge"], begun.secret}
    assert len(found) == 4
    assert all(len(one) == 43 for one in found)


@pytest.mark.parametrize(
    "overrides",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"], "azp": "another-client"},
        {"aud": None},
        {"nonce": "of another attempt"},
        {"nonce": None},
        {"exp": 1},
        {"exp": None},
        {"iat": 4_000_000_000},  # in the next century
        {"iat": None},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_a_wrong_word_is_not_trusted(small: SmallProvider, overrides: dict[str, Any]) -> None:
    small.overrides = overrides
    with pytest.raises(UnauthorizedError):
        sign_in(Provider(small.issuer, CLIENT, SECRET))


@pytest.mark.parametrize("fault", ["none", "hmac", "stranger"])
def test_a_wrong_signature_is_not_trusted(small: SmallProvider, fault: str) -> None:
    small.fault = fault
    with pytest.raises(UnauthorizedError):
        sign_in(Provider(small.issuer, CLIENT, SECRET))


def test_another_issuer(small: SmallProvider) -> None:
    provider = Provider(small.issuer, CLIENT, SECRET)
    with pytest.raises(UnauthorizedError, match="another identity provider"):
        sign_in(provider, issuer="https://other.example")
    small.fault = "issuer"
    with pytest.raises(ZooError, match="calls itself"):
        Provider(small.issuer, CLIENT, SECRET).begin(BACK)


def test_a_wrong_client_secret(small: SmallProvider) -> None:
    with pytest.raises(UnauthorizedError):
        sign_in(Provider(small.issuer, CLIENT, "wrong"))


def test_endpoints_elsewhere_in_plain_text_are_refused(small: SmallProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    real = small.metadata

    def other() -> dict[str, Any]:
        return {**real(), "token_endpoint": "ftp://evil.example/token"}

    monkeypatch.setattr(small, "metadata", other)
    with pytest.raises(ZooError, match="token_endpoint"):
        Provider(small.issuer, CLIENT, SECRET).begin(BACK)


def test_nobody_answers() -> None:
    with pytest.raises(ZooOfflineError, match="cannot be reached") as refused:
        Provider("http://127.0.0.1:9", CLIENT, SECRET).begin(BACK)
    assert isinstance(refused.value, NeuronMapError)
