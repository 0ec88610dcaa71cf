"""Results of :class:`~neuronmap.features.live.effects.FeatureEffects`, and how they show themselves.

Shapes: F features, J features that were compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neuronmap.features.live.naming import FeatureNames
from neuronmap.features.live.strips import cell, page, table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["AblationEffect", "Ablations", "Attribution", "EffectComparison", "TokenEffect"]

_COLUMNS: tuple[str, ...] = (
    "feature",
    "label",
    "contexts",
    "positions",
    "firings",
    "largest",
    "loss_change",
    "per_firing",
)
_COLUMNS += ("loss_at_firings", "kl", "kl_at_firings")


class TokenEffect(NamedTuple):
    """What a feature adds to the prediction of one token, on average over its firings.

    Attributes:
        token: as it is shown.
        probability: probability with the feature minus probability without.
        log_probability: the same of the logarithms, in nats.
    """

    token: str
    probability: float
    log_probability: float


@dataclass(frozen=True)
class AblationEffect:
    """What changes when one feature is taken out.

    Attributes:
        feature: its number.
        label: its label; empty without a store.
        contexts: contexts that were run.
        positions: scored positions in them.
        firings: rows at which the feature was taken out.
        largest: its largest activation there.
        loss_change: loss without it minus loss with it, summed over all scored positions, in nats. Above 0: it helps.
        by_context: the same by context.
        loss_at_firings: mean change of the loss of the very next token, at positions where it fires, in nats.
        kl: mean KL(with || without) over all scored positions, in nats.
        kl_at_firings: the same where it fires.
        promoted: tokens whose probability it raises most, on average over its firings.
        suppressed: tokens whose probability it lowers most, likewise.
    """

    feature: int
    label: str
    contexts: int
    positions: int
    firings: int
    largest: float
    loss_change: float
    by_context: tuple[float, ...]
    loss_at_firings: float
    kl: float
    kl_at_firings: float
    promoted: tuple[TokenEffect, ...]
    suppressed: tuple[TokenEffect, ...]

    @property
    def per_firing(self) -> float:
        """:attr:`loss_change` over firings: what one firing is worth, later tokens included. 0 without firings."""
        return self.loss_change / self.firings if self.firings else 0.0


@dataclass(frozen=True)
class Ablations:
    """True ablations of some features, one at a time.

    Attributes:
        effects: one a feature, in the order asked for.
        title: SAE, hook and model.
        notes: what a reader should know.
    """

    effects: tuple[AblationEffect, ...]
    title: str
    notes: tuple[str, ...]

    def __getitem__(self, place: int) -> AblationEffect:
        return self.effects[place]

    def __len__(self) -> int:
        return len(self.effects)

    def to_arrow(self) -> pa.Table:
        """One row a feature."""
        import pyarrow as pa

        kind = pa.struct([("token", pa.string()), ("probability", pa.float64()), ("log_probability", pa.float64())])
        columns: dict[str, Any] = {name: [getattr(effect, name) for effect in self.effects] for name in _COLUMNS}
        for name in ("promoted", "suppressed"):
            lists = [[one._asdict() for one in getattr(effect, name)] for effect in self.effects]
            columns[name] = pa.array(lists, pa.list_(kind))
        return pa.table(columns)

    def to_pandas(self) -> pd.DataFrame:
        """One row a feature."""
        return self.to_arrow().to_pandas()

    def __str__(self) -> str:
        lines = [
            self.title,
            f"{'feature':>8} {'firings':>8} {'loss':>9} {'per firing':>11} {'KL there':>9}  makes likelier",
        ]
        for effect in self.effects:
            said = ", ".join(f"{one.token} {one.probability:+.3f}" for one in effect.promoted[:6])
            lines.append(
                f"{effect.feature:>8} {effect.firings:>8} {effect.loss_change:>+9.3f} {effect.per_firing:>+11.4f} "
                f"{effect.kl_at_firings:>9.4f}  {said}{f'  [{effect.label}]' if effect.label else ''}"
            )
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = []
        for effect in self.effects:
            lists = [", ".join(f"{cell(one.token)} {one.probability:+.3f}" for one in pairs)
                     for pairs in (effect.promoted, effect.suppressed)]  # fmt: skip
            name = f"#{effect.feature}{f' · {effect.label}' if effect.label else ''}"
            figures = (effect.firings, effect.loss_change, effect.per_firing, effect.kl_at_firings)
            rows.append([cell(name), *map(cell, figures), *lists])
        head = ("feature", "firings", "loss without it (nats)", "per firing", "KL where it fires")
        return page(
            f"<p><b>{cell(self.title)}</b></p>",
            table((*head, "makes likelier", "makes less likely"), rows),
            notes=self.notes,
        )


@dataclass(frozen=True)
class Attribution:
    """Estimates for all features.

    Attributes:
        change_F: float64 [F], estimated change of the summed loss if the feature were taken out, in nats. Above 0: it helps.
        firings_F: int64 [F], rows at which it fires.
        largest_F: float32 [F], its largest activation.
        positions: scored positions.
        names: labels.
        title: SAE, hook and model.
        notes: what a reader should know.
    """

    change_F: npt.NDArray[np.float64]
    firings_F: npt.NDArray[np.int64]
    largest_F: npt.NDArray[np.float32]
    positions: int
    names: FeatureNames
    title: str
    notes: tuple[str, ...]

    def strongest(self, top: int = 20) -> list[int]:
        """Features with the largest estimates in either direction, of those that fire."""
        order = np.lexsort((np.arange(len(self.change_F)), -np.abs(self.change_F)))
        return [int(feature) for feature in order[:top] if self.firings_F[feature]]

    def to_arrow(self) -> pa.Table:
        """One row a feature that fires, the strongest first."""
        import pyarrow as pa

        chosen = self.strongest(len(self.change_F))
        return pa.table(
            {
                "feature": pa.array(chosen, pa.int32()),
                "label": pa.array([self.names.label(feature) for feature in chosen], pa.string()),
                "firings": self.firings_F[chosen],
                "largest": self.largest_F[chosen],
                "estimate": self.change_F[chosen],
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a feature that fires, the strongest first."""
        return self.to_arrow().to_pandas()

    def _rows(self) -> Sequence[tuple[str, int, float]]:
        return [(self.names.title(j), int(self.firings_F[j]), float(self.change_F[j])) for j in self.strongest(20)]

    def __str__(self) -> str:
        lines = [
            self.title,
            f"{self.positions} positions; estimated change of the loss if a feature were taken out (nats)",
        ]
        lines += [f"{change:>+9.3f}  {firings:>6} firings  {name}" for name, firings, change in self._rows()]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = [[cell(part) for part in row] for row in self._rows()]
        head = f"<p><b>{cell(self.title)}</b><br>{self.positions} positions</p>"
        return page(head, table(("feature", "firings", "estimated loss without it (nats)"), rows), notes=self.notes)


