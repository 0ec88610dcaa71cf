"""What the child keeps in memory: language models, the SAEs on them, open analyses, the last texts that were read, the sentence encoder.

What was used least recently goes first: SAEs, then models that no kept SAE is on. Weights are counted, not what runs need.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuronmap.errors import MemoryExhaustedError, MismatchError
from neuronmap.features.live.analysis import TextAnalysis
from neuronmap.features.live.attached import AttachedSAE, attach
from neuronmap.features.live.extractor import SAEFeatureExtractor
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import AnalysisEntry, LibraryEntry, SAEModelHub
from neuronmap.hub.analyses import list_analyses, pick_analysis
from neuronmap.hub.opening import ModelSettings, language_model_of, model_settings
from neuronmap.models import LanguageModel, load_model
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.models.sentences import SentenceEncoder
from neuronmap.progress import Progress
from neuronmap.web.views.semantic_index import encoder_digest

__all__ = ["Loaded", "LoadedSAE"]

_MOST_SAES = 8
_MOST_TEXTS = 16


@dataclass
class _Opened:
    """An analysis that is open: its store, and what reads texts with its labels and maxima."""

    name: str | None
    store: FeatureStore | None
    extractor: SAEFeatureExtractor
    density_F: npt.NDArray[np.float64] | None


@dataclass
class LoadedSAE:
    """An SAE on its model, with one of its analyses.

    Attributes:
        entry: its entry of the library.
        attached: the SAE at its place in the model.
        analysis: name of the analysis; None without one.
        store: the analysis; None without one.
        extractor: what reads texts.
        density_F: float64 [F], share of analysed tokens on which each feature fires; None without an analysis.
    """

    entry: LibraryEntry
    attached: AttachedSAE
    analysis: str | None
    store: FeatureStore | None
    extractor: SAEFeatureExtractor
    density_F: npt.NDArray[np.float64] | None


@dataclass
class _Held:
    """An SAE in memory."""

    attached: AttachedSAE
    settings: ModelSettings
    weight_bytes: int
    opened: dict[str, _Opened] = field(default_factory=dict)


class Loaded:
    """Loads what a request needs and keeps it for the next ones.

    Args:
        library: the library's folder; None for this machine's.
        most_bytes: weights that are kept in memory at once, as far as what is in use allows.
        progress: where notes and bars go.
        loading: is told when something has to be loaded.
    """

    def __init__(
        self, library: Path | None, most_bytes: int, progress: Progress, loading: Callable[[], None] = lambda: None
    ) -> None:
        self._hub = SAEModelHub(library)
        self._most_bytes, self._progress, self._loading = most_bytes, progress, loading
        self._models: OrderedDict[ModelSettings, tuple[LanguageModel, int]] = OrderedDict()
        self._saes: OrderedDict[tuple[str, str | None], _Held] = OrderedDict()
        self._texts: OrderedDict[tuple[str, str | None, str, str, int], TextAnalysis] = OrderedDict()
        self._encoder: tuple[str, SentenceEncoder] | None = None

    @property
    def num_saes(self) -> int:
        """SAEs in memory."""
        return len(self._saes)

    @property
    def num_models(self) -> int:
        """Language models in memory."""
        return len(self._models)

    @property
    def weight_bytes(self) -> int:
        """Of all weights in memory."""
        encoder = self._encoder[1].weight_bytes if self._encoder is not None else 0
        models = sum(size for _, size in self._models.values())
        return encoder + models + sum(held.weight_bytes for held in self._saes.values())

    def sae(self, name: str, analysis: str | None = None) -> LoadedSAE:
        """An SAE on its language model, with an analysis.

        Args:
            name: its id.
            analysis: name; None for the newest sound one, or none.

        Raises:
            NotInLibraryError: no such SAE or analysis.
            DamagedError, MismatchError, ModelError, ResourceError: it cannot be used, and why.
        """
        entry = self._hub.get(name)
        if entry.problem:
            self._hub.load(entry.id)  # raises, with the reason
        key = (entry.id, entry.weights_digest)
        if key not in self._saes:
            self._loading()
            for old in [old for old in self._saes if old[0] == entry.id]:
                del self._saes[old]  # another SAE has taken the name
            self._saes[key] = self._load(entry)
        self._saes.move_to_end(key)
        held = self._saes[key]
        self._models.move_to_end(held.settings)
        self._make_room()
        opened = self._opened(held, entry, analysis)
        return LoadedSAE(entry, held.attached, opened.name, opened.store, opened.extractor, opened.density_F)

    def model(self, settings: ModelSettings) -> LanguageModel:
        """A language model by what it is loaded with.

        Raises:
            ModelError, ResourceError: it cannot be loaded, and why.
        """
        if settings not in self._models:
            self._loading()
            model = load_model(
                settings.name,
                revision=settings.revision,
                dtype=settings.dtype,
                device=settings.device,
                progress=self._progress,
            )
            size = sum(weight.numel() * weight.element_size() for weight in model.module.parameters())
            self._models[settings] = (model, size)
        self._models.move_to_end(settings)
        return self._models[settings][0]

    def store(self, name: str, analysis: str) -> FeatureStore:
        """An analysis, without its SAE and model.

        Raises:
            NotInLibraryError: no such SAE or analysis.
            DamagedError: it cannot be used.
        """
        return FeatureStore.open(pick_analysis(self._hub.get(name), analysis).path)

    def encoder(self, digest: str) -> SentenceEncoder:
        """The sentence encoder.

        Args:
            digest: of the one that is meant.

        Raises:
            ModelNotFoundError: it is not installed.
            MismatchError: another one is installed.
            ModelFormatError, MemoryExhaustedError: it cannot be loaded.
        """
        if encoder_digest() not in (digest, None):
            raise MismatchError("Another sentence encoder was installed meanwhile.", hint="Search again.")
        SENTENCE_ENCODER.require()
        if self._encoder is None or self._encoder[0] != digest:
            self._loading()
            self._encoder = (digest, SentenceEncoder.load())
        return self._encoder[1]

    def read(self, loaded: LoadedSAE, text: str, max_tokens: int) -> TextAnalysis:
        """A text through the SAE; the last few texts are remembered.

        Args:
            loaded: the SAE.
            text: the text.
            max_tokens: most tokens of it; less where the model takes less.
        """
        most = min(max_tokens, loaded.attached.model.max_length or max_tokens)
        store_key = None if loaded.store is None else loaded.store.key
        key = (loaded.entry.id, loaded.entry.weights_digest, store_key or "", text, most)
        if key not in self._texts:
            self._texts[key] = loaded.extractor.analyze_features(text, max_tokens=most)
        self._texts.move_to_end(key)
        while len(self._texts) > _MOST_TEXTS:
            self._texts.popitem(last=False)
        return self._texts[key]

    # --- loading and letting go --------------------------------------------------------------------------------------

    def _load(self, entry: LibraryEntry) -> _Held:
        settings = model_settings(entry)
        try:
            model = self._model(entry, settings)
        except MemoryExhaustedError:
            if not self._models:
                raise
            self._forget()
            model = self._model(entry, settings)
        attached = attach(entry.path, model=model, progress=self._progress)
        size = sum(tensor.numel() * tensor.element_size() for tensor in attached.sae.state_dict().values())
        return _Held(attached, settings, size)

    def _model(self, entry: LibraryEntry, settings: ModelSettings) -> LanguageModel:
        if settings not in self._models:
            model = language_model_of(entry, progress=self._progress)
            size = sum(weight.numel() * weight.element_size() for weight in model.module.parameters())
            self._models[settings] = (model, size)
        self._models.move_to_end(settings)
        return self._models[settings][0]

    def _opened(self, held: _Held, entry: LibraryEntry, name: str | None) -> _Opened:
        found = self._analysis(entry, name)
        key = "" if found is None else f"{found.name} {found.key}"
        if key not in held.opened:
            self._loading()
            store = None if found is None else FeatureStore.open(found.path)
            density_F = None
            if store is not None:
                density_F = store.tables.read("features", ["density"])["density"].to_numpy()
            extractor = SAEFeatureExtractor(held.attached, store=store, progress=self._progress)
            held.opened[key] = _Opened(None if found is None else found.name, store, extractor, density_F)
        return held.opened[key]

    def _analysis(self, entry: LibraryEntry, name: str | None) -> AnalysisEntry | None:
        if name is None and not any(one.complete and not one.problem for one in list_analyses(entry)):
            return None
        return pick_analysis(entry, name)

    def _make_room(self) -> None:
        """Let go of what was used least recently; what was used last stays. The sentence encoder is first: it is soonest back."""
        gone = False
        if self.weight_bytes > self._most_bytes:
            self._encoder = None
        while len(self._saes) > 1 and (len(self._saes) > _MOST_SAES or self.weight_bytes > self._most_bytes):
            self._saes.popitem(last=False)
            gone = True
        used = {held.settings for held in self._saes.values()}
        for settings in [settings for settings in self._models if settings not in used]:
            if self.weight_bytes > self._most_bytes:
                del self._models[settings]
                gone = True
        if gone:
            self._forget_texts()

    def _forget(self) -> None:
        """Let go of everything."""
        self._encoder = None
        self._saes.clear()
        self._models.clear()
        self._forget_texts()

    def _forget_texts(self) -> None:
        kept = set(self._saes)
        for text in [text for text in self._texts if (text[0], text[1]) not in kept]:
            del self._texts[text]
        gc.collect()  # modules and their hooks refer to each other
