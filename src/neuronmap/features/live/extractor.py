"""``SAEFeatureExtractor``: texts through an SAE.

Shapes: N tokens of all texts together, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError
from neuronmap.features.live.analysis import By, TextAnalysis
from neuronmap.features.live.attached import MASKED, AttachedSAE, CapturedBatch, attach
from neuronmap.features.live.naming import FeatureNames
from neuronmap.features.live.reading import Context, read_texts
from neuronmap.features.storage.text import Vocabulary
from neuronmap.progress import Progress, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_array

    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["Encoding", "SAEFeatureExtractor"]


_Floats = npt.NDArray[np.float32]


class Encoding(NamedTuple):
    """Texts as sparse feature activations.

    Attributes:
        features_NF: float32 CSR [N, F]; masked tokens have empty rows.
        tokens: one row for each of them: text, position, token, token_text, masked, active, explained, error, energy.
    """

    features_NF: csr_array
    tokens: pa.Table


class SAEFeatureExtractor:
    """Runs texts through a language model and an SAE.

    Args:
        sae: an SAE (just trained, or loaded) or a bundle's folder.
        model: its language model, or a name to load; what the SAE knows when left out. A model that is still in memory from
            training is used again.
        hook: where the SAE reads; what it knows when left out.
        store: a feature store of this SAE, for labels and maxima.
        batch_tokens: most tokens in one forward pass.
        force: allow a model with another digest, if the widths fit.
        progress: where notes and bars go.

    Raises:
        InputError: the SAE does not know its model or hook and none was given.
        MismatchError: SAE, model and store do not belong together; lists every difference.

    Example:
        >>> analysis = SAEFeatureExtractor(result.sae).analyze_features("The winter was long.")        # doctest: +SKIP
        >>> analysis.to_pandas()                                                                       # doctest: +SKIP
    """

    def __init__(
        self,
        sae: SparseAutoencoder | str | Path | AttachedSAE,
        *,
        model: LanguageModel | str | Path | Any | None = None,
        hook: HookPoint | str | None = None,
        store: FeatureStore | None = None,
        batch_tokens: int = 2048,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens = {batch_tokens}: at least 1 token must go through the model at once.")
        self.progress = progress or progress_module.default()
        self.attached = attach(sae, model=model, hook=hook, force=force, progress=self.progress)
        self.names = FeatureNames(store, self.attached.num_features, self.attached.digest)
        self.batch_tokens = batch_tokens
        for note in self.attached.notes:
            self.progress.note(note)

    def __repr__(self) -> str:
        return f"<SAEFeatureExtractor: {self._title()}>"

    @property
    def vocabulary(self) -> Vocabulary:
        """Text of the model's tokens."""
        return self.attached.vocabulary

    def analyze_features(
        self,
        texts: str | Sequence[str],
        top: int = 10,
        *,
        max_tokens: int | None = None,
        by: By | None = None,
    ) -> TextAnalysis:
        """Look at texts token by token.

        Args:
            texts: one text or several; each is a context of its own.
            top: features kept for each token where they are listed; all activations are in ``features_NF``.
            max_tokens: most tokens of a text; the rest is cut off, with a note. None: 1,024, or what the model can take if that
                is less.
            by: order of a token's features: ``activation``, or ``relative`` to the feature's largest activation in the store.
                None: ``relative`` with a store, so that features that are always strong do not win; ``activation`` without.

        Returns:
            Active features, reconstruction share and error of every token.

        Raises:
            InputError: no text, or an empty one.
            ConfigError: an option is out of range, or ``relative`` without a store.
        """
        if top < 1:
            raise ConfigError(f"top = {top}: at least 1 feature is listed for a token.")
        by = by or ("activation" if self.names.store is None else "relative")
        if by not in ("activation", "relative"):
            raise ConfigError(f"by = {by!r}: allowed are 'activation' and 'relative'.")
        if by == "relative" and self.names.store is None:
            raise ConfigError(
                "by = 'relative' needs the features' maxima.", hint="Give store=, or use by='activation'."
            )
        contexts = read_texts(self.attached.model, texts, max_tokens)
        notes = [*self.attached.notes, *_cut_notes(contexts), *_share_notes(self.attached.sae)]
        for note in notes[len(self.attached.notes) :]:
            self.progress.note(note)
        parts = self._run(contexts)
        masked_N = np.array(MASKED)[np.concatenate([part.masked_T for part in parts])]
        notes += _mask_notes(masked_N)
        return TextAnalysis(
            features_NF=_stacked(parts, self.attached.num_features),
            token_N=np.concatenate([context.ids_T for context in contexts]),
            text_N=np.repeat(np.arange(len(contexts), dtype=np.int32), [len(context) for context in contexts]),
            masked_N=masked_N,
            error_N=np.concatenate([part.error_T for part in parts]),
            energy_N=np.concatenate([part.energy_T for part in parts]),
            length_N=None
            if _length_is_energy(self.attached.sae)
            else np.concatenate([part.length_T for part in parts]),
            top=top,
            by=by,
            names=self.names,
            vocabulary=self.vocabulary,
            notes=tuple(notes),
            title=self._title(),
        )

    def encode(self, texts: str | Sequence[str], *, max_tokens: int | None = None) -> Encoding:
        """Texts as a sparse matrix and a table of its rows.

        Args:
            texts, max_tokens: as for :meth:`analyze_features`.

        Example:
            >>> features_NF, tokens = extractor.encode(["One text.", "Another."])                      # doctest: +SKIP
        """
        analysis = self.analyze_features(texts, 1, max_tokens=max_tokens)
        return Encoding(analysis.features_NF, analysis.to_arrow("tokens"))

    def _title(self) -> str:
        here = self.attached
        return f"{here.name} ({here.sae.architecture}, {here.num_features:,} features) at {here.hook.name} of {here.model.identity.name}"

    def _run(self, contexts: Sequence[Context]) -> list[_Coded]:
        """Codes of every context, in order."""
        found: dict[int, _Coded] = {}
        total = sum(len(context) for context in contexts)
        with self.progress.task("Reading texts", total, "tokens") as task:
            found.update(self._coded(contexts, task))
        return [found[number] for number in range(len(contexts))]

    @torch.no_grad()
    def _coded(self, contexts: Sequence[Context], task: Task) -> Iterator[tuple[int, _Coded]]:
        here = self.attached
        for captured in here.captured(contexts, self.batch_tokens):
            x_ND = captured.x_BTD[captured.rows].to(here.sae.dtype)
            counts, features, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
            error_N, energy_N, length_N = ([np.zeros(0, np.float32)] for _ in range(3))
            for part in here.chunks(len(x_ND)):
                x_nD = x_ND[part]
                f_nF = here.encode(x_nD)
                error_n, energy_n, length_n = _figures(here.sae, x_nD, f_nF)
                error_N.append(error_n)
                energy_N.append(energy_n)
                length_N.append(length_n)
                row_E, feature_E = f_nF.nonzero(as_tuple=True)
                counts.append(torch.bincount(row_E, minlength=len(x_nD)).cpu().numpy())
                features.append(feature_E.cpu().numpy())
                values.append(f_nF[row_E, feature_E].float().cpu().numpy())
            rows = _Rows(
                np.concatenate(counts),
                np.concatenate(features),
                np.concatenate(values),
                np.concatenate(error_N),
                np.concatenate(energy_N),
                np.concatenate(length_N),
            )
            yield from _by_context(captured, contexts, rows)
            task.advance(sum(len(contexts[number]) for number in captured.batch.numbers))


