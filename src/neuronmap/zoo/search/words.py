"""Text as words, the same way for what is indexed and for what is searched, on every database."""

from __future__ import annotations

import unicodedata

__all__ = ["fold", "folded_model", "terms_of"]

_MOST_WORD = 64
_MOST_TERMS = 32


def fold(text: str) -> str:
    """Words of letters and digits between single spaces: lower case, accents and everything else taken away.

    Words are cut after 64 characters.

    Example:
        >>> fold("Llama-3.1-8B, by Schröder & Łoś")
        'llama 3 1 8b by schroder łos'
    """
    plain = "".join(
        one if one.isalnum() else "" if unicodedata.category(one) == "Mn" else " "
        for one in unicodedata.normalize("NFKD", text.casefold())
    )
    return " ".join(word[:_MOST_WORD] for word in plain.split())


def terms_of(text: str) -> list[tuple[str, ...]]:
    """What somebody asks for: each thing between their spaces is one term, its words to be found one behind the other.

    There is no syntax: quotes, operators and wildcards are characters like others, and taken away like others.

    Example:
        >>> terms_of('resid* OR "gpt2-small"')
        [('resid',), ('or',), ('gpt2', 'small')]
    """
    terms = dict.fromkeys(tuple(fold(part).split()) for part in text.split())
    return [term for term in terms if term][:_MOST_TERMS]


def folded_model(name: str | None) -> str | None:
    """A model's name without its owner, lower case: what people mean by "gpt2" or "Llama-3.1-8B"."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower() if name else None
