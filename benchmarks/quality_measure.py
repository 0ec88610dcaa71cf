"""Measuring every library's SAE with the one meter, on the same held-out rows, in raw activation space.

Shapes: N rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from neuronmap.paths import read_json
from neuronmap.saes import ReconstructionMeter

METERED = (
    "explained_variance",
    "explained_variance_median",
    "l0",
    "cosine",
    "norm_ratio",
    "fraction_alive",
    "dead_at_n",
)
_CHUNK = 1024
_CHECK_TOLERANCE = 1e-3


class Autoencoder(Protocol):
    """What is measured."""

    @property
    def d_in(self) -> int: ...

    @property
    def d_sae(self) -> int: ...

    @property
    def W_dec(self) -> Tensor: ...  # noqa: N802

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, f: Tensor) -> Tensor: ...


@dataclass
class PeerSAE:
    """A peer's SAE for raw activations: its weights and the rule it infers by.

    Attributes:
        rule: ``relu``; ``topk`` (the k largest, then ReLU); ``jumprelu`` (ReLU where above the threshold).
        threshold_F: for ``jumprelu``.
        k: for ``topk``.
        subtract_b_dec: whether the encoder sees x - b_dec.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    rule: Literal["relu", "topk", "jumprelu"]
    threshold_F: Tensor | None
    k: int
    subtract_b_dec: bool

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PeerSAE:
        """Read what a peer's script wrote."""
        tensors, result = load_file(folder / "weights.safetensors", device), read_json(folder / "result.json")
        return cls(
            W_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            W_dec=tensors["W_dec"],
            b_dec=tensors["b_dec"],
            rule=result["rule"],
            threshold_F=tensors.get("threshold"),
            k=result["k"],
            subtract_b_dec=result["subtract_b_dec"],
        )

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def pre_activations(self, x: Tensor) -> Tensor:
        """[N, F] before the rule."""
        return (x - self.b_dec if self.subtract_b_dec else x) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """[N, F] by the rule."""
        pre_NF = self.pre_activations(x)
        if self.rule == "topk":
            values_NK, index_NK = pre_NF.topk(self.k, dim=-1)
            return torch.zeros_like(pre_NF).scatter_(-1, index_NK, values_NK.relu_())
        if self.rule == "jumprelu" and self.threshold_F is not None:
            return pre_NF.relu() * (pre_NF > self.threshold_F)
        return pre_NF.relu()

    def decode(self, f: Tensor) -> Tensor:
        """[N, D]."""
        return f @ self.W_dec + self.b_dec

    def check(self, folder: Path, heldout_ND: Tensor) -> float:
        """Relative difference from what the peer's own code reconstructs; stops if they are not the same SAE."""
        theirs_ND = load_file(folder / "check.safetensors", str(self.W_dec.device))["reconstruction"]
        ours_ND = self.decode(self.encode(heldout_ND[: len(theirs_ND)].to(theirs_ND)))
        difference = float((ours_ND - theirs_ND).norm() / theirs_ND.norm().clamp_min(1e-12))
        if not difference < _CHECK_TOLERANCE:
            raise SystemExit(
                f"{folder}: the weights do not give the peer's own reconstruction (differs by {difference:.2g})."
            )
        return difference

    def recalibrated(self, rows_ND: Tensor) -> PeerSAE:
        """The same SAE with one threshold for all features, chosen so that L0 is k on these rows.

        SAELens' running threshold starts at 0 and lags for hundreds of steps, dictionary_learning's is not set before
        step 1000: in short runs the saved thresholds say nothing about the training method.
        """
        wanted = self.k * len(rows_ND)
        kept = torch.empty(0, device=self.W_dec.device)
        for x_ND in torch.split(rows_ND, _CHUNK):
            pre_NF = self.pre_activations(x_ND.to(self.W_dec))
            kept = torch.cat([kept, pre_NF[pre_NF > 0]])
            if len(kept) > wanted + 1:
                kept = kept.topk(wanted + 1, sorted=False).values
        threshold = float(kept.min()) if len(kept) > wanted else 0.0
        return PeerSAE(**{**self.__dict__, "threshold_F": torch.full_like(self.b_enc, threshold)})