@dataclass(frozen=True)
class EffectComparison:
    """Estimate and truth of the same features on the same texts.

    Attributes:
        features: int32 [J].
        estimate: float64 [J], change of the summed loss by attribution, in nats.
        truth: float64 [J], by ablation.
        firings: int64 [J].
        names: labels.
        title: SAE, hook and model.
    """

    features: npt.NDArray[np.int32]
    estimate: npt.NDArray[np.float64]
    truth: npt.NDArray[np.float64]
    firings: npt.NDArray[np.int64]
    names: FeatureNames
    title: str

    @property
    def correlation(self) -> float:
        """Pearson correlation of estimate and truth; NaN for fewer than 3 features or without spread."""
        return _correlation(self.estimate, self.truth)

    @property
    def rank_correlation(self) -> float:
        """Spearman's, likewise."""
        return _correlation(_ranks(self.estimate), _ranks(self.truth))

    @property
    def slope(self) -> float:
        """Truth over estimate, least squares through 0: above 1, the estimates are too small. NaN if all estimates are 0."""
        power = float((self.estimate**2).sum())
        return float((self.estimate * self.truth).sum()) / power if power > 0 else float("nan")

    @property
    def relative_error(self) -> float:
        """Sum of |estimate - truth| over sum of |truth|; NaN if all truths are 0."""
        total = float(np.abs(self.truth).sum())
        return float(np.abs(self.estimate - self.truth).sum()) / total if total > 0 else float("nan")

    @property
    def same_sign(self) -> float:
        """Share of features whose estimate has the right sign."""
        return float((np.sign(self.estimate) == np.sign(self.truth)).mean())

    def to_arrow(self) -> pa.Table:
        """One row a feature, with the error of its estimate."""
        import pyarrow as pa

        return pa.table(
            {
                "feature": self.features,
                "label": [self.names.label(int(feature)) for feature in self.features],
                "firings": self.firings,
                "estimate": self.estimate,
                "truth": self.truth,
                "error": self.estimate - self.truth,
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a feature, with the error of its estimate."""
        return self.to_arrow().to_pandas()

    def _facts(self) -> str:
        return (
            f"{len(self.features)} features; correlation {self.correlation:.3f} (ranks {self.rank_correlation:.3f}), "
            f"truth = {self.slope:.2f} x estimate, relative error {self.relative_error:.0%}, right sign {self.same_sign:.0%}"
        )

    def _rows(self) -> Sequence[tuple[str, int, float, float, float]]:
        return [
            (self.names.title(int(feature)), int(firings), float(guess), float(truth), float(guess - truth))
            for feature, firings, guess, truth in zip(
                self.features, self.firings, self.estimate, self.truth, strict=True
            )
        ]

    def __str__(self) -> str:
        lines = [self.title, self._facts(), f"{'estimate':>10} {'truth':>10} {'error':>10} {'firings':>8}"]
        lines += [f"{g:>+10.3f} {t:>+10.3f} {e:>+10.3f} {n:>8}  {name}" for name, n, g, t, e in self._rows()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [[cell(part) for part in row] for row in self._rows()]
        head = f"<p><b>{cell(self.title)}</b><br>{cell(self._facts())}</p>"
        return page(head, table(("feature", "firings", "estimate (nats)", "truth", "error"), rows))


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks, equal values sharing their mean."""
    ordered = np.sort(values)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    ranks: npt.NDArray[np.float64] = (low + high - 1) / 2.0
    return ranks
