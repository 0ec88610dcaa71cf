"""What an SAE in memory knows of where it comes from: its metadata, its folder, the language model it was trained with.

The trainer and ``load_sae`` set ``sae.provenance``, so that what works on text (``neuronmap.features``) needs no more than
the SAE. The language model is held weakly: an SAE that is kept does not keep a language model in memory.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuronmap.saes.metadata import BundleMetadata

if TYPE_CHECKING:
    from neuronmap.models import LanguageModel

__all__ = ["Provenance"]


@dataclass(frozen=True)
class Provenance:
    """Where an SAE comes from.

    Attributes:
        metadata: what its bundle says, or would say.
        folder: its bundle; None for one that was never saved.
    """

    metadata: BundleMetadata
    folder: Path | None = None
    _model: weakref.ref[LanguageModel] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The folder's name (of a run, the run's); empty for an SAE that was never saved."""
        if self.folder is None:
            return ""
        return self.folder.parent.name if self.folder.name == "sae" else self.folder.name

    @property
    def language_model(self) -> LanguageModel | None:
        """The language model, if it was loaded in this process and is still in use."""
        return None if self._model is None else self._model()

    def with_model(self, model: LanguageModel | None) -> Provenance:
        """The same, knowing a loaded language model."""
        return replace(self, _model=None if model is None else weakref.ref(model))
