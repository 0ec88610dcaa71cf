"""From sums to figures with errors: which quotient of which totals each metric is.

Shapes: R resamples (1 for the exact totals), D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuronmap.evaluation.bootstrap import Resampler, Totals, ratio
from neuronmap.evaluation.density import dead_density_bound, density_histogram
from neuronmap.evaluation.metrics import Behaviour, Estimate, Reconstruction, Sparsity, Spread, Weights
from neuronmap.evaluation.rows import RowSums
from neuronmap.evaluation.splice import SplicedSums

__all__ = ["behaviour_of", "reconstruction_of", "sparsity_of", "weights_of"]

_LEAST_EFFECT_NATS = 1e-6
"""An ablation that changes the loss by less than float32 log-probabilities resolve is no yardstick."""


def explained_variance(totals: Totals) -> Tensor:
    """[R]: 1 - E|r|^2 / (E|x|^2 - |E x|^2)."""
    return 1.0 - ratio(totals["r2"], totals["x2"] - totals["x_D"].square().sum(-1) / totals["rows"])


def explained_variance_median(totals: Totals, varies_D: Tensor) -> Tensor:
    """[R]: median over the dimensions that vary of 1 - E r_d^2 / Var x_d."""
    variance_RD = totals["x2_D"] - totals["x_D"].square() / totals["rows"].unsqueeze(-1)
    return (1.0 - ratio(totals["r2_D"], variance_RD))[:, varies_D].quantile(0.5, dim=1)


def quotient(top: str, bottom: str) -> Callable[[Totals], Tensor]:
    """The figure top / bottom."""
    return lambda totals: ratio(totals[top], totals[bottom])


def reconstruction_of(sums: RowSums, resampler: Resampler, totals: tuple[Totals, Totals]) -> Reconstruction:
    """The reconstruction section: values from the meter, errors from the resampled totals."""
    result = sums.result()
    varies_D = sums.meter.varying_dimensions().cpu()

    def one(name: str, figure: Callable[[Totals], Tensor], count: int = result.rows) -> Estimate:
        value: float | None = getattr(result, name)
        if value is None:
            return Estimate(value=None, count=count, reason=result.notes[name])
        return resampler.estimate(totals, figure, count, undefined="not finite", value=value)

    return Reconstruction(
        explained_variance=one("explained_variance", explained_variance),
        explained_variance_median=one("explained_variance_median", lambda t: explained_variance_median(t, varies_D)),
        dimensions=result.dimensions,
        mse=one("mse", quotient("r2", "rows")),
        cosine=one("cosine", quotient("cos", "cos_rows"), result.cosine_rows),
        norm_ratio=one("norm_ratio", quotient("ratio", "ratio_rows"), result.norm_ratio_rows),
        bias=one("bias", quotient("xhat2", "x_xhat")),
    )


def sparsity_of(sums: RowSums, resampler: Resampler, totals: tuple[Totals, Totals]) -> Sparsity:
    """The sparsity section; counts of features have no bootstrap error (a resample forgets rare features)."""
    result = sums.result()
    fired_F = sums.meter.fired_F.cpu()
    often_F = fired_F * 10 > result.rows
    total = int(fired_F.sum())

    def per_row(name: str) -> Estimate:
        value: float | None = getattr(result, name)
        return resampler.estimate(totals, quotient(name, "rows"), result.rows, undefined="no rows", value=value)

    return Sparsity(
        l0=per_row("l0"),
        l1=per_row("l1"),
        dead_at_n=result.dead_at_n,
        dead_density_bound=dead_density_bound(result.rows),
        fraction_alive=result.fraction_alive or 0.0,
        fraction_above_1_percent=result.fraction_above_1_percent or 0.0,
        fraction_above_10_percent=result.fraction_above_10_percent or 0.0,
        firings_above_10_percent=int(fired_F[often_F].sum()) / total if total else None,
        histogram=density_histogram(fired_F.numpy(), result.rows),
    )


def behaviour_of(spliced: SplicedSums, resampler: Resampler, mean_of: str | None) -> Behaviour:
    """The behaviour section: loss, KL, and scores against each ablation that was run."""
    sums = spliced.as_sums()
    totals = resampler.totals(sums)
    count = int(spliced.tokens_C.sum())

    def per_token(name: str) -> Estimate:
        return resampler.estimate(totals, lambda t: ratio(t[name], t["tokens"]), count, undefined="no tokens")

    def score(worst: str, ours: str, best: str | None) -> Estimate:
        def figure(t: Totals) -> Tensor:
            floor = t[best] if best else torch.zeros_like(t[worst])
            gap = t[worst] - floor
            return ratio(t[worst] - t[ours], torch.where(gap.abs() < _LEAST_EFFECT_NATS * t["tokens"], 0.0, gap))

        return resampler.estimate(totals, figure, count, undefined="the ablation does not change the loss")

    found: dict[str, Any] = {}
    for name in ("zero", "mean"):
        if name in spliced.kl:
            found[f"ce_{name}"] = per_token(f"ce_{name}")
            found[f"kl_{name}"] = per_token(f"kl_{name}")
            found[f"ce_score_{name}"] = score(f"ce_{name}", "ce_sae", "ce_clean")
            found[f"kl_score_{name}"] = score(f"kl_{name}", "kl_sae", None)
    return Behaviour(
        ce_clean=per_token("ce_clean"),
        ce_sae=per_token("ce_sae"),
        delta_ce=resampler.estimate(
            totals, lambda t: ratio(t["ce_sae"] - t["ce_clean"], t["tokens"]), count, undefined="no tokens"
        ),
        kl_sae=per_token("kl_sae"),
        mean_of=mean_of if "mean" in spliced.kl else None,
        **found,
    )


def weights_of(sae: Any) -> Weights:
    """Norms of ``W_dec`` [F, D] and ``W_enc`` [D, F] and their cosines, for SAEs that have them."""
    decoder, encoder = getattr(sae, "W_dec", None), getattr(sae, "W_enc", None)
    dec_FD = decoder.detach().float() if isinstance(decoder, Tensor) else None
    enc_FD = encoder.detach().float().T if isinstance(encoder, Tensor) else None
    cosine = None
    same_hook = getattr(sae, "reconstructs_input", True)  # else the two are directions of different spaces
    if same_hook and dec_FD is not None and enc_FD is not None and dec_FD.shape == enc_FD.shape:
        norms_F = dec_FD.norm(dim=1) * enc_FD.norm(dim=1)
        cosine = _spread((torch.linalg.vecdot(dec_FD, enc_FD) / norms_F)[norms_F > 0])
    return Weights(
        decoder_norm=None if dec_FD is None else _spread(dec_FD.norm(dim=1)),
        encoder_norm=None if enc_FD is None else _spread(enc_FD.norm(dim=1)),
        encoder_decoder_cosine=cosine,
    )


def _spread(values_F: Tensor) -> Spread | None:
    values_F = values_F.double().cpu()
    if values_F.numel() == 0:
        return None
    low, median, high = values_F.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return Spread(mean=float(values_F.mean()), low=low, median=median, high=high)
