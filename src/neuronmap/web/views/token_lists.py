"""Tokens with a figure each: what a feature fires on, promotes, suppresses, what stands before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["ShownToken", "TokenStatistic", "often_first", "shown_token", "shown_tokens", "token_statistics"]


class ShownToken(BaseModel):
    """A token with a figure."""

    token: int = Field(description="Id in the vocabulary.")
    text: str = Field(description="Its text, U+FFFD for parts of characters.")
    shown: str = Field(description="As it is shown: whitespace visible, parts of characters as bytes.")
    value: float


class TokenStatistic(ShownToken):
    """A token with all that is known of it at a feature; ``value`` is the z."""

    count: int = Field(description="Sampled firings with it.")
    share: float = Field(description="Share of the sampled firings.")
    lift: float = Field(description="Share over the token's share of all tokens.")


def shown_token(store: FeatureStore, token: int) -> str:
    """A token alone; of one that is part of a character the bytes, since such tokens would all look the same."""
    data = store.vocabulary.bytes_of(token)
    try:
        data.decode()
    except UnicodeDecodeError:
        return f"⟨{data.hex(' ').upper()}⟩"
    return store.vocabulary.shown(token)


def shown_tokens(
    store: FeatureStore, entries: Sequence[dict[str, Any]] | None, figure: str, most: int | None = None
) -> list[ShownToken]:
    """Entries of a list of ``details.parquet``.

    Args:
        store: the analysis.
        entries: as they are stored; None for none.
        figure: which of their fields is the figure.
        most: at most so many.
    """
    return [
        ShownToken(
            token=entry["token"],
            text=store.vocabulary.text_of(entry["token"]),
            shown=shown_token(store, entry["token"]),
            value=entry[figure],
        )
        for entry in (entries or [])[:most]
    ]


def token_statistics(store: FeatureStore, entries: Sequence[dict[str, Any]] | None) -> list[TokenStatistic]:
    """Entries with count, share, lift and z."""
    return [
        TokenStatistic(
            token=entry["token"],
            text=store.vocabulary.text_of(entry["token"]),
            shown=shown_token(store, entry["token"]),
            value=entry["z"],
            count=entry["count"],
            share=entry["share"],
            lift=entry["lift"],
        )
        for entry in often_first(entries)
    ]


def often_first(entries: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Entries of the stored order (by z), those that were met once after the others: one firing says little."""
    return sorted(entries or [], key=lambda entry: entry["count"] < 2)
