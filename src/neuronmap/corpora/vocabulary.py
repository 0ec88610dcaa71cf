"""What packing needs to know about a tokenizer: size, special ids, separator, BOS, padding, digest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuronmap.errors import ConfigError
from neuronmap.hashing import digest_json

__all__ = ["Vocabulary", "tokenizer_digest_of", "vocabulary_of"]


@dataclass(frozen=True)
class Vocabulary:
    """Facts about one tokenizer, and the choices made with them.

    ``size`` is None without a tokenizer (pre-tokenised ids of an unknown vocabulary). ``separator_id`` stands
    between two documents, ``bos_id`` at the start of every context; None means not used. ``separator_is_auto``
    says that nobody asked for it by name: sequences that are already tokenised then get none.
    """

    name: str
    digest: str
    size: int | None
    special_ids: tuple[int, ...]
    separator: str | None
    separator_id: int | None
    separator_is_auto: bool
    bos: str | None
    bos_id: int | None
    pad_id: int


def vocabulary_of(
    tokenizer: Any,
    *,
    separator: str | None,
    prepend_bos: bool | Literal["auto"],
    digest: str | None = None,
) -> Vocabulary:
    """Read a tokenizer and settle separator and BOS.

    Args:
        tokenizer: a transformers tokenizer, or None for ids that are tokenised already.
        separator: a token; ``"auto"`` = EOS, else BOS, else SEP, else none; None = none.
        prepend_bos: ``"auto"`` = if the tokenizer itself puts BOS before a text.
        digest: the tokenizer's digest, when the caller has it.

    Raises:
        ConfigError: the separator is not one token, or BOS is wanted and the tokenizer has none.
    """
    if tokenizer is None:
        if separator not in ("auto", None) or prepend_bos is True:
            raise ConfigError("A separator or BOS was asked for, but there is no tokenizer to give its id.")
        return Vocabulary("none", "none", None, (), None, None, True, None, None, 0)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
    size = max(tokenizer.get_vocab().values()) + 1
    separator_token = _auto_separator(tokenizer) if separator == "auto" else separator
    separator_id = None if separator_token is None else _token_id(tokenizer, separator_token)
    bos_id = _bos(tokenizer, prepend_bos)
    pad_id = next(
        index for index in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if index is not None and index < size
    )
    return Vocabulary(
        name=_name(tokenizer),
        digest=digest or tokenizer_digest_of(tokenizer),
        size=size,
        special_ids=tuple(sorted(int(index) for index in special if index is not None)),
        separator=separator_token,
        separator_id=separator_id,
        separator_is_auto=separator == "auto",
        bos=None if bos_id is None else str(tokenizer.bos_token),
        bos_id=bos_id,
        pad_id=int(pad_id),
    )


def tokenizer_digest_of(tokenizer: Any) -> str:
    """SHA-256 over everything that decides the ids: vocabulary, merges, normaliser, special tokens.

    Truncation and padding settings are left out; they change from call to call.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    inside: Any
    if backend is not None:
        inside = json.loads(backend.to_str())
        inside.pop("truncation", None)
        inside.pop("padding", None)
    else:
        inside = sorted(tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest_json({"class": type(tokenizer).__name__, "inside": inside, "special": special})


def _auto_separator(tokenizer: Any) -> str | None:
    candidates: Iterable[Any] = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.sep_token)
    return next((str(token) for token in candidates if token), None)


def _token_id(tokenizer: Any, token: str) -> int:
    index = tokenizer.get_vocab().get(token)
    if index is None:
        known = ", ".join(str(special) for special in tokenizer.all_special_tokens) or "none"
        raise ConfigError(
            f"separator = {token!r} is not one token of the tokenizer.",
            hint=f"Use 'auto', None, or a token such as: {known}.",
        )
    return int(index)


def _bos(tokenizer: Any, prepend_bos: bool | Literal["auto"]) -> int | None:
    bos_id = tokenizer.bos_token_id
    if prepend_bos is False:
        return None
    if prepend_bos is True:
        if bos_id is None:
            raise ConfigError("prepend_bos = True, but the tokenizer has no BOS token.", hint="Use 'auto' or False.")
        return int(bos_id)
    if bos_id is None:
        return None
    with_special = tokenizer("a", add_special_tokens=True)["input_ids"]
    without = tokenizer("a", add_special_tokens=False)["input_ids"]
    return int(bos_id) if with_special[:1] == [bos_id] and without[:1] != [bos_id] else None


def _name(tokenizer: Any) -> str:
    name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
    return Path(name).name if Path(name).is_absolute() or Path(name).exists() else name  # no machine's paths in reports