@torch.inference_mode()
def measure(sae: Autoencoder, rows_ND: Tensor) -> dict[str, Any]:
    """The meter's figures for rows [N, D] of raw activations; they may lie elsewhere than the SAE."""
    meter = ReconstructionMeter(sae.d_in, sae.d_sae)
    device = sae.W_dec.device
    norms_F = torch.linalg.vector_norm(sae.W_dec.detach(), dim=1)
    for x_ND in torch.split(rows_ND, _CHUNK):
        x_ND = x_ND.to(device)
        f_NF = sae.encode(x_ND)
        meter.update(x_ND, sae.decode(f_NF), f_NF, norms_F)
    found = meter.result()
    return {name: getattr(found, name) for name in METERED}


@dataclass(frozen=True)
class AtCommonL0:
    """Figures at the L0 to compare at.

    Attributes:
        figures: at that L0; None where a run has none.
        how: ``measured``, ``interpolated`` (linear in log L0 between the runs on both sides) or ``nearest``
            (no run lies on the other side: not a fair figure, and shown as such).
        l0: of the runs it rests on.
    """

    figures: dict[str, float | None]
    how: Literal["measured", "interpolated", "nearest"]
    l0: tuple[float, ...]

    @property
    def explained_variance(self) -> float:
        value = self.figures["explained_variance"]
        if value is None:
            raise KeyError("explained_variance")
        return value


SAME_L0 = 0.02


def at_common_l0(runs: Sequence[dict[str, Any]], target: float) -> AtCommonL0 | None:
    """Figures at L0 = ``target`` from measured runs of one method at several sparsities.

    Args:
        runs: figures by name, ``l0`` and ``explained_variance`` among them.
        target: the common L0.

    Returns:
        None if no run has an explained variance (nothing ever fires).
    """
    usable = [run for run in runs if run["l0"] and run["explained_variance"] is not None]
    if not usable:
        return None
    distance = {id(run): math.log(run["l0"] / target) for run in usable}
    nearest = min(usable, key=lambda run: abs(distance[id(run)]))
    below = [run for run in usable if distance[id(run)] <= 0]
    above = [run for run in usable if distance[id(run)] >= 0]
    names = [name for name in nearest if name != "l0"]
    if abs(distance[id(nearest)]) <= SAME_L0 or not below or not above:
        how: Literal["measured", "nearest"] = "measured" if abs(distance[id(nearest)]) <= SAME_L0 else "nearest"
        return AtCommonL0({name: nearest[name] for name in names}, how, (nearest["l0"],))
    low = max(below, key=lambda run: distance[id(run)])
    high = min(above, key=lambda run: distance[id(run)])
    share = -distance[id(low)] / (distance[id(high)] - distance[id(low)])

    def between(name: str) -> float | None:
        first, last = low.get(name), high.get(name)
        return None if first is None or last is None else first + share * (last - first)

    return AtCommonL0({name: between(name) for name in names}, "interpolated", (low["l0"], high["l0"]))


def next_knob(tried: Sequence[tuple[float, float]], target: float, rising: bool, start: float) -> float | None:
    """The next value of a sparsity knob to try, or None when the target is bracketed closely enough.

    Args:
        tried: ``(knob, L0)`` of the runs so far.
        target: the L0 to bracket.
        rising: whether L0 rises with the knob.
        start: the first value.

    The knob moves on a log-log line through the two nearest runs (slope 1 before there are two), a little beyond the
    target, so that two or three runs lie on both sides of it.
    """
    if not tried:
        return start
    points = sorted((math.log(knob), math.log(max(l0, 1e-2) / target)) for knob, l0 in tried)
    below = [point for point in points if point[1] <= 0]
    above = [point for point in points if point[1] >= 0]
    nearest = min(points, key=lambda point: abs(point[1]))
    if abs(nearest[1]) <= SAME_L0:
        return None
    if below and above:
        low, high = max(below, key=lambda p: p[1]), min(above, key=lambda p: p[1])
        if high[1] - low[1] <= math.log(2.0):
            return None
        return math.exp(low[0] + (high[0] - low[0]) * -low[1] / (high[1] - low[1]))
    # All on one side: from the knob that went furthest the right way (several may sit on the same saturated L0).
    more = (nearest[1] < 0) == rising
    knob, off = max(points, key=lambda point: point[0] if more else -point[0])
    step = min(math.log(8), abs(off) + math.log(1.15))
    return math.exp(knob + (step if more else -step))
