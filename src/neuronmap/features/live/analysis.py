"""What :class:`~neuronmap.features.live.extractor.SAEFeatureExtractor` finds in texts: token by token, and how it shows itself.

Shapes: N tokens of all texts together, F features, E active entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from neuronmap.errors import ConfigError, InputError
from neuronmap.features.live.naming import FeatureNames
from neuronmap.features.live.strips import Strip, cell, frame, page, table
from neuronmap.features.storage.text import Piece, Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from rich.console import RenderableType
    from scipy.sparse import csr_array

__all__ = ["By", "FeatureOnText", "FeatureTrace", "RankedBy", "TextAnalysis"]

By = Literal["activation", "relative"]
RankedBy = Literal["activation", "relative", "share"]
_SHOWN_TEXTS = 3
_SHOWN_TOKENS = 400
_SHOWN_FEATURES = 8


@dataclass(frozen=True)
class FeatureOnText:
    """One feature over all texts.

    Attributes:
        feature: its number.
        label: its label in the store; empty without one.
        max: its largest activation here.
        token: number of the token with that, over all texts.
        tokens: tokens on which it is active.
        mean: its mean activation on those.
        relative: ``max`` over the feature's largest activation in the store; None without a store.
    """

    feature: int
    label: str
    max: float
    token: int
    tokens: int
    mean: float
    relative: float | None


@dataclass(frozen=True)
class FeatureTrace:
    """The activations of one feature on every token.

    Attributes:
        feature: its number.
        label: its label; empty without a store.
        activation_N: float32 [N] over all texts, 0 where it is silent; NaN at masked positions.
        largest: what full colour stands for: its maximum in the store, or here.
    """

    feature: int
    label: str
    activation_N: npt.NDArray[np.float32]
    largest: float
    _analysis: TextAnalysis

    def of_text(self, text: int) -> npt.NDArray[np.float32]:
        """float32 [T], the activations on one text."""
        return self.activation_N[self._analysis.span(text)]

    def strip(self, text: int) -> Strip:
        """One text with the activations as colour."""
        analysis, span = self._analysis, self._analysis.span(text)
        titles = [f"{value:.3g}" if value > 0 else "" for value in self.activation_N[span].tolist()]
        return Strip(
            analysis.pieces(text),
            np.nan_to_num(self.activation_N[span]).tolist(),
            self.largest,
            titles,
            (analysis.masked_N[span] != "").tolist(),
        )

    def _repr_html_(self) -> str:
        head = f"Feature {self.feature}{f' · {self.label}' if self.label else ''}: full colour is {self.largest:.3g}"
        strips = [self.strip(text).to_html() for text in range(min(self._analysis.num_texts, _SHOWN_TEXTS))]
        return page(f"<p><b>{cell(head)}</b></p>", *strips)


@dataclass(frozen=True)
class TextAnalysis:
    """Texts through an SAE, token by token.

    Masked tokens (the first of a context, special tokens, norm outliers) are what the SAE was trained without: they have no
    features and no reconstruction figures here, and ``masked_N`` says why.

    Attributes:
        features_NF: float32 sparse [N, F], feature activations; masked tokens have none.
        token_N: int64 [N], token ids.
        text_N: int32 [N], which text each token is of.
        masked_N: ``""`` for a row, else ``first``, ``special`` or ``outlier``.
        error_N: float32 [N], squared distance |x - xhat|^2; NaN where masked, and for a transcoder, which reconstructs another hook.
        energy_N: float32 [N], |x - b_dec|^2, the squared distance from what the SAE says without any feature; NaN as error_N.
        top: features shown for each token.
        by: how they are ordered: by activation, or by activation over the feature's largest in the store.
        names: labels and maxima from the store.
        vocabulary: text of the tokens.
        notes: what a reader should know.
        title: SAE, hook and model.
        length_N: float32 [N], length of what the encoder's columns are multiplied with, so in units of feature activations; None
            where that is the square root of ``energy_N`` (no ``input_norm``, no transcoder).
    """

    features_NF: csr_array
    token_N: npt.NDArray[np.int64]
    text_N: npt.NDArray[np.int32]
    masked_N: npt.NDArray[np.str_]
    error_N: npt.NDArray[np.float32]
    energy_N: npt.NDArray[np.float32]
    top: int
    by: By
    names: FeatureNames
    vocabulary: Vocabulary
    notes: tuple[str, ...]
    title: str
    length_N: npt.NDArray[np.float32] | None = None

    # --- tokens ------------------------------------------------------------------------------------------------------

    @property
    def num_texts(self) -> int:
        """Texts that were analysed."""
        return int(self.text_N[-1]) + 1

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.token_N)

    @property
    def explained_shares(self) -> npt.NDArray[np.float64]:
        """float64 [N], share of the energy that the features explain: 1 - error / energy; NaN where masked or not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share: npt.NDArray[np.float64] = 1.0 - self.error_N.astype(np.float64) / self.energy_N
        return share

    @property
    def explained(self) -> float:
        """The same over all rows: 1 - sum of errors / sum of energies; NaN without rows, or where not known."""
        energy = float(np.nansum(self.energy_N, dtype=np.float64))
        return 1.0 - float(np.nansum(self.error_N, dtype=np.float64)) / energy if energy > 0 else float("nan")

    @property
    def l0(self) -> float:
        """Active features of a row, on average; NaN without rows."""
        rows = int((self.masked_N == "").sum())
        return self.features_NF.nnz / rows if rows else float("nan")

    def span(self, text: int) -> slice:
        """Where a text's tokens are.

        Raises:
            InputError: there is no such text.
        """
        if not 0 <= text < self.num_texts:
            raise InputError(f"There is no text {text}: texts are 0 to {self.num_texts - 1}.")
        start, stop = np.searchsorted(self.text_N, [text, text + 1])
        return slice(int(start), int(stop))

    def pieces(self, text: int) -> list[Piece]:
        """The text as it is shown; tokens that share a character are one piece."""
        return self.vocabulary.pieces(self.token_N[self.span(text)])

    # --- features ----------------------------------------------------------------------------------------------------

    def feature(self, feature: int) -> FeatureTrace:
        """The activations of one feature on every token.

        Raises:
            InputError: there is no such feature.
        """
        features = self.features_NF.shape[1]
        if not 0 <= feature < features:
            raise InputError(f"There is no feature {feature}: ids are 0 to {features - 1}.")
        activation_N = np.asarray(self.features_NF[:, [feature]].todense(), dtype=np.float32).reshape(-1)
        activation_N[self.masked_N != ""] = np.nan
        known = self.names.maximum(feature)
        here = float(np.nanmax(activation_N, initial=0.0))
        return FeatureTrace(feature, self.names.label(feature), activation_N, max(known or 0.0, here), self)

    def ranking(self, top: int = 20, by: RankedBy | None = None, min_activation: float = 0.0) -> list[FeatureOnText]:
        """The features that are strongest anywhere in the texts.

        Args:
            top: how many.
            by: ``activation``; ``relative`` to the feature's largest in the store (features for which that is not known come
                last); ``share``: activation over the length of what the encoder sees (the distance of the token's activation from
                b_dec), so that tokens with a large norm do not fill the list. None: ``relative`` with a store, ``share`` without.
            min_activation: leave out features that stay below it.

        Raises:
            ConfigError: ``relative`` without a store.
        """
        by = by or ("share" if self.names.store is None else "relative")
        columns = self.features_NF.tocsc()
        counts_F = np.diff(columns.indptr)
        active = np.flatnonzero(counts_F)
        if not len(active):
            return []
        starts = columns.indptr[active]
        largest = np.maximum.reduceat(columns.data, starts)
        total = np.add.reduceat(columns.data.astype(np.float64), starts)
        if by == "share":
            length_N = np.sqrt(self.energy_N.astype(np.float64)) if self.length_N is None else self.length_N
            score = np.maximum.reduceat(columns.data / np.maximum(length_N[columns.indices], 1e-30), starts)
        else:
            score = self._scores(largest, active, by)
        found = []
        order = np.lexsort((active, -score))
        for place in order[largest[order] >= min_activation][:top]:
            feature = int(active[place])
            inside = slice(columns.indptr[feature], columns.indptr[feature + 1])
            token = int(columns.indices[inside][np.argmax(columns.data[inside])])
            known, most = self.names.maximum(feature), float(largest[place])
            count = int(counts_F[feature])
            relative = most / known if known else None
            mean = float(total[place]) / count
            found.append(FeatureOnText(feature, self.names.label(feature), most, token, count, mean, relative))
        return found

    def top_features(self, token: int) -> list[tuple[int, float]]:
        """(feature, activation) of the strongest features on one token, in the analysis' order."""
        inside = slice(self.features_NF.indptr[token], self.features_NF.indptr[token + 1])
        feature, value = self.features_NF.indices[inside], self.features_NF.data[inside]
        order = np.lexsort((feature, -self._scores(value, feature, self.by)))[: self.top]
        return [(int(feature[place]), float(value[place])) for place in order]

    def _scores(self, value: npt.NDArray[Any], feature: npt.NDArray[Any], by: By) -> npt.NDArray[np.float64]:
        if by == "activation":
            return value.astype(np.float64)
        maximum_F = self.names.maxima
        if maximum_F is None:
            raise ConfigError(
                "by = 'relative' needs the features' maxima.", hint="Give store=, or use by='activation'."
            )
        known = maximum_F[feature] > 0
        score: npt.NDArray[np.float64] = np.where(known, value / np.where(known, maximum_F[feature], 1.0), -1.0)
        return score

    # --- other forms -------------------------------------------------------------------------------------------------

    def to_arrow(self, rows: Literal["features", "tokens"] = "features") -> pa.Table:
        """As an Arrow table.

        Args:
            rows: ``features``: one row for each of the top features of each token; ``tokens``: one row a token.
        """
        import pyarrow as pa

        position_N = np.concatenate([np.arange(np.sum(self.text_N == text)) for text in range(self.num_texts)])
        shown = [self.vocabulary.text_of(int(token)) for token in self.token_N]
        if rows == "tokens":
            return pa.table(
                {
                    "text": pa.array(self.text_N, pa.int32()),
                    "position": pa.array(position_N, pa.int32()),
                    "token": pa.array(self.token_N, pa.int32()),
                    "token_text": pa.array(shown, pa.string()),
                    "masked": pa.array(self.masked_N.tolist(), pa.string()),
                    "active": pa.array(np.diff(self.features_NF.indptr), pa.int32()),
                    "explained": pa.array(self.explained_shares, pa.float64(), from_pandas=True),
                    "error": pa.array(self.error_N, pa.float32(), from_pandas=True),
                    "energy": pa.array(self.energy_N, pa.float32(), from_pandas=True),
                }
            )
        if rows != "features":
            raise ConfigError(f"rows = {rows!r}: allowed are 'features' and 'tokens'.")
        lists = [self.top_features(token) for token in range(self.num_tokens)]
        token_E = np.repeat(np.arange(self.num_tokens), [len(found) for found in lists])
        feature_E = [feature for found in lists for feature, _ in found]
        value_E = [value for found in lists for _, value in found]
        known = [self.names.maximum(feature) for feature in feature_E]
        return pa.table(
            {
                "text": pa.array(self.text_N[token_E], pa.int32()),
                "position": pa.array(position_N[token_E], pa.int32()),
                "token": pa.array(self.token_N[token_E], pa.int32()),
                "token_text": pa.array([shown[token] for token in token_E], pa.string()),
                "rank": pa.array([rank for found in lists for rank in range(len(found))], pa.int32()),
                "feature": pa.array(feature_E, pa.int32()),
                "activation": pa.array(value_E, pa.float32()),
                "relative": pa.array(
                    [value / most if most else None for value, most in zip(value_E, known, strict=True)], pa.float32()
                ),
                "label": pa.array([self.names.label(feature) for feature in feature_E], pa.string()),
            }
        )

    def to_pandas(self, rows: Literal["features", "tokens"] = "features") -> pd.DataFrame:
        """As a pandas table; see :meth:`to_arrow`."""
        return self.to_arrow(rows).to_pandas()

    def _facts(self) -> str:
        masked = int((self.masked_N != "").sum())
        return (
            f"{self.num_texts} text{'s' * (self.num_texts != 1)}, {self.num_tokens} tokens ({masked} masked); "
            f"{self.l0:.1f} active features a token"
            + (f"; {self.explained:.1%} of the energy explained" if not np.isnan(self.explained) else "")
        )

    def overview(self, text: int) -> Strip:
        """One text; colour is how much of a token the features do not explain, titles hold its top features."""
        span = self.span(text)
        titles = [self._token_title(token) for token in range(span.start, span.stop)]
        unexplained = np.nan_to_num(np.clip(1.0 - self.explained_shares[span], 0.0, 1.0))
        return Strip(self.pieces(text), unexplained.tolist(), 1.0, titles, (self.masked_N[span] != "").tolist())

    def _token_title(self, token: int) -> str:
        name = self.vocabulary.shown(int(self.token_N[token]))
        if self.masked_N[token]:
            return f"{name}: not a row ({self.masked_N[token]})"
        share = self.explained_shares[token]
        lines = [name if np.isnan(share) else f"{name}: {share:.0%} explained"]
        lines += [f"{value:.3g}  {self.names.title(feature)}" for feature, value in self.top_features(token)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{cell(self.title)}</b><br>{cell(self._facts())}</p>"]
        ranking = self.ranking(_SHOWN_FEATURES)
        for text in range(min(self.num_texts, _SHOWN_TEXTS)):
            name = f"Text {text}: " if self.num_texts > 1 else ""
            parts.append(
                frame(
                    f"{name}colour is the share not explained; hover for features", _cut(self.overview(text)).to_html()
                )
            )
        rows = []
        for found in ranking:
            text = int(self.text_N[found.token])
            strip = _around(self.feature(found.feature).strip(text), found.token - self.span(text).start)
            rows.append([cell(self.names.title(found.feature)), cell(found.max), cell(found.tokens), strip.to_html()])
        parts.append(frame("Strongest features", table(("feature", "max", "tokens", "where"), rows)))
        for text in range(min(self.num_texts, _SHOWN_TEXTS)):
            name = f" of text {text}" if self.num_texts > 1 else ""
            parts.append(frame(f"Token by token{name}", self._token_table(text), closed=True))
        return page(*parts, notes=[*self.notes, *self._left_out()])

    def _token_table(self, text: int) -> str:
        rows, span = [], self.span(text)
        for piece in self.pieces(text)[:_SHOWN_TOKENS]:
            for place in range(piece.start, piece.stop):
                token = span.start + place
                chips = [
                    f"{cell(self.names.title(feature))} {value:.3g}" for feature, value in self.top_features(token)
                ]
                share = (
                    cell(float(self.explained_shares[token]))
                    if not self.masked_N[token]
                    else cell(self.masked_N[token])
                )
                rows.append([cell(place), cell(piece.shown), share, " · ".join(chips)])
        return table(("place", "token", "explained", "top features"), rows)

    def _left_out(self) -> Sequence[str]:
        return [f"{self.num_texts - _SHOWN_TEXTS} more texts are not shown."] if self.num_texts > _SHOWN_TEXTS else []

    def __str__(self) -> str:
        lines = [self.title, self._facts()]
        for text in range(min(self.num_texts, _SHOWN_TEXTS)):
            span = self.span(text)
            lines.append(f"\nText {text}" if self.num_texts > 1 else "")
            for piece in self.pieces(text)[:_SHOWN_TOKENS]:
                for token in range(span.start + piece.start, span.start + piece.stop):
                    explained = self.explained_shares[token]  # NaN where masked
                    share = "     –" if np.isnan(explained) else f"{explained:6.0%}"
                    chips = [
                        f"{self.names.title(feature)} {value:.3g}" for feature, value in self.top_features(token)[:4]
                    ]
                    said = "; ".join(chips) if not self.masked_N[token] else f"masked: {self.masked_N[token]}"
                    lines.append(f"{piece.shown:>14} {share}  {said}")
        return "\n".join([*lines, *(f"Note: {note}" for note in (*self.notes, *self._left_out()))])

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title, style="bold"), Text(self._facts())]
        for found in self.ranking(_SHOWN_FEATURES):
            text = int(self.text_N[found.token])
            head = f"\n{self.names.title(found.feature)}: {found.max:.3g} on {found.tokens} tokens"
            strip = _around(self.feature(found.feature).strip(text), found.token - self.span(text).start)
            parts += [Text(head, style="bold"), strip.to_rich()]
        return Group(*parts, *(Text(f"Note: {note}", style="dim") for note in (*self.notes, *self._left_out())))


def _cut(strip: Strip) -> Strip:
    return Strip(strip.pieces[:_SHOWN_TOKENS], strip.values, strip.largest, strip.titles, strip.masked)


def _around(strip: Strip, place: int, before: int = 24, after: int = 12) -> Strip:
    """The pieces around a token."""
    pieces = [piece for piece in strip.pieces if place - before <= piece.start <= place + after]
    return Strip(pieces, strip.values, strip.largest, strip.titles, strip.masked)