class _Rows(NamedTuple):
    """The rows of a batch: entries of each, entries one after the other, error, energy and length of each."""

    count_N: npt.NDArray[np.int64]
    feature_E: npt.NDArray[np.int64]
    value_E: npt.NDArray[np.float32]
    error_N: npt.NDArray[np.float32]
    energy_N: npt.NDArray[np.float32]
    length_N: npt.NDArray[np.float32]


class _Coded(NamedTuple):
    """One context: the same by token, masked tokens with no entry and NaN."""

    count_T: npt.NDArray[np.int64]
    feature_E: npt.NDArray[np.int64]
    value_E: npt.NDArray[np.float32]
    error_T: npt.NDArray[np.float32]
    energy_T: npt.NDArray[np.float32]
    length_T: npt.NDArray[np.float32]
    masked_T: npt.NDArray[np.uint8]


def _figures(sae: SparseAutoencoder, x_nD: Tensor, f_nF: Tensor) -> tuple[_Floats, _Floats, _Floats]:
    """|x - xhat|^2, |x - what the SAE says without a feature|^2, and the length of what the encoder's columns are multiplied with."""
    if not sae.reconstructs_input:
        unknown_n = np.full(len(x_nD), np.nan, dtype=np.float32)
        return unknown_n, unknown_n, np.sqrt(_squares(sae.normalised(x_nD)))
    error_n = _squares(x_nD - sae.complete(sae.decode(f_nF), x_nD))
    if _length_is_energy(sae):
        energy_n = _squares(x_nD - sae.b_dec)
        return error_n, energy_n, np.sqrt(energy_n)
    energy_n = _squares(x_nD - sae.complete(sae.b_dec.expand_as(x_nD), x_nD))
    return error_n, energy_n, np.sqrt(_squares(sae.normalised(x_nD) - sae.b_dec))


