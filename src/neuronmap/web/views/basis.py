"""On what numbers rest: SAE, model, text, tokens, date."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, PrivateAttr

from neuronmap.paths import public_name
from neuronmap.web.opened import Home, OpenAnalysis

__all__ = ["Basis"]


def _sampled(overview: dict[str, Any]) -> int:
    """Rows of the sample of whole contexts on which pairs and explained variance are counted."""
    return int((overview.get("explained_variance") or {}).get("rows") or 0)


class Basis(BaseModel):
    """Where the numbers beside it come from."""

    _home: Home = PrivateAttr()

    sae: str = Field(description="Id of the SAE.")
    weights_digest: str = Field(default="", description="SHA-256 of its weights.")
    model: str = Field(default="", description="Language model.")
    hook: str = Field(default="", description="Where the SAE reads.")
    analysis: str = Field(default="", description="Name of the analysis.")
    key: str = Field(default="", description="Digest of all that decides the analysis.")
    corpus: str = Field(default="", description="The text.")
    tokens: int = Field(default=0, description="Tokens that were analysed.")
    sampled_tokens: int = Field(default=0, description="Of these, tokens on which firing together was counted.")
    context_length: int = Field(default=0, description="Tokens of a context.")
    created: str = Field(default="", description="When, ISO 8601, UTC.")

    @classmethod
    def of(cls, analysed: OpenAnalysis) -> Basis:
        """Of an open analysis."""
        store, facts = analysed.store, analysed.store.facts
        made = cls(
            sae=analysed.home.sae,
            weights_digest=str((facts.get("sae") or {}).get("weights_digest") or ""),
            model=public_name((facts.get("model") or {}).get("name")),
            hook=str((facts.get("hook") or {}).get("name") or ""),
            analysis=analysed.home.analysis,
            key=store.key,
            corpus=public_name((facts.get("corpus") or {}).get("name")),
            tokens=int(store.manifest["rows"]),
            sampled_tokens=_sampled(store.overview),
            context_length=store.context_length,
            created=str(store.manifest["created"]),
        )
        made._home = analysed.home
        return made

    @property
    def home(self) -> Home:
        """Where the pages of the analysis are."""
        return self._home
