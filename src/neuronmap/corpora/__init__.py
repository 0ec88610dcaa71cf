"""Text sources, tokenising and packing. No torch in this room; heavy libraries load when first needed."""

from __future__ import annotations

from neuronmap.corpora.document import Corpus, CorpusReport, Document
from neuronmap.corpora.samples import NamedCorpus, list_corpora
from neuronmap.corpora.source import open_corpus
from neuronmap.corpora.tokencache import open_tokens
from neuronmap.corpora.tokenizing import is_heldout, tokenize
from neuronmap.corpora.tokenset import ContextBatch, TokenReport, TokenSet
from neuronmap.corpora.vocabulary import tokenizer_digest_of

__all__ = [
    "ContextBatch",
    "Corpus",
    "CorpusReport",
    "Document",
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
