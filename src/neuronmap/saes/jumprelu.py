"""The JumpReLU SAE (Rajamanoharan et al. 2024, arXiv 2407.14435), with two sparsity losses.

Shapes: B rows of a batch, D = d_in, F = d_sae.

    pre  = (x - b_dec) @ W_enc + b_enc
    f    = pre * 1[pre > threshold]
    loss = mean_b |x - xhat|^2 + sparsity + dead_penalty * mean_b sum_{j dead} relu(threshold_j - pre_j) |W_dec_j|

``step``: sparsity counts active features, L0 = mean_b sum_j 1[pre_j > threshold_j], and steers them to a target,
    target_weight * (L0 / target_l0 - 1)^2, or charges for each one, sparsity_penalty * L0. The warm-up lowers the target from
    target_anneal_factor times itself at full weight; without a target, or with a factor of 1, it raises the weight.
``tanh``: sparsity = sparsity_penalty * mean_b sum_j tanh(c * f_j * |W_dec_j|), c = tanh_scale * sqrt(D)
    (Anthropic, Circuits Updates January 2025): smooth, so that encoder and decoder feel it too.

A step has no gradient, so its derivative is estimated by a rectangle of width ``bandwidth`` (e) around the
threshold t, on *pre-activations*: features just below their threshold, whose activation is 0, count as well.

    d 1[pre > t] / dt   ~  -(1/e) 1[|pre - t| < e/2]
    d f / dt            ~  -(t/e) 1[|pre - t| < e/2]          (step: only to t; tanh: its negative to pre as well)

Thresholds are trained as they are and kept at or above zero by a clamp after each step. Trained as logarithms they
barely move: Adam changes a parameter by about the learning rate, and from 0.001 to 0.1 the logarithm has 4.6 to go.

Units. Inputs have E|x|^2 = 1. Papers that scale to E|x|^2 = D have activations sqrt(D) times ours, so their
lengths (threshold, bandwidth) divide by sqrt(D), their tanh slope multiplies by it, and, their squared error being D
times ours, their sparsity weights divide by D and the dead penalty, which is itself a length, by sqrt(D).
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from neuronmap.saes.base import ArchitectureOptions, Revival, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels import dense
from neuronmap.saes.kernels.choice import backend, is_sparse
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.entries import above_floor, at_entries, entry_limit, sums_over_entries
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.options import JumpReLUOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["JumpReLUOptions", "JumpReLUSAE"]

_USUAL_L0 = 64.0
_START_FACTOR = 2.0
_USUAL_TANH_PENALTY = 0.0005
_STEP_BANDWIDTH, _TANH_BANDWIDTH = 0.25, 2.0  # times 1/sqrt(D)
_STEP_DEAD_PENALTY = 0.0001
_ANNEAL_FACTOR = 4.0
_TANH_DEAD_PENALTY = 3e-6  # times 1/sqrt(D)
_TANH_START, _TANH_FLOOR = 0.1, 0.01  # times 1/sqrt(D)


class JumpReLUSAE(SparseAutoencoder):
    """JumpReLU SAE: each feature has its own threshold, below which it is off and above which it is not shrunk.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`JumpReLUOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.

    Attributes:
        target_l0: the target in force, or None where there is none.
        bandwidth: the window in force.
    """

    architecture: ClassVar[str] = "jumprelu"
    Options: ClassVar[type[ArchitectureOptions]] = JumpReLUOptions
    revival: ClassVar[Revival] = "none"
    rate_factor: ClassVar[float] = 0.5
    sparsity_warmup: ClassVar[float] = 0.3
    splits_batches: ClassVar[bool] = True
    splits_features: ClassVar[bool] = True

    b_enc: nn.Parameter
    """[F]"""
    threshold: nn.Parameter
    """[F], not below zero"""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(d_in, d_sae, options, device=device, dtype=dtype)
        chosen = cast(JumpReLUOptions, self.options)
        unit = 1.0 / math.sqrt(d_in)
        self._tanh = chosen.sparsity_form == "tanh"
        self.target_l0: float | None = None
        if not self._tanh and chosen.sparsity_penalty is None:
            self.target_l0 = chosen.target_l0 or min(_USUAL_L0, d_sae / 8)
        self._anneal = (chosen.target_anneal_factor or _ANNEAL_FACTOR) if self.target_l0 else 1.0
        self._weight = chosen.target_weight if self.target_l0 else chosen.sparsity_penalty or _USUAL_TANH_PENALTY
        self.bandwidth = chosen.bandwidth or unit * (_TANH_BANDWIDTH if self._tanh else _STEP_BANDWIDTH)
        self._slope = chosen.tanh_scale / unit
        # Without a count term a threshold's gradient is proportional to the threshold: from zero it never moves.
        self._least_start, self._floor = (_TANH_START * unit, _TANH_FLOOR * unit) if self._tanh else (0.0, 0.0)
        least = _TANH_DEAD_PENALTY * unit if self._tanh else _STEP_DEAD_PENALTY
        self._dead_penalty = least if chosen.dead_penalty is None else chosen.dead_penalty
        self.b_enc = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))
        self.threshold = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))

    def encode(self, x: Tensor) -> Tensor:
        """Pre-activations where they exceed the feature's threshold (strictly), else zero."""
        pre = self.pre_activations(self.normalised(x))
        return torch.relu(pre) * (pre > self.threshold)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """Pre-activations above their thresholds."""
        floor_F = self.threshold.clamp_min(
            0.0
        )  # files from elsewhere may have it below zero; encode's relu is there too
        return above_floor((self.normalised(x_BD), self.b_dec, self.W_enc), self.b_enc, floor_F, workspace)

    def encoder_start(self) -> float:
        """A quarter, as in the top-k family: with unit columns the first reconstruction overshoots, and what is unlearned then is missing
        for long, the more the wider the SAE."""
        return 0.25

    def initialise(self, mean_D: Tensor, generator: torch.Generator) -> None:
        """As every SAE, and thresholds at which about ``initial_l0`` features are active.

        Encoder columns start as random vectors of length s, so pre-activations are close to normal with variance
        s^2 E|x - mean|^2 / D, and E|x - mean|^2 = 1 - |mean|^2. Adam moves a threshold by about the learning rate a
        step, so from a threshold near zero a short run at a low rate ends before it has climbed (docs/experiments.md).
        """
        super().initialise(mean_D, generator)
        chosen = cast(JumpReLUOptions, self.options)
        first = self._anneal if self._anneal > 1 else _START_FACTOR
        usual = self.whole_d_sae if self._tanh else first * (self.target_l0 or _USUAL_L0)
        start = min(chosen.initial_l0 or usual, self.whole_d_sae / 2)
        variance = max(1.0 - float(mean_D.double().square().sum()), 1e-3) / self.d_in
        with torch.no_grad():
            deviation = self.encoder_start() * math.sqrt(variance)
            threshold = NormalDist().inv_cdf(1.0 - start / self.whole_d_sae) * deviation
            self.threshold.fill_(max(threshold, self._least_start))

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        pre_BF = self.pre_activations(x_BD)
        gate_BF = (pre_BF > self.threshold).to(pre_BF.dtype)
        window_BF = ((pre_BF - self.threshold).abs() < self.bandwidth / 2).to(pre_BF.dtype)
        over_BF = (pre_BF if self._tanh else pre_BF.detach()) - self.threshold
        # Its value is 0; its gradient is the estimate for the step.
        step_BF = window_BF / self.bandwidth * (over_BF - over_BF.detach())
        f_BF = pre_BF * gate_BF + self.threshold.detach() * step_BF
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        mse = (x_BD - self.decode(f_BF)).square().sum(dim=1).mean()
        if self._tanh:
            sparsity = torch.tanh(self._slope * f_BF * norm_F).sum(dim=1).mean()
        else:
            l0 = (gate_BF + step_BF).sum(dim=1).mean()
            target = self._target(state)
            sparsity = l0 if target is None else (l0 / target - 1).square()
        total = mse + self._weight_at(state) * sparsity
        parts = {"mse": mse, "sparsity": sparsity}
        if state.dead_F is not None and self._dead_penalty > 0:
            parts["aux"] = (torch.relu(self.threshold - pre_BF) * norm_F * state.dead_F).sum(dim=1).mean()
            total = total + self._dead_penalty * parts["aux"]
        return StepLoss(total, parts, gate_BF.detach().sum(dim=0).to(torch.int64))

    @torch.no_grad()
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """The same by hand: over the entries above or near their threshold once they are few, else as matrix products."""
        kernels = backend(workspace, self.W_enc)
        loss = None
        if is_sparse(workspace, kernels, state.active_share):
            loss = self._sparse_step(x_BD, state, workspace, kernels)
        workspace.ran = "dense" if loss is None else "sparse"
        return loss if loss is not None else self._dense_step(x_BD, state, workspace)

    def _sparse_step(self, x_BD: Tensor, state: StepState, workspace: Workspace, kernels: Kernels) -> StepLoss | None:
        """One matrix product, the encoder's; None if too many entries count for that to pay.

        An entry counts when its feature is active or in the window around its threshold, whose gradient needs it. While
        features are dead their columns are looked at whole, for the term that pulls them back.
        """
        rows, widths, scale = len(x_BD), (self.d_sae,), 2.0 / len(x_BD)
        c_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("c", (rows, self.d_in), x_BD.dtype))
        dead_M = None
        if state.dead_F is not None and self._dead_penalty > 0:
            dead_M = torch.nonzero(state.dead_F).view(-1)
        limit = entry_limit(workspace, kernels, rows, self.d_sae)
        floor_F = self.threshold - self.bandwidth / 2
        encoded = kernels.encode_above(Encoder(c_BD, self.W_enc, self.b_enc, dead_M), floor_F, limit)
        if encoded is None:
            return None
        code, weight = encoded.code, self._weight_at(state)
        over_N = code.value_N - at_entries(self.threshold, code)
        active_N, window_N = over_N > 0, over_N.abs_() < self.bandwidth / 2
        code = replace(code, value_N=code.value_N * active_N)
        fired_F = torch.bincount(code.feature_N[active_N], minlength=self.d_sae)
        found = kernels.reconstruct(code, self.W_dec, c_BD, widths, scale)
        mse, g_N = found.squared_L[-1], found.gradient_N

        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        g_norm_F = torch.zeros_like(norm_F)
        g_threshold_F = dense.gradient_of(self.threshold).zero_()
        if self._tanh:
            sparsity, g_norm_F = self._tanh_at_entries(code, g_N, norm_F, weight / rows)
            workspace.features.sum_(sparsity)
        else:
            l0 = workspace.ranks.mean_(workspace.features.sum_(fired_F.sum()).to(x_BD.dtype) / rows)
            sparsity, g_l0 = self._count_term(l0, weight, self._target(state))
            in_window_F = torch.bincount(code.feature_N[window_N], minlength=self.d_sae).to(x_BD.dtype)
            g_threshold_F.addcmul_(in_window_F, g_l0, value=-1.0 / (self.bandwidth * rows))
        jump_F = self.threshold / self.bandwidth
        window_g_N = g_N * window_N
        g_threshold_F.addcmul_(sums_over_entries(code, window_g_N), jump_F, value=-1.0)
        g_N.mul_(active_N)
        if self._tanh:
            g_N.addcmul_(window_g_N, at_entries(jump_F, code))
        elif not code.padded:  # an entry that is only in the window moves its threshold alone; at the start most are
            code, g_N = code.where(active_N), g_N[active_N]
        gradients = (dense.gradient_of(self.W_enc), dense.gradient_of(self.b_enc), dense.gradient_of(self.W_dec))
        kernels.weight_gradients(code, g_N, found, c_BD, widths, scale, gradients)
        total, parts = mse + weight * sparsity, {"mse": mse, "sparsity": sparsity}
        if dead_M is not None and encoded.kept_BM is not None:
            aux = self._dead_at_columns(encoded.kept_BM, dead_M, c_BD, norm_F, g_norm_F)
            parts["aux"] = workspace.features.sum_(aux)
            total = total + self._dead_penalty * parts["aux"]
        if not state.unit_rows:  # else the parameter step would take it out again
            dense.add_norm_gradient(self.W_dec, norm_F, g_norm_F)
        b_dec_grad = torch.sum(found.error_BD, dim=0, out=dense.gradient_of(self.b_dec)).mul_(scale)
        dense.subtract_encoder_share(b_dec_grad, self.W_enc, dense.gradient_of(self.b_enc), workspace.features)
        return StepLoss(total, parts, fired_F)

    def _tanh_at_entries(self, code: SparseCode, g_N: Tensor, norm_F: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Add the tanh term's gradient to ``g_N``; the term, and its gradient to the decoder norms [F]."""
        slope_N = at_entries(norm_F, code) * self._slope
        t_N = torch.tanh(code.value_N * slope_N)
        sparsity = t_N.sum() / code.num_rows
        steep_N = 1 - t_N.square()
        g_N.addcmul_(steep_N, slope_N, value=weight)
        return sparsity, sums_over_entries(code, steep_N.mul_(code.value_N)).mul_(weight * self._slope)

    def _dead_at_columns(
        self, pre_BM: Tensor, dead_M: Tensor, c_BD: Tensor, norm_F: Tensor, g_norm_F: Tensor
    ) -> Tensor:
        """Add the dead term's gradients to W_enc, b_enc and threshold and to ``g_norm_F``; the term, before its weight."""
        rows, norm_M = len(pre_BM), norm_F[dead_M]
        weight = self._dead_penalty / rows
        below_BM = torch.sub(self.threshold[dead_M], pre_BM, out=pre_BM).relu_()
        gap_M = below_BM.sum(dim=0)
        g_norm_F.index_add_(0, dead_M, gap_M, alpha=weight)
        pull_M = norm_M * weight
        below_BM.sign_().mul_(pull_M)
        pulled_M = below_BM.sum(dim=0)
        dense.gradient_of(self.threshold).index_add_(0, dead_M, pulled_M)
        dense.gradient_of(self.b_enc).index_add_(0, dead_M, pulled_M, alpha=-1.0)
        dense.gradient_of(self.W_enc).T.index_add_(0, dead_M, below_BM.T @ c_BD, alpha=-1.0)
        return torch.dot(gap_M, norm_M) / rows

    def _dense_step(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """Five matrix products, three B x F buffers, a fourth for tanh or while features are dead."""
        rows, dtype = len(x_BD), x_BD.dtype
        c_BD = workspace.get("c", (rows, self.d_in), dtype)
        error_BD = workspace.get("error", (rows, self.d_in), dtype)
        pre_BF = workspace.get("pre", (rows, self.d_sae), dtype)
        f_BF = workspace.get("f", (rows, self.d_sae), dtype)
        g_BF = workspace.get("g", (rows, self.d_sae), dtype)
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        g_threshold_F = dense.gradient_of(self.threshold).zero_()
        weight = self._weight_at(state)

        torch.sub(x_BD, self.b_dec, out=c_BD)
        torch.addmm(self.b_enc, c_BD, self.W_enc, out=pre_BF)
        fired_F = dense.count_active(torch.gt(pre_BF, self.threshold, out=f_BF))
        f_BF.mul_(pre_BF)
        mse = dense.decode_error(f_BF, x_BD, self.W_dec, self.b_dec, error_BD, workspace.features)
        error_BD.mul_(2.0 / rows)
        dense.decoder_gradients(f_BF, error_BD, self.W_dec, self.b_dec, g_BF)

        g_l0: Tensor | None = None
        if self._tanh:
            sparsity = workspace.features.sum_(self._add_tanh(f_BF, g_BF, norm_F, weight / rows, workspace))
        else:
            l0 = workspace.ranks.mean_(workspace.features.sum_(fired_F.sum()).to(x_BD.dtype) / rows)
            sparsity, g_l0 = self._count_term(l0, weight, self._target(state))
        total = mse + weight * sparsity
        parts = {"mse": mse, "sparsity": sparsity}
        below_BF: Tensor | None = None
        if state.dead_F is not None and self._dead_penalty > 0:
            below_BF = workspace.get("t", (rows, self.d_sae), dtype)
            parts["aux"] = workspace.features.sum_(self._add_dead(pre_BF, below_BF, norm_F, state.dead_F))
            total = total + self._dead_penalty * parts["aux"]

        window_BF = pre_BF.sub_(self.threshold).abs_().lt_(self.bandwidth / 2)  # the last use of pre
        if g_l0 is not None:
            g_threshold_F.addcmul_(window_BF.sum(dim=0), g_l0, value=-1.0 / (self.bandwidth * rows))
        window_BF.mul_(g_BF)
        jump_F = self.threshold / self.bandwidth
        g_threshold_F.addcmul_(window_BF.sum(dim=0), jump_F, value=-1.0)
        dense.keep_where_positive(g_BF, f_BF)
        if self._tanh:
            g_BF.addcmul_(window_BF, jump_F)
        if below_BF is not None:
            g_BF.sub_(below_BF)
        g_sum_F = torch.sum(g_BF, dim=0, out=dense.gradient_of(self.b_enc))
        dense.encoder_gradients(c_BD, g_BF, g_sum_F, self.W_enc, self.b_dec, workspace.features)
        return StepLoss(total, parts, fired_F)

    def _target(self, state: StepState) -> float | None:
        """The target at this step."""
        if self.target_l0 is None:
            return None
        return self.target_l0 * (self._anneal - (self._anneal - 1) * state.sparsity_scale)

    def _weight_at(self, state: StepState) -> float:
        """Weight of the sparsity term at this step."""
        return self._weight if self._anneal > 1 else state.sparsity_scale * self._weight

    @staticmethod
    def _count_term(l0: Tensor, weight: float, target: float | None) -> tuple[Tensor, Tensor]:
        """The step form's sparsity term and the gradient of its weighted value with respect to L0, both 0-d."""
        if target is None:
            return l0, torch.full_like(l0, weight)
        excess = l0 / target - 1
        return excess.square(), excess * (2.0 * weight / target)

    def _add_tanh(self, f_BF: Tensor, g_BF: Tensor, norm_F: Tensor, weight: float, workspace: Workspace) -> Tensor:
        """Add the tanh term's gradients to ``g_BF`` and ``W_dec.grad``; return the term. ``weight`` is per row."""
        t_BF = workspace.get("t", tuple(f_BF.shape), f_BF.dtype)
        slope_F = norm_F * self._slope
        torch.mul(f_BF, slope_F, out=t_BF).tanh_()
        sparsity = t_BF.sum(dim=0).sum() / len(f_BF)
        t_BF.mul_(t_BF)  # 1 - t^2 is the derivative
        slope_F.mul_(weight)
        g_BF.addcmul_(t_BF, slope_F, value=-1.0).add_(slope_F)
        g_norm_F = f_BF.sum(dim=0).sub_(t_BF.mul_(f_BF).sum(dim=0)).mul_(weight * self._slope)
        dense.add_norm_gradient(self.W_dec, norm_F, g_norm_F)
        return sparsity

    def _add_dead(self, pre_BF: Tensor, below_BF: Tensor, norm_F: Tensor, dead_F: Tensor) -> Tensor:
        """Add the dead term's gradients to ``threshold.grad`` and ``W_dec.grad``; return the term, before its weight.

        Leaves in ``below_BF`` what has to be subtracted from the gradient of ``pre_BF``.
        """
        weight = self._dead_penalty / len(pre_BF)
        torch.sub(self.threshold, pre_BF, out=below_BF).relu_()
        gap_F = below_BF.sum(dim=0).mul_(dead_F)
        dense.add_norm_gradient(self.W_dec, norm_F, gap_F * weight)
        pull_F = norm_F * dead_F * weight
        below_BF.sign_().mul_(pull_F)
        dense.gradient_of(self.threshold).add_(below_BF.sum(dim=0))
        return torch.dot(gap_F, norm_F) / len(pre_BF)

    def after_step(self, loss: StepLoss, state: StepState) -> None:
        """Unit decoder rows, and thresholds not below zero, where a negative pre-activation would count as active.

        tanh: not below 0.01 / sqrt(D), since a threshold of zero has no gradient there.
        """
        super().after_step(loss, state)
        with torch.no_grad():
            self.threshold.clamp_(min=self._floor)

    def scaled_tensors(self) -> list[Tensor]:
        """Both biases and the thresholds."""
        return [self.b_dec, self.b_enc, self.threshold]

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it."""
        return {"architecture": "jumprelu"}
