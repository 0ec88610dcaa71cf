"""What to hold a measured SAE against: the truth read by the simplest encoder, random directions, an untrained SAE, and probes.

Shapes: N rows, D width, G truths, F latents, S scores (one a truth), H bins of a histogram.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import RowSource
from neuronmap.errors import ConfigError
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.synthetic.measures import MEASURE_STREAM, estimate_means
from neuronmap.evaluation.synthetic.model import BLOCK_ROWS, SyntheticModel
from neuronmap.evaluation.synthetic.rows import SyntheticRows
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.options import TopKOptions
from neuronmap.training import SAEConfig

__all__ = [
    "CALIBRATION_STREAM",
    "OracleSAE",
    "explained_variance_ceiling",
    "probe_ceiling",
    "random_decoder",
    "untrained_sae",
]

CALIBRATION_STREAM = "calibrate"
"""Stream of rows that thresholds are fitted on."""
_BINS = 200
_CALIBRATION_BATCH = 4096


class OracleSAE:
    """The true directions as decoder, and as encoder too:  f_g = (x - bias)·d_g  where that is above a threshold, else 0.

    Directions, cosines and latents are perfect; what it lacks in precision and recall is what superposition takes from an encoder
    that looks at each feature by itself.

    Args:
        model: the truth.
        threshold_G: [G], above which a feature is taken to fire.
    """

    architecture = "oracle"

    def __init__(self, model: SyntheticModel, threshold_G: Tensor) -> None:
        self.W_dec, self.b_dec, self.threshold_G = model.dictionary_GD, model.bias_D, threshold_G
        self.d_sae, self.d_in = model.dictionary_GD.shape
        self.device = model.device

    @classmethod
    def fit(cls, model: SyntheticModel, rows: int = 32_768) -> Self:
        """Choose each threshold, of 200, so that F1 on calibration rows is largest."""
        highest_G = (model.mean_G + 4 * model.std_G).clamp_min(1e-6)
        fit = _ThresholdFit(torch.zeros_like(highest_G), highest_G)
        for start in range(0, rows, BLOCK_ROWS):
            x_ND, truth = model.sample(start, min(start + BLOCK_ROWS, rows), CALIBRATION_STREAM)
            fit.add((x_ND - model.bias_D) @ model.dictionary_GD.T, truth.dense() > 0)
        return cls(model, fit.thresholds())

    def encode(self, x: Tensor) -> Tensor:
        pre = (x - self.b_dec) @ self.W_dec.T
        return torch.where(pre > self.threshold_G, pre, 0.0)

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.b_dec


class _ThresholdFit:
    """Thresholds with the best F1, from histograms of scores of positives and negatives.

    Args:
        low_S, high_S: the range of each score; a bin's lower edge is a possible threshold, ``low`` the first.
    """

    def __init__(self, low_S: Tensor, high_S: Tensor) -> None:
        self._low_S, self._step_S = low_S, (high_S - low_S) / _BINS
        shape = (len(low_S), _BINS + 1)
        self._on_SH = torch.zeros(shape, dtype=torch.int64, device=low_S.device)
        self._all_SH = torch.zeros_like(self._on_SH)
        self._positives_S = torch.zeros(len(low_S), dtype=torch.int64, device=low_S.device)

    def add(self, score_NS: Tensor, positive_NS: Tensor) -> None:
        """Count scores; bin 0 holds what is not above ``low``."""
        bin_NS = (((score_NS - self._low_S) / self._step_S).ceil()).clamp_(0, _BINS).long()
        place_NS = bin_NS + torch.arange(len(self._low_S), device=bin_NS.device) * (_BINS + 1)
        size = self._all_SH.numel()
        self._all_SH += torch.bincount(place_NS.view(-1), minlength=size).view_as(self._all_SH)
        self._on_SH += torch.bincount(place_NS[positive_NS], minlength=size).view_as(self._on_SH)
        self._positives_S += positive_NS.sum(0)

    def thresholds(self) -> Tensor:
        """[S]; the highest where no threshold catches a positive."""
        # above the lower edge of bin h + 1 lie bins h + 1 and on
        hit_SH, called_SH = (t.flip(1).cumsum(1).flip(1)[:, 1:].double() for t in (self._on_SH, self._all_SH))
        f1_SH = 2 * hit_SH / (called_SH + self._positives_S.unsqueeze(1)).clamp_min(1)
        best_S = torch.where(f1_SH.amax(1) > 0, f1_SH.argmax(1), _BINS)
        return self._low_S + self._step_S * best_S


def random_decoder(model: SyntheticModel, d_sae: int, k: int, seed: int = 1000) -> SparseAutoencoder:
    """A TopK SAE of random unit directions, the same ones as encoder, and the rows' mean as bias: what chance gives."""
    sae = get_architecture("topk")(model.config.d_in, d_sae, TopKOptions(k=k), device=model.device)
    statistics = SyntheticRows(model, 16 * BLOCK_ROWS, CALIBRATION_STREAM).statistics
    sae.initialise(statistics.mean_D.float(), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        sae.W_enc.copy_(sae.W_dec.T)
    return sae.requires_grad_(False).eval()


def untrained_sae(config: SAEConfig, source: RowSource, rows: int = 16_384) -> SparseAutoencoder:
    """The SAE that a training run of this configuration starts from, calibrated on rows and folded as a trained one is.

    Args:
        config: of the run; its seed is that of the initialisation.
        source: what it would be trained on.
        rows: how many of its rows the threshold is fitted on, where the architecture has one.

    Raises:
        ConfigError: for options that do not fit the width.
    """
    statistics = source.statistics
    scale = 1.0 / math.sqrt(statistics.mean_square_norm)
    sae = get_architecture(config.resolved_architecture)(
        source.width, config.width(source.width), config.sae_options(source.width)
    )
    sae.initialise(statistics.mean_D.float() * scale, torch.Generator().manual_seed(config.seed))
    count = min(rows, source.num_rows)
    starts = range(0, count, _CALIBRATION_BATCH)
    sae.calibrate(lambda: (source.read(at, min(at + _CALIBRATION_BATCH, count)).float() * scale for at in starts))
    sae.fold_input_scale(scale)
    return sae.requires_grad_(False).eval()


def explained_variance_ceiling(model: SyntheticModel, rows: int = 16_384, stream: str = MEASURE_STREAM) -> float:
    """Explained variance of the true code with the true directions: 1 less the share of the variance that is noise."""
    noise = total = 0.0
    mean_D = torch.zeros(model.config.d_in, dtype=torch.float64, device=model.device)
    for start in range(0, rows, BLOCK_ROWS):
        x_ND, truth = model.sample(start, min(start + BLOCK_ROWS, rows), stream)
        noise += float((x_ND - model.compose(truth)).double().square().sum())
        total += float(x_ND.double().square().sum())
        mean_D += x_ND.double().sum(0)
    return 1 - noise / (total - float(mean_D.square().sum()) / rows)


def probe_ceiling(
    model: SyntheticModel,
    *,
    truths: int = 100,
    among: int | None = None,
    rows: int = 32_768,
    penalty: float = 1e-4,
    iterations: int = 100,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean F1 of supervised logistic probes, one a truth: what a linear encoder with a threshold can reach (arXiv 2602.14687).

    Each probe is fitted by L-BFGS on ``rows`` rows, its threshold chosen for F1 on as many others, its F1 taken on as many again.
    Rare truths have few positives to learn from, and the ceiling over all of them is low for that reason and rises with ``rows``. An SAE
    with F latents finds about the F most frequent truths: hold it against the ceiling among those.

    Args:
        model: the truth.
        truths: how many truths to probe, evenly spread from the most frequent to the rarest.
        among: probe only among so many of the most frequent; None for all.
        rows: rows of each of the three parts.
        penalty: weight of the squared weights in the mean cross-entropy.
        iterations: of L-BFGS, at most.
        bootstrap, seed: resamples over truths, and their seed.

    Returns:
        The mean over the probed truths that fired in the last part, with its error.

    Raises:
        ConfigError: for less than one truth or row.
    """
    if truths < 1 or rows < 1 or (among is not None and among < 1):
        raise ConfigError(f"truths = {truths}, among = {among} and rows = {rows} must each be at least 1.")
    last = min(among or model.config.features, model.config.features)
    chosen = np.unique(np.linspace(0, last - 1, min(truths, last)).round().astype(int))
    chosen_S = torch.from_numpy(chosen).to(model.device)
    x_ND, y_NS = _probe_rows(model, chosen_S, 0, rows, CALIBRATION_STREAM)
    mean_D, std_D = x_ND.mean(0), x_ND.std(0).clamp_min(1e-6)
    weight_DS, bias_S = _fit_logistic((x_ND - mean_D) / std_D, y_NS.float(), penalty, iterations)

    def probability(x_nD: Tensor) -> Tensor:
        return ((x_nD - mean_D) / std_D @ weight_DS + bias_S).sigmoid()

    fit = _ThresholdFit(torch.zeros_like(bias_S), torch.ones_like(bias_S))
    x_ND, y_NS = _probe_rows(model, chosen_S, rows, 2 * rows, CALIBRATION_STREAM)
    fit.add(probability(x_ND), y_NS)
    x_ND, y_NS = _probe_rows(model, chosen_S, 0, rows, MEASURE_STREAM)
    called_NS = probability(x_ND) > fit.thresholds()
    both_S = (called_NS & y_NS).sum(0).double()
    f1_S = 2 * both_S / (called_NS.sum(0) + y_NS.sum(0)).clamp_min(1)
    f1_S = torch.where(y_NS.any(0), f1_S, torch.nan)
    return estimate_means({"f1": f1_S}, bootstrap, seed, "no probed truth fired")["f1"]


def _probe_rows(model: SyntheticModel, chosen_S: Tensor, start: int, stop: int, stream: str) -> tuple[Tensor, Tensor]:
    """Rows [N, D], and whether each chosen truth fires [N, S]."""
    xs, ys = [], []
    for at in range(start, stop, BLOCK_ROWS):
        x_ND, truth = model.sample(at, min(at + BLOCK_ROWS, stop), stream)
        xs.append(x_ND)
        ys.append(truth.dense()[:, chosen_S] > 0)
    return torch.cat(xs), torch.cat(ys)


def _fit_logistic(x_ND: Tensor, y_NS: Tensor, penalty: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Weights [D, S] and biases [S] of S logistic regressions at once, by the gradient written out."""
    N, S = y_NS.shape
    rate_S = y_NS.mean(0).clamp(1e-6, 1 - 1e-6)
    weight_DS = torch.zeros(x_ND.shape[1], S, device=x_ND.device, requires_grad=True)
    bias_S = torch.logit(rate_S).requires_grad_(True)
    solver = torch.optim.LBFGS([weight_DS, bias_S], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        with torch.no_grad():
            logit_NS = torch.addmm(bias_S, x_ND, weight_DS)
            total = torch.nn.functional.binary_cross_entropy_with_logits(logit_NS, y_NS, reduction="sum") / N
            error_NS = logit_NS.sigmoid_().sub_(y_NS).div_(N)
            weight_DS.grad = (x_ND.T @ error_NS).add_(weight_DS, alpha=2 * penalty)
            bias_S.grad = error_NS.sum(0)
            return float(total + penalty * weight_DS.square().sum())

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight_DS.detach(), bias_S.detach()