def _length_is_energy(sae: SparseAutoencoder) -> bool:
    return sae.reconstructs_input and sae.input_norm == "none"


def _share_notes(sae: SparseAutoencoder) -> list[str]:
    if sae.reconstructs_input:
        return []
    return [
        f"A {sae.architecture} reconstructs another hook than it reads, so the share explained of a token is not known here."
    ]


def _squares(x_nD: Tensor) -> _Floats:
    squares_n: _Floats = x_nD.square().sum(-1).float().cpu().numpy()
    return squares_n


def _by_context(captured: CapturedBatch, contexts: Sequence[Context], rows: _Rows) -> Iterator[tuple[int, _Coded]]:
    """Deal the rows of a batch out to its contexts."""
    masked_BT = captured.masked_BT.cpu().numpy()
    starts_N = np.concatenate([[0], np.cumsum(rows.count_N)])
    first = 0
    for place, number in enumerate(captured.batch.numbers):
        T = len(contexts[number])
        masked_T = masked_BT[place, :T]
        row_T = masked_T == 0
        here = slice(first, first + int(row_T.sum()))
        entries = slice(int(starts_N[here.start]), int(starts_N[here.stop]))
        count_T = np.zeros(T, dtype=np.int64)
        count_T[row_T] = rows.count_N[here]
        error_T, energy_T, length_T = (np.full(T, np.nan, dtype=np.float32) for _ in range(3))
        error_T[row_T], energy_T[row_T], length_T[row_T] = rows.error_N[here], rows.energy_N[here], rows.length_N[here]
        yield (
            number,
            _Coded(count_T, rows.feature_E[entries], rows.value_E[entries], error_T, energy_T, length_T, masked_T),
        )
        first = here.stop


def _stacked(parts: Sequence[_Coded], num_features: int) -> csr_array:
    from scipy.sparse import csr_array

    indptr_N = np.concatenate([[0], np.cumsum(np.concatenate([part.count_T for part in parts]))])
    data_E = np.concatenate([part.value_E for part in parts])
    indices_E = np.concatenate([part.feature_E for part in parts])
    return csr_array((data_E, indices_E, indptr_N), shape=(len(indptr_N) - 1, num_features))


def _cut_notes(contexts: Sequence[Context]) -> list[str]:
    cut = [(number, context) for number, context in enumerate(contexts) if context.left_out]
    if not cut:
        return []
    number, context = cut[0]
    more = f" ({len(cut)} texts were cut in all)" if len(cut) > 1 else ""
    return [
        f"Text {number} was cut after {len(context)} of {len(context) + context.left_out} tokens{more}; max_tokens= reads more."
    ]


def _mask_notes(masked_N: npt.NDArray[np.str_]) -> list[str]:
    names = {
        "first": "at the start of a context",
        "special": "special tokens",
        "outlier": "outliers by their norm",
    }
    said = [f"{int((masked_N == key).sum())} {what}" for key, what in names.items() if (masked_N == key).any()]
    return [f"Masked tokens have no features, as the SAE was trained without them: {', '.join(said)}."] if said else []
