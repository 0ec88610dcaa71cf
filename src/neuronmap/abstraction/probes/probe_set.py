"""The probes of one concept, kept: enough to follow the concept through a prompt without measuring again.

Legend: L layers, C columns, W width, D principal components, R resamples, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.abstraction.measuring.concept import Measured

__all__ = ["ProbeSet", "probes_of"]

_COMPONENTS = 32
_RESAMPLES = 20
_DOMAIN = 0.99


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Probes with their calibration and the domain they are good for; float32.

    Attributes:
        mean_LW, std_LW: standardisation.
        w_LCW, b_LC: score = z . w + b.
        delta_LCW: differences of class means, in standardised units.
        slope_LC, offset_LC: log-odds = slope * score + offset.
        low_LC, high_LC: log-odds on the calibration items; beyond them the curve is a guess.
        w_RLCW, b_RLC: probes of resampled training clusters.
        basis_LDW: principal directions of the training items.
        scale_LD: standard deviations along them.
        rest_L: mean squared length of what lies outside of them.
        limit_L: 99th percentile of the distance of items whose clusters the probes have not seen.
        significant_L: 1 where the concept's score is above the null.
    """

    mean_LW: Tensor
    std_LW: Tensor
    w_LCW: Tensor
    b_LC: Tensor
    delta_LCW: Tensor
    slope_LC: Tensor
    offset_LC: Tensor
    low_LC: Tensor
    high_LC: Tensor
    w_RLCW: Tensor
    b_RLC: Tensor
    basis_LDW: Tensor
    scale_LD: Tensor
    rest_L: Tensor
    limit_L: Tensor
    significant_L: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """All fields by name, as a safetensors file holds them."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ProbeSet:
        """What :meth:`to_tensors` gave."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})

    def standardized(self, x_LTW: Tensor) -> Tensor:
        """Activations [L, T, W] in the probes' units."""
        return (x_LTW - self.mean_LW[:, None]) / self.std_LW[:, None]

    def log_odds(self, z_LTW: Tensor) -> Tensor:
        """Calibrated log-odds [L, T, C], clipped to the calibration's range."""
        return self._clipped(z_LTW @ self.w_LCW.transpose(1, 2) + self.b_LC[:, None])

    def resampled_log_odds(self, z_LTW: Tensor) -> Tensor:
        """The same by the probes of resampled training clusters: [R, L, T, C]."""
        return torch.stack(
            [
                self._clipped(z_LTW @ w_LCW.transpose(1, 2) + b_LC[:, None])
                for w_LCW, b_LC in zip(self.w_RLCW, self.b_RLC, strict=True)
            ]
        )

    def _clipped(self, scores_LTC: Tensor) -> Tensor:
        odds_LTC = self.slope_LC[:, None] * scores_LTC + self.offset_LC[:, None]
        return torch.minimum(torch.maximum(odds_LTC, self.low_LC[:, None]), self.high_LC[:, None])

    def distance(self, z_LTW: Tensor) -> Tensor:
        """Squared Mahalanobis distance [L, T], by a covariance of D directions and one variance for all others."""
        parts_LTD = z_LTW @ self.basis_LDW.transpose(1, 2)
        inside_LT = (parts_LTD / self.scale_LD[:, None].clamp_min(1e-6)).square().sum(2)
        outside_LT = (z_LTW.square().sum(2) - parts_LTD.square().sum(2)).clamp_min(0)
        return inside_LT + self.basis_LDW.shape[1] * outside_LT / self.rest_L[:, None].clamp_min(1e-6)

    def in_domain(self, z_LTW: Tensor) -> Tensor:
        """Whether rows lie where the calibration items do: bool [L, T]."""
        return self.distance(z_LTW) <= self.limit_L[:, None]


