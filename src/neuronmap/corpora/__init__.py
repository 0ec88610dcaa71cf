"""Text sources, tokenising and packing. No torch in this room; names and heavy libraries load when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.corpora.document import Corpus as Corpus
    from neuronmap.corpora.document import CorpusReport as CorpusReport
    from neuronmap.corpora.document import Document as Document
    from neuronmap.corpora.mixture import Mixture as Mixture
    from neuronmap.corpora.samples import NamedCorpus as NamedCorpus
    from neuronmap.corpora.samples import list_corpora as list_corpora
    from neuronmap.corpora.source import open_corpus as open_corpus
    from neuronmap.corpora.tokencache import open_tokens as open_tokens
    from neuronmap.corpora.tokenizing import is_heldout as is_heldout
    from neuronmap.corpora.tokenizing import tokenize as tokenize
    from neuronmap.corpora.tokenset import ContextBatch as ContextBatch
    from neuronmap.corpora.tokenset import TokenReport as TokenReport
    from neuronmap.corpora.tokenset import TokenSet as TokenSet
    from neuronmap.corpora.vocabulary import tokenizer_digest_of as tokenizer_digest_of

_HOMES = {
    "ContextBatch": "tokenset",
    "Corpus": "document",
    "CorpusReport": "document",
    "Document": "document",
    "Mixture": "mixture",
    "NamedCorpus": "samples",
    "TokenReport": "tokenset",
    "TokenSet": "tokenset",
    "is_heldout": "tokenizing",
    "list_corpora": "samples",
    "open_corpus": "source",
    "open_tokens": "tokencache",
    "tokenize": "tokenizing",
    "tokenizer_digest_of": "vocabulary",
}

__all__ = [
    "ContextBatch",
    "Corpus",
    "CorpusReport",
    "Document",
    "Mixture",
    "NamedCorpus",
    "TokenReport",
    "TokenSet",
    "is_heldout",
    "list_corpora",
    "open_corpus",
    "open_tokens",
    "tokenize",
    "tokenizer_digest_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.corpora.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.corpora' has no attribute '{name}'")
