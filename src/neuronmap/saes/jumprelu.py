"""The JumpReLU SAE (Rajamanoharan et al. 2024, arXiv 2407.14435), with two sparsity losses.

Shapes: B rows of a batch, D = d_in, F = d_sae.

    pre  = (x - b_dec) @ W_enc + b_enc
    f    = pre * 1[pre > threshold]
    loss = mean_b |x - xhat|^2 + sparsity + dead_penalty * mean_b sum_{j dead} relu(threshold_j - pre_j) |W_dec_j|

``step``: sparsity counts active features, L0 = mean_b sum_j 1[pre_j > threshold_j], and steers them to a target,
    target_weight * (L0 / target_l0 - 1)^2, or charges for each one, sparsity_penalty * L0.
``tanh``: sparsity = sparsity_penalty * mean_b sum_j tanh(tanh_scale * f_j * |W_dec_j|)
    (Anthropic, Circuits Updates January 2025), smooth, so that encoder and decoder feel it too.

A step has no gradient, so its derivative is estimated by a rectangle of width ``bandwidth`` (e) around the
threshold, on *pre-activations*: features just below their threshold, whose activation is 0, count as well.

    d 1[pre > t] / dt   ~  -(1/e) 1[|pre - t| < e/2]
    d f / dt            ~  -(t/e) 1[|pre - t| < e/2]          (step: only to t; tanh: the negative to pre as well)

Thresholds are trained as they are and kept at or above zero by a clamp after each step. Trained as logarithms they
barely move: Adam changes a parameter by about the learning rate, and from 0.001 to 0.1 the logarithm has 4.6 to go.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from neuronmap.errors import ConfigError
from neuronmap.saes.base import ArchitectureOptions, Revival, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels import dense
from neuronmap.saes.workspace import Workspace

__all__ = ["JumpReLUOptions", "JumpReLUSAE"]


class JumpReLUOptions(ArchitectureOptions):
    """Settings of :class:`JumpReLUSAE`. Lengths are on the scale of inputs with E|x|^2 = 1."""

    sparsity_form: Literal["step", "tanh"] = "step"
    """Penalise the number of active features (step) or a smooth saturating version (tanh)."""
    target_l0: float | None = Field(default=None, gt=0)
    """step: active features per row to steer to; when sparsity_penalty is left out too, 64 or an eighth of the features."""
    target_weight: float = Field(default=1.0, gt=0)
    """step: weight of (L0 / target_l0 - 1)^2."""
    sparsity_penalty: float | None = Field(default=None, gt=0)
    """Weight of the sparsity term in place of a target: for tanh (0.005 when left out), or for step the charge for each active feature."""
    bandwidth: float | None = Field(default=None, gt=0)
    """Width of the window around the threshold in which its gradient acts."""
    initial_threshold: float | None = Field(default=None, gt=0)
    """Threshold of all features before the first step."""
    tanh_scale: float = Field(default=4.0, gt=0)
    """tanh: how fast the penalty saturates, in units of sqrt(D): the slope at 0 on inputs with E|x|^2 = D."""
    dead_penalty: float | None = Field(default=None, ge=0)
    """Weight of the term that pulls dead features back."""


class JumpReLUSAE(SparseAutoencoder):
    architecture: ClassVar[str] = "jumprelu"
    Options: ClassVar[type[ArchitectureOptions]] = JumpReLUOptions
    revival: ClassVar[Revival] = "none"

    b_enc: nn.Parameter
    threshold: nn.Parameter

    def __init__(self, d_in, d_sae, options=None, *, device=None, dtype=torch.float32):
        super().__init__(d_in, d_sae, options, device=device, dtype=dtype)
        chosen = cast(JumpReLUOptions, self.options)
        unit = 1 / math.sqrt(d_in)
        self.tanh = chosen.sparsity_form == "tanh"
        self.bandwidth = chosen.bandwidth if chosen.bandwidth is not None else (2.0 * unit if self.tanh else 0.001)
        self.initial_threshold = chosen.initial_threshold if chosen.initial_threshold is not None else (0.1 * unit if self.tanh else 0.001)
        self.tanh_slope = chosen.tanh_scale / unit
        self.dead_penalty = chosen.dead_penalty if chosen.dead_penalty is not None else 3e-6 * unit
        self.ste_to_input = self.tanh
        self.target = None
        if not self.tanh and chosen.sparsity_penalty is None:
            self.target = chosen.target_l0 if chosen.target_l0 is not None else min(64.0, d_sae / 8)
        self.weight = chosen.target_weight if self.target is not None else (chosen.sparsity_penalty or 0.005)
        self.b_enc = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))
        self.threshold = nn.Parameter(torch.full((d_sae,), self.initial_threshold, device=device, dtype=dtype))

    def encode(self, x):
        pre = self.pre_activations(x)
        return torch.relu(pre) * (pre > self.threshold)

    def initialise(self, mean_D, generator):
        super().initialise(mean_D, generator)
        with torch.no_grad():
            self.threshold.fill_(self.initial_threshold)

    def training_loss(self, x_BD, state):
        pre_BF = self.pre_activations(x_BD)
        gate_BF = (pre_BF > self.threshold).to(pre_BF.dtype)
        window_BF = ((pre_BF - self.threshold).abs() < self.bandwidth / 2).to(pre_BF.dtype)
        distance_BF = (pre_BF if self.ste_to_input else pre_BF.detach()) - self.threshold
        # Value 0; gradient that of the step estimated by the rectangle.
        step_BF = window_BF / self.bandwidth * (distance_BF - distance_BF.detach())
        f_BF = pre_BF * gate_BF + self.threshold.detach() * step_BF
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        mse = (x_BD - self.decode(f_BF)).square().sum(dim=1).mean()
        if self.tanh:
            sparsity = torch.tanh(self.tanh_slope * f_BF * norm_F).sum(dim=1).mean()
        else:
            l0 = (gate_BF + step_BF).sum(dim=1).mean()
            sparsity = l0 if self.target is None else (l0 / self.target - 1).square()
        total = mse + state.sparsity_scale * self.weight * sparsity
        parts = {"mse": mse, "sparsity": sparsity}
        if state.dead_F is not None and self.dead_penalty > 0:
            parts["aux"] = (torch.relu(self.threshold - pre_BF) * norm_F * state.dead_F).sum(dim=1).mean()
            total = total + self.dead_penalty * parts["aux"]
        return StepLoss(total, parts, gate_BF.detach().sum(dim=0).to(torch.int64))

    @torch.no_grad()
    def loss_and_gradients(self, x_BD, state, workspace):
        rows, dtype = len(x_BD), x_BD.dtype
        c_BD = workspace.get("c", (rows, self.d_in), dtype)
        error_BD = workspace.get("error", (rows, self.d_in), dtype)
        pre_BF = workspace.get("pre", (rows, self.d_sae), dtype)
        f_BF = workspace.get("f", (rows, self.d_sae), dtype)
        g_BF = workspace.get("g", (rows, self.d_sae), dtype)
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)

        torch.sub(x_BD, self.b_dec, out=c_BD)
        torch.addmm(self.b_enc, c_BD, self.W_enc, out=pre_BF)
        fired_F = dense.count_active(torch.gt(pre_BF, self.threshold, out=f_BF))
        f_BF.mul_(pre_BF)
        mse = dense.decode_error(f_BF, x_BD, self.W_dec, self.b_dec, error_BD)
        error_BD.mul_(2.0 / rows)
        dense.decoder_gradients(f_BF, error_BD, self.W_dec, self.b_dec, g_BF)

        weight = state.sparsity_scale * self.weight
        per_l0 = None
        if self.tanh:
            t_BF = workspace.get("t", (rows, self.d_sae), dtype)
            slope_F = norm_F * self.tanh_slope
            torch.mul(f_BF, slope_F, out=t_BF).tanh_()
            sparsity = t_BF.sum(dim=0).sum() / rows
            t_BF.mul_(t_BF)
            slope_F *= weight / rows
            g_BF.addcmul_(t_BF, slope_F, value=-1.0).add_(slope_F)
            g_norm_F = f_BF.sum(dim=0) - t_BF.mul_(f_BF).sum(dim=0)
            dense.add_norm_gradient(self.W_dec, norm_F, g_norm_F * (weight / rows * self.tanh_slope))
        else:
            l0 = fired_F.sum().to(dtype) / rows
            if self.target is None:
                sparsity, per_l0 = l0, torch.full_like(l0, weight)
            else:
                sparsity, per_l0 = (l0 / self.target - 1).square(), (l0 / self.target - 1) * (2 * weight / self.target)
        total = mse + weight * sparsity
        parts = {"mse": mse, "sparsity": sparsity}
        dead = state.dead_F is not None and self.dead_penalty > 0
        if dead:
            t_BF = workspace.get("t", (rows, self.d_sae), dtype)
            torch.sub(self.threshold, pre_BF, out=t_BF).relu_()
            gap_F = t_BF.sum(dim=0).mul_(state.dead_F)
            parts["aux"] = torch.dot(gap_F, norm_F) / rows
            total = total + self.dead_penalty * parts["aux"]
            dense.add_norm_gradient(self.W_dec, norm_F, gap_F * (self.dead_penalty / rows))
            pull_F = norm_F * state.dead_F * (self.dead_penalty / rows)
            below_F = t_BF.sign_().sum(dim=0)
        # window
        pre_BF.sub_(self.threshold).abs_().lt_(self.bandwidth / 2)
        g_t = dense.gradient_of(self.threshold).zero_()
        if per_l0 is not None:
            g_t.add_(pre_BF.sum(dim=0) * per_l0, alpha=-1 / (self.bandwidth * rows))
        pre_BF.mul_(g_BF)
        slope_F = self.threshold / self.bandwidth
        g_t.addcmul_(pre_BF.sum(dim=0), slope_F, value=-1.0)
        dense.keep_where_positive(g_BF, f_BF)
        if self.ste_to_input:
            g_BF.addcmul_(pre_BF, slope_F)
        if dead:
            g_BF.addcmul_(t_BF, pull_F, value=-1.0)
            g_t.addcmul_(below_F, pull_F)
        g_sum_F = torch.sum(g_BF, dim=0, out=dense.gradient_of(self.b_enc))
        dense.encoder_gradients(c_BD, g_BF, g_sum_F, self.W_enc, self.b_dec)
        return StepLoss(total, parts, fired_F)

    def after_step(self, loss, state):
        super().after_step(loss, state)
        with torch.no_grad():
            self.threshold.clamp_(min=0.0)

    def scaled_tensors(self):
        return [self.b_dec, self.b_enc, self.threshold]

    def saelens_config(self):
        return {"architecture": "jumprelu"}