def probes_of(measured: Measured, seed: int) -> ProbeSet:
    """The probes of one measurement.

    Args:
        measured: the measurement.
        seed: of the resampled training clusters.
    """
    frame, fit, result = measured.frame, measured.within.fit, measured.result
    targets_NC = frame.labels.targets()
    directions = fit.directions(targets_NC[fit.rows_T])
    w_RLCW, b_RLC = _resampled(measured, seed)
    z_LTW = fit.space.z_LNW[:, fit.rows_T]
    basis_LDW, scale_LD = _principal(z_LTW)
    parts_LTD = z_LTW @ basis_LDW.transpose(1, 2)
    rest_L = (z_LTW.square().sum(2) - parts_LTD.square().sum(2)).clamp_min(0).mean(1)
    score = result.within if result.cross is None else result.cross.mean
    significant = [
        float(p is not None and p < 0.05 and s is not None and s > 0.5)
        for p, s in zip(result.p_value, score.score, strict=True)
    ]
    calibration = measured.calibration
    probes = ProbeSet(
        mean_LW=fit.space.mean_LW,
        std_LW=fit.space.std_LW,
        w_LCW=directions.w_LCW,
        b_LC=directions.b_LC,
        delta_LCW=fit.differences(targets_NC[fit.rows_T]),
        slope_LC=calibration.slope_LC.float(),
        offset_LC=calibration.offset_LC.float(),
        low_LC=calibration.low_LC.float(),
        high_LC=calibration.high_LC.float(),
        w_RLCW=w_RLCW,
        b_RLC=b_RLC,
        basis_LDW=basis_LDW,
        scale_LD=scale_LD,
        rest_L=rest_L,
        limit_L=torch.zeros(len(rest_L)),
        significant_L=torch.tensor(significant),
    )
    unseen_N = torch.cat([frame.rows("calibration"), frame.rows("test")])
    distance_LN = probes.distance(fit.space.z_LNW[:, unseen_N])
    limits = {"limit_L": torch.quantile(distance_LN, _DOMAIN, dim=1)}
    return ProbeSet(**{**{field.name: getattr(probes, field.name) for field in fields(probes)}, **limits})


def _resampled(measured: Measured, seed: int) -> tuple[Tensor, Tensor]:
    """Probes of resampled training clusters, with the scale and the ridge of the fit on all of them: rows of its Gram matrix again."""
    frame, fit = measured.frame, measured.within.fit
    generator = np.random.default_rng(seed)
    label_T, cluster_T = frame.labels.label_N[fit.rows_T], frame.cluster_ids[fit.rows_T]
    targets_TC = frame.labels.targets()[fit.rows_T].float()
    gram_LTT, z_LTW = fit.gram_LNT[:, fit.rows_T].float(), fit.space.z_LNW[:, fit.rows_T]
    ridge_L = fit.ridge_L.clamp_min(0.01).float()
    names = torch.unique(cluster_T).numpy()
    w, b = [], []
    for _ in range(_RESAMPLES):
        rows_S = _drawn(names, cluster_T, label_T, frame.labels.classes, generator)
        system_LSS = gram_LTT[:, rows_S[:, None], rows_S[None]]
        system_LSS.diagonal(dim1=1, dim2=2).add_(ridge_L[:, None])
        mean_C = targets_TC[rows_S].mean(0)
        wanted_LSC = (targets_TC[rows_S] - mean_C).expand(len(ridge_L), -1, -1)
        weights_LSC = torch.cholesky_solve(wanted_LSC, torch.linalg.cholesky(system_LSS))
        summed_LTC = torch.zeros(len(ridge_L), *targets_TC.shape).index_add_(1, rows_S, weights_LSC)
        w.append((summed_LTC / fit.size_L[:, None, None].float()).transpose(1, 2) @ z_LTW)
        b.append(mean_C.expand(len(ridge_L), -1))
    return torch.stack(w), torch.stack(b)


def _drawn(
    names: npt.NDArray[np.int64], cluster_T: Tensor, label_T: Tensor, classes: int, generator: np.random.Generator
) -> Tensor:
    """Rows of clusters drawn with replacement, with every class among them (all rows, if twenty draws lack one)."""
    for _ in range(20):
        drawn = generator.choice(names, size=len(names))
        rows_S = torch.cat([torch.nonzero(cluster_T == int(name)).squeeze(1) for name in drawn])
        if len(set(label_T[rows_S].tolist())) == classes:
            return rows_S
    return torch.arange(len(cluster_T))


def _principal(z_LTW: Tensor) -> tuple[Tensor, Tensor]:
    """Principal directions [L, D, W] and standard deviations along them [L, D]."""
    count = min(_COMPONENTS, z_LTW.shape[1] - 1, z_LTW.shape[2])
    values_LT, vectors_LTT = torch.linalg.eigh((z_LTW @ z_LTW.transpose(1, 2)).double())
    values_LD = values_LT[:, -count:].flip(1).clamp_min(0)
    vectors_LTD = vectors_LTT[:, :, -count:].flip(2)
    length_LD = values_LD.sqrt()
    sound_LD = length_LD > length_LD[:, :1] * 1e-5
    inverse_LD = torch.where(sound_LD, 1 / length_LD.clamp_min(1e-30), 0.0)
    basis_LDW = ((vectors_LTD * inverse_LD[:, None]).transpose(1, 2)).float() @ z_LTW
    return basis_LDW, (values_LD / z_LTW.shape[1]).sqrt().float()
