"""Labels and largest activations of features, from a feature store if there is one.

Shapes: F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError, MismatchError

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["FeatureNames"]


class FeatureNames:
    """What to call features, and what their activations are measured against.

    Args:
        store: the feature store of the SAE; None without one.
        num_features: F of the SAE.
        digest: of the SAE's weights, if it is known.

    Raises:
        MismatchError: the store is of another SAE.
    """

    def __init__(self, store: FeatureStore | None, num_features: int, digest: str | None = None) -> None:
        if store is not None and store.num_features != num_features:
            raise MismatchError(
                f"The feature store is of an SAE with {store.num_features:,} features; this one has {num_features:,}."
            )
        analysed = store.facts.get("pass", {}).get("sae_digest") if store is not None else None
        if digest is not None and analysed is not None and digest != analysed:
            raise MismatchError(f"The feature store is of an SAE with the weights {analysed}; this one has {digest}.")
        self.store = store
        self.num_features = num_features
        self._labels: list[str | None] | None = None
        self._maxima: npt.NDArray[np.float32] | None = None

    def label(self, feature: int) -> str:
        """Its label; empty if it has none."""
        if self.store is None or "hints" not in self.store.tables.names:
            return ""
        if self._labels is None:  # all at once: a text may fire thousands of features
            self._labels = [None] * self.num_features
            table = self.store.tables.read("hints", ["feature", "label"])
            for number, label in zip(table["feature"].to_pylist(), table["label"].to_pylist(), strict=True):
                self._labels[number] = label
        return self._labels[feature] or ""

    def title(self, feature: int) -> str:
        """``#17 · label``."""
        label = self.label(feature)
        return f"#{feature} · {label}" if label else f"#{feature}"

    @property
    def maxima(self) -> npt.NDArray[np.float32] | None:
        """float32 [F], largest activation of each feature in the analysed text, 0 for those that never fired; None without a store."""
        if self.store is None:
            return None
        if self._maxima is None:
            column = self.store.tables.read("features", ["max"])["max"]
            self._maxima = np.nan_to_num(column.to_numpy().astype(np.float32))
        return self._maxima

    def maximum(self, feature: int) -> float | None:
        """Largest activation of a feature in the analysed text; None if that is not known or it never fired."""
        maxima_F = self.maxima
        return None if maxima_F is None or maxima_F[feature] <= 0 else float(maxima_F[feature])

    def require_maximum(self, feature: int) -> float:
        """The same.

        Raises:
            InputError: it is not known.
        """
        found = self.maximum(feature)
        if found is not None:
            return found
        why = "there is no feature store" if self.store is None else "it never fired in the analysed text"
        raise InputError(
            f"The largest activation of feature {feature} is not known: {why}.",
            hint="Give store=, or a strength in activations (unit='activation').",
        )
