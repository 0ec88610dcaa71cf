"""``measure_against_truth``: an SAE's directions, firings and magnitudes beside those its rows were made of.

Rows are drawn and encoded in pieces; what is kept are sums per truth, per latent and per block of rows. A latent fires where its
activation is not 0 (it may be negative in signed architectures, whose sign then counts against it in the amplitude).

Shapes: n rows of a piece, D width, G truths, F latents, E firings of truths, C blocks of rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from neuronmap.errors import ConfigError, MismatchError
from neuronmap.evaluation.bootstrap import Resampler, ratio
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.rows import Autoencoder, Reconstructor
from neuronmap.evaluation.synthetic.matching import Matching, decoder_directions, match_directions
from neuronmap.evaluation.synthetic.model import BLOCK_ROWS, SyntheticModel, Truth
from neuronmap.evaluation.synthetic.record import (
    AbsorptionFigures,
    AmplitudeFigures,
    DetectionFigures,
    DirectionFigures,
    GroundTruth,
    TruthProtocol,
)
from neuronmap.progress import Progress, default

__all__ = ["MEASURE_STREAM", "RECOVERED_COSINE", "estimate_means", "measure_against_truth"]

MEASURE_STREAM = "measure"
"""Stream of rows to measure on; nothing is trained on it."""
RECOVERED_COSINE = 0.9
ABSORPTION_COSINE = 0.5
"""Least cosine of parent and child with their latents for their pair to count: a latent of something else absorbs nothing. It is
well below what absorption leaves (a child's latent that holds its parent too has a cosine of 0.7 with the child)."""

_MOST_UNITS = 500
_LEAST_UNIT_ROWS = 128
_FEWEST_JOINT = 3
_DRAWN_AT_ONCE = 1 << 23


def measure_against_truth(
    sae: Autoencoder,
    model: SyntheticModel,
    *,
    rows: int = 65_536,
    stream: str = MEASURE_STREAM,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> GroundTruth:
    """Measure an SAE against the synthetic model that its rows come from. Definitions are those of the record's fields.

    Args:
        sae: anything with ``d_in``, ``d_sae``, ``encode`` and ``decode``, for raw rows.
        model: the truth; draws the rows.
        rows: how many. A truth that fires with probability p is seen about p times as often.
        stream: which rows.
        bootstrap: resamples for the errors; 0 for none.
        seed: of the resampling, the only random part besides the rows.
        progress: where the bar goes.

    Returns:
        The record. What is not defined (a mean over nothing) is null with the reason, never NaN.

    Raises:
        ConfigError: for less than one row.
        MismatchError: if the SAE's width is not the model's.
        InputError: if the SAE gives NaN or infinity.

    Example:
        >>> from neuronmap.evaluation.synthetic import OracleSAE, SyntheticModel, measure_against_truth, synthetic_preset
        >>> model = SyntheticModel.from_config(synthetic_preset("tiny"))
        >>> measured = measure_against_truth(OracleSAE.fit(model), model, rows=4096)
        >>> measured.directions.recovered.value
        1.0
    """
    if rows < 1:
        raise ConfigError(f"rows = {rows}: there must be at least one row to measure on.")
    if sae.d_in != model.config.d_in:
        raise MismatchError(
            f"The SAE reads rows of width {sae.d_in}; those of {model.config.name} are {model.config.d_in}."
        )
    directions_FD = decoder_directions(sae)
    matching = match_directions(directions_FD, model.dictionary_GD)
    sums = _Sums(sae, model, matching, directions_FD.norm(dim=1), rows)
    with (progress or default()).task("Measuring against the truth", rows, "rows") as bar, torch.inference_mode():
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            sums.add(start, *model.sample(start, stop, stream))
            bar.advance(stop - start)
    figures = _Figures(matching, sums, bootstrap, seed)
    resampler = Resampler.draw(sums.units, bootstrap, seed)
    totals = resampler.totals(sums.by_unit)
    return GroundTruth(
        directions=figures.directions(),
        detection=figures.detection(),
        amplitude=figures.amplitude(),
        absorption=figures.absorption(model.parent_G.cpu()),
        explained_variance=resampler.estimate(totals, _explained, rows, undefined="the rows do not vary"),
        l0=resampler.estimate(totals, lambda t: ratio(t["l0"], t["rows"]), rows, undefined="no rows"),
        true_l0=resampler.estimate(totals, lambda t: ratio(t["true_l0"], t["rows"]), rows, undefined="no rows"),
        dead=int((sums.by_latent["fired"] == 0).sum()),
        protocol=TruthProtocol(
            model=model.config.name,
            model_digest=model.digest,
            stream=stream,
            rows=rows,
            silent_truths=int((sums.by_truth["fired"] == 0).sum()),
            device=model.device.type,
            architecture=str(getattr(sae, "architecture", type(sae).__name__)),
            d_in=sae.d_in,
            features=model.config.features,
            d_sae=sae.d_sae,
            units=sums.units,
            resamples=bootstrap,
            seed=seed,
            versions={name: version(name) for name in ("neuronmap", "torch")},
        ),
    )


def _explained(totals: Mapping[str, Tensor]) -> Tensor:
    variance_R = totals["x2"] - totals["x_D"].square().sum(1) / totals["rows"]
    return 1 - ratio(totals["r2"], variance_R)


class _Sums:
    """Float64 sums by truth, by latent and by block of rows, on the CPU."""

    def __init__(self, sae: Autoencoder, model: SyntheticModel, matching: Matching, norm_F: Tensor, rows: int) -> None:
        device = model.device
        dtype = getattr(sae, "dtype", torch.float32)
        sae_device = torch.device(getattr(sae, "device", device))
        self._reconstructor = Reconstructor(sae, sae_device, dtype)
        self._latent_G, self._truth_F = matching.latent_G.to(device), matching.unsigned_truth_F.to(device)
        self._parent_G, self._norm_F = model.parent_G, norm_F.to(device)
        self._device, self.rows = device, rows
        self.unit_rows = max(_LEAST_UNIT_ROWS, -(-rows // _MOST_UNITS))
        self.units = -(-rows // self.unit_rows)
        G, F = model.config.features, sae.d_sae
        self.by_truth = {name: torch.zeros(G, dtype=torch.float64) for name in _BY_TRUTH}
        self.by_latent = {name: torch.zeros(F, dtype=torch.float64) for name in ("fired", "z2", "nearest_both")}
        self.by_unit = {
            name: torch.zeros(self.units, dtype=torch.float64) for name in ("rows", "r2", "x2", "l0", "true_l0")
        }
        self.by_unit["x_D"] = torch.zeros(self.units, model.config.d_in, dtype=torch.float64)

    def add(self, start: int, x_ND: Tensor, truth: Truth) -> None:
        """Count rows from ``start`` on."""
        for part, y_nD, f_nF, xhat_nD in self._reconstructor.pieces(x_ND):
            unit_n = torch.arange(start + part.start, start + part.stop) // self.unit_rows
            piece = truth.rows(part.start, part.stop)
            self._add_units(unit_n, y_nD.double(), f_nF, xhat_nD.double(), piece)
            self._add_latents(f_nF.to(self._device), piece)

    def _add_units(self, unit_n: Tensor, x_nD: Tensor, f_nF: Tensor, xhat_nD: Tensor, truth: Truth) -> None:
        parts = {
            "rows": torch.ones(len(x_nD)),
            "r2": (x_nD - xhat_nD).square().sum(1),
            "x2": x_nD.square().sum(1),
            "l0": torch.count_nonzero(f_nF, dim=1),
            "true_l0": truth.offset_N.diff(),
            "x_D": x_nD,
        }
        for name, value in parts.items():
            self.by_unit[name].index_add_(0, unit_n, value.double().cpu())

    def _add_latents(self, f_nF: Tensor, truth: Truth) -> None:
        fires_nF = f_nF != 0
        z_nF = f_nF.float() * self._norm_F
        self.by_latent["fired"] += fires_nF.sum(0).double().cpu()
        self.by_latent["z2"] += z_nF.square().sum(0).double().cpu()
        row_E, feature_E, a_E = truth.row_E(), truth.feature_E, truth.value_E.double()
        latent_E = self._latent_G[feature_E]
        both_E = (latent_E >= 0) & fires_nF[row_E, latent_E]
        z_E = torch.where(both_E, z_nF[row_E, latent_E], 0.0).double()
        on_E = both_E.double()
        found = {
            "fired": torch.ones_like(on_E),
            "a": a_E,
            "a2": a_E.square(),
            "both": on_E,
            "az": a_E * z_E,
            "a_both": a_E * on_E,
            "a2_both": a_E.square() * on_E,
            "z_both": z_E,
            "z2_both": z_E.square(),
            **self._families(row_E, feature_E, both_E, fires_nF),
        }
        for name, value_E in found.items():
            self.by_truth[name].index_add_(0, feature_E.cpu(), value_E.cpu())
        true_nG = torch.zeros(len(f_nF), truth.num_features, dtype=torch.bool, device=self._device)
        true_nG[row_E, feature_E] = True
        place_X2 = torch.nonzero(fires_nF)
        hit_X = true_nG[place_X2[:, 0], self._truth_F[place_X2[:, 1]]]
        self.by_latent["nearest_both"] += torch.bincount(place_X2[hit_X, 1], minlength=f_nF.shape[1]).double().cpu()

    def _families(self, row_E: Tensor, feature_E: Tensor, both_E: Tensor, fires_nF: Tensor) -> dict[str, Tensor]:
        """By child: rows on which it is absorbed. By parent: rows without a child, and those of them that its latent misses."""
        parent_E = self._parent_G[feature_E]
        child_E = parent_E >= 0
        latent_E = self._latent_G[parent_E]
        parent_fires_E = (latent_E >= 0) & fires_nF[row_E, latent_E]
        with_child_nG = torch.zeros(len(fires_nF), len(self._parent_G), dtype=torch.bool, device=self._device)
        with_child_nG[row_E[child_E], parent_E[child_E]] = True
        alone_E = ~with_child_nG[row_E, feature_E]
        return {
            "absorbed": (child_E & both_E & ~parent_fires_E).double(),
            "alone": alone_E.double(),
            "missed_alone": (alone_E & ~both_E).double(),
        }


_BY_TRUTH = (
    "fired", "a", "a2", "both", "az", "a_both", "a2_both", "z_both", "z2_both", "absorbed", "alone", "missed_alone",
)  # fmt: skip


class _Figures:
    """Means over truths, latents and pairs, with their errors."""

    def __init__(self, matching: Matching, sums: _Sums, bootstrap: int, seed: int) -> None:
        self._matching, self._bootstrap, self._seed = matching, bootstrap, seed
        self._truth, self._latent, self._rows = sums.by_truth, sums.by_latent, sums.rows
        self._matched_G = matching.latent_G >= 0
        self._seen_G = self._truth["fired"] > 0

    def _means(self, values: Mapping[str, Tensor], undefined: str) -> dict[str, Estimate]:
        return estimate_means(values, self._bootstrap, self._seed, undefined)

    def directions(self) -> DirectionFigures:
        match = self._matching
        over_truths = {
            "cosine": torch.where(self._matched_G, match.cosine_G, torch.nan),
            "cosine_truths": match.cosine_G,
            "recovered": (match.cosine_G > RECOVERED_COSINE).double(),
            "mmcs_truth": match.nearest_latent_G,
        }
        return DirectionFigures(
            **self._means(over_truths, "no truth is matched"),
            **self._means({"mmcs_latent": match.nearest_truth_F}, "no latents"),
            **self._means({"mcc": match.unsigned_M}, "no pairs"),
            uniqueness=int((torch.bincount(match.unsigned_truth_F) > 0).sum()) / len(match.unsigned_truth_F),
        )

    def detection(self) -> DetectionFigures:
        both_G, fired_G = self._truth["both"], self._truth["fired"]
        latent_fired_G = self._latent["fired"][self._matching.latent_G]
        scores = _scores(both_G, latent_fired_G, fired_G)
        matched = {
            name: torch.where(self._matched_G & self._seen_G, one_G, torch.nan) for name, one_G in scores.items()
        }
        every = {
            f"{name}_truths": torch.where(self._seen_G, torch.where(self._matched_G, one_G, 0.0), torch.nan)
            for name, one_G in scores.items()
        }
        nearest_F = self._matching.unsigned_truth_F
        by_latent = _scores(self._latent["nearest_both"], self._latent["fired"], fired_G[nearest_F])
        return DetectionFigures(
            **self._means({**matched, **every}, "no matched truth fired"),
            **self._means({f"{name}_latent_mean": one_F for name, one_F in by_latent.items()}, "no latents"),
        )

    def amplitude(self) -> AmplitudeFigures:
        t, n = self._truth, self._rows
        z2_G = self._latent["z2"][self._matching.latent_G]
        total_G = t["a2"] - t["a"].square() / n
        r2_G = 1 - ratio(t["a2"] - 2 * t["az"] + z2_G, total_G)
        r2_G = torch.where(self._matched_G & self._seen_G, r2_G, torch.nan)
        joint_G = t["both"].clamp_min(1)
        a_var_G = (t["a2_both"] - t["a_both"].square() / joint_G).clamp_min(0)
        z_var_G = (t["z2_both"] - t["z_both"].square() / joint_G).clamp_min(0)
        with_G = t["az"] - t["a_both"] * t["z_both"] / joint_G
        # float32 magnitudes: a variance below 1e-9 of the mean square is rounding
        varies_G = (a_var_G > 1e-9 * t["a2_both"]) & (t["both"] >= _FEWEST_JOINT)
        firing_G = torch.where(z_var_G > 1e-9 * t["z2_both"], ratio(with_G.square(), a_var_G * z_var_G), 0.0)
        firing_G = torch.where(varies_G & self._matched_G, firing_G, torch.nan)
        return AmplitudeFigures(
            **self._means({"r2": r2_G}, "no matched truth fired"),
            **self._means({"r2_firing": firing_G}, "no matched pair fires together with a magnitude that varies"),
        )

    def absorption(self, parent_G: Tensor) -> AbsorptionFigures | None:
        child_C = torch.nonzero(parent_G >= 0).view(-1)
        if not child_C.numel():
            return None
        good_G = self._matched_G & (self._matching.cosine_G > ABSORPTION_COSINE) & self._seen_G
        counts_C = good_G[child_C] & good_G[parent_G[child_C]]
        rate_C = ratio(self._truth["absorbed"], self._truth["fired"])[child_C]
        parents_G = torch.zeros_like(good_G)
        parents_G[parent_G[child_C[counts_C]]] = True
        missed_G = torch.where(parents_G, ratio(self._truth["missed_alone"], self._truth["alone"]), torch.nan)
        why = f"no parent and child that both have a latent with a cosine above {ABSORPTION_COSINE}"
        return AbsorptionFigures(
            **self._means({"rate": torch.where(counts_C, rate_C, torch.nan)}, why),
            **self._means({"missed_alone": missed_G}, why + ", or no such parent fired alone"),
            pairs=int(counts_C.sum()),
            all_pairs=len(child_C),
        )


def _scores(both: Tensor, latent_fired: Tensor, truth_fired: Tensor) -> dict[str, Tensor]:
    """Precision, recall and F1 from counts; 0 where not defined, as SAELens has it."""
    precision = both / latent_fired.clamp_min(1)
    recall = both / truth_fired.clamp_min(1)
    total = precision + recall
    f1 = torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-300), 0.0)
    return {"precision": precision, "recall": recall, "f1": f1}


def estimate_means(values: Mapping[str, Tensor], resamples: int, seed: int, undefined: str) -> dict[str, Estimate]:
    """Means over things (truths, latents, pairs) with errors from resampling the things, the same draws for every figure.

    Args:
        values: [X] by name, all of one length; NaN leaves a thing out.
        resamples: R; 0 for no errors.
        seed: of the draws.
        undefined: the reason to give for a mean over nothing.
    """
    stacked_XV = torch.stack([value.double() for value in values.values()], dim=1).cpu()
    known_XV = stacked_XV.isfinite()
    stacked_XV = torch.where(known_XV, stacked_XV, 0.0)
    count_V = known_XV.sum(0)
    things = len(stacked_XV)
    generator = np.random.default_rng(seed)
    drawn = []
    step = max(1, _DRAWN_AT_ONCE // max(things, 1))
    for start in range(0, resamples if things > 1 else 0, step):
        size = min(step, resamples - start)
        weights_RX = torch.from_numpy(generator.multinomial(things, np.full(things, 1 / things), size=size)).double()
        drawn.append(ratio(weights_RX @ stacked_XV, weights_RX @ known_XV.double()))
    drawn_RV = torch.cat(drawn) if drawn else torch.zeros(0, len(values), dtype=torch.float64)
    found = {}
    for place, name in enumerate(values):
        count = int(count_V[place])
        if not count:
            found[name] = Estimate(value=None, count=0, reason=undefined)
            continue
        value = float(stacked_XV[:, place].sum() / count)
        samples_R = drawn_RV[:, place]
        samples_R = samples_R[samples_R.isfinite()]
        if len(samples_R) < 2:
            why = "no bootstrap was asked for" if things > 1 else "only one to resample"
            found[name] = Estimate(value=value, count=count, reason=f"no error: {why}")
            continue
        low, high = torch.quantile(samples_R, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        found[name] = Estimate(value=value, error=float(samples_R.std()), low=low, high=high, count=count)
    return found
