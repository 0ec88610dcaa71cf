"""The gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014).

Shapes: B rows of a batch, D = d_in, F = d_sae.

    c    = x - b_dec
    gate = c @ W_enc + b_gate                          which features are active
    mag  = c @ (W_enc * exp(r_mag)) + b_mag            how strongly
    f    = 1[gate > 0] * relu(mag)
    loss = mean_b |x - xhat|^2  +  sparsity_penalty * mean_b sum_j relu(gate_j) |W_dec_j|
         + mean_b |x - relu(gate) @ sg(W_dec) - sg(b_dec)|^2          sg = no gradient

The step 1[gate > 0] has no gradient: the last two terms alone train the gate. The decoder is frozen in the last
one, as in the paper, so that it is not pulled towards the shrunken activations (SAELens 6 does not freeze it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from neuronmap.saes.base import ArchitectureOptions, Revival, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels import dense
from neuronmap.saes.kernels.choice import backend, is_sparse
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.entries import above_floor, at_entries, entry_limit, sums_over_entries
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.options import GatedOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["GatedOptions", "GatedSAE"]


class GatedSAE(SparseAutoencoder):
    """Gated SAE: one encoder matrix decides which features are active and, rescaled, how strongly.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`GatedOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    architecture: ClassVar[str] = "gated"
    Options: ClassVar[type[ArchitectureOptions]] = GatedOptions
    revival: ClassVar[Revival] = "resample"
    splits_batches: ClassVar[bool] = True
    splits_features: ClassVar[bool] = True

    b_gate: nn.Parameter
    """[F]"""
    b_mag: nn.Parameter
    """[F]"""
    r_mag: nn.Parameter
    """[F], logarithm of the magnitude encoder's scale against the gate's"""

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
        self.b_gate = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))
        self.b_mag = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))
        self.r_mag = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))

    def pre_activations(self, x: Tensor) -> Tensor:
        """Gate pre-activations [..., F]; a feature is off where they are not above zero."""
        return (x - self.b_dec) @ self.W_enc + self.b_gate

    def encoder_start(self) -> float:
        """A quarter: half of the features start active, with unit columns their sum overshoots x by F / 2D, and unlearning
        that kills features."""
        return 0.25

    def encode(self, x: Tensor) -> Tensor:
        """Magnitudes where the gate is open, else zero."""
        product = (self.normalised(x) - self.b_dec) @ self.W_enc
        magnitude = torch.relu(product * self.r_mag.exp() + self.b_mag)
        return magnitude * (product + self.b_gate > 0)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """Magnitudes of the open gates; one that is not positive stays as 0."""
        gates = above_floor((self.normalised(x_BD), self.b_dec, self.W_enc), self.b_gate, None, workspace)
        return None if gates is None else replace(gates, value_N=self._magnitudes(gates))

    def _magnitudes(self, gates: SparseCode) -> Tensor:
        """[N], the activation at each open gate."""
        product_N = gates.value_N - at_entries(self.b_gate, gates)
        return torch.addcmul(at_entries(self.b_mag, gates), product_N, at_entries(self.r_mag.exp(), gates)).relu_()

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        f_BF = self.encode(x_BD)
        gate_BF = torch.relu(self.pre_activations(x_BD))
        mse = (x_BD - self.decode(f_BF)).square().sum(dim=1).mean()
        sparsity = (gate_BF * torch.linalg.vector_norm(self.W_dec, dim=1)).sum(dim=1).mean()
        frozen_BD = gate_BF @ self.W_dec.detach() + self.b_dec.detach()
        aux = (x_BD - frozen_BD).square().sum(dim=1).mean()
        total = mse + state.sparsity_scale * self._penalty * sparsity + aux
        return StepLoss(total, {"mse": mse, "sparsity": sparsity, "aux": aux}, (f_BF > 0).sum(dim=0))

    @torch.no_grad()
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """The same by hand: over the open gates once they are few, else as matrix products."""
        kernels = backend(workspace, self.W_enc)
        loss = None
        if is_sparse(workspace, kernels, state.active_share):
            loss = self._sparse_step(x_BD, state, workspace, kernels)
        workspace.ran = "dense" if loss is None else "sparse"
        return loss if loss is not None else self._dense_step(x_BD, state, workspace)

    def _sparse_step(self, x_BD: Tensor, state: StepState, workspace: Workspace, kernels: Kernels) -> StepLoss | None:
        """One matrix product, the encoder's; None if too many gates are open for that to pay.

        The entries are the open gates; a magnitude that is not positive stays among them as 0.
        """
        rows, widths, scale = len(x_BD), (self.d_sae,), 2.0 / len(x_BD)
        c_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("c", (rows, self.d_in), x_BD.dtype))
        limit = entry_limit(workspace, kernels, rows, self.d_sae)
        encoded = kernels.encode_above(Encoder(c_BD, self.W_enc, self.b_gate), None, limit)
        if encoded is None:
            return None
        gates = encoded.code
        scale_N = at_entries(self.r_mag.exp(), gates)
        f_N = self._magnitudes(gates)
        code = replace(gates, value_N=f_N)
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        weight = state.sparsity_scale * self._penalty / rows
        gate_sum_F = sums_over_entries(gates, gates.value_N)
        sparsity = workspace.features.sum_(torch.dot(gate_sum_F, norm_F) / rows)

        frozen = kernels.reconstruct(gates, self.W_dec, c_BD, widths, scale)
        aux = frozen.squared_L[-1]
        g_gate_N = frozen.gradient_N.add_(at_entries(norm_F, gates), alpha=weight)
        found = kernels.reconstruct(code, self.W_dec, c_BD, widths, scale)
        mse = found.squared_L[-1]
        g_f_N = dense.keep_where_positive(found.gradient_N, f_N)

        g_mag_F = dense.gradient_of(self.b_mag).copy_(sums_over_entries(code, g_f_N))
        g_scale_F = dense.gradient_of(self.r_mag).copy_(sums_over_entries(code, f_N * g_f_N))
        g_scale_F.addcmul_(self.b_mag, g_mag_F, value=-1.0)
        dense.gradient_of(self.b_gate).copy_(sums_over_entries(code, g_gate_N))
        g_pre_N = g_gate_N.addcmul_(g_f_N, scale_N)
        g_pre_sum_F = torch.empty_like(self.b_gate)
        gradients = (dense.gradient_of(self.W_enc), g_pre_sum_F, dense.gradient_of(self.W_dec))
        kernels.weight_gradients(code, g_pre_N, found, c_BD, widths, scale, gradients)
        if not state.unit_rows:  # else the parameter step would take it out again
            dense.add_norm_gradient(self.W_dec, norm_F, gate_sum_F.mul_(weight))
        b_dec_grad = torch.sum(found.error_BD, dim=0, out=dense.gradient_of(self.b_dec)).mul_(scale)
        dense.subtract_encoder_share(b_dec_grad, self.W_enc, g_pre_sum_F, workspace.features)
        total = mse + state.sparsity_scale * self._penalty * sparsity + aux
        fired_F = sums_over_entries(code, (f_N > 0).to(f_N.dtype)).to(torch.int64)
        return StepLoss(total, {"mse": mse, "sparsity": sparsity, "aux": aux}, fired_F)

    def _dense_step(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """Seven matrix products' worth of work (autograd: thirteen), four B x F buffers.

        Magnitudes and gates share the decoder, so their decodes and the gradients back run as one product over the
        2B rows of ``both``: f above, relu(gate) below.
        """
        rows, dtype = len(x_BD), x_BD.dtype
        c_BD = workspace.get("c", (rows, self.d_in), dtype)
        error_2BD = workspace.get("error", (2 * rows, self.d_in), dtype)
        both_2BF = workspace.get("f", (2 * rows, self.d_sae), dtype)
        g_2BF = workspace.get("g", (2 * rows, self.d_sae), dtype)
        f_BF, gate_BF = both_2BF[:rows], both_2BF[rows:]
        g_f_BF, g_gate_BF = g_2BF[:rows], g_2BF[rows:]
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        scale_F = self.r_mag.exp()
        weight = state.sparsity_scale * self._penalty / rows

        torch.sub(x_BD, self.b_dec, out=c_BD)
        torch.mm(c_BD, self.W_enc, out=gate_BF)
        torch.addcmul(self.b_mag, gate_BF, scale_F, out=f_BF).relu_()
        gate_BF.add_(self.b_gate).relu_()
        dense.keep_where_positive(f_BF, gate_BF)
        fired_F = dense.count_active(torch.gt(f_BF, 0, out=g_f_BF))
        gate_sum_F = gate_BF.sum(dim=0)

        features = workspace.features
        mse = dense.decode_error(f_BF, x_BD, self.W_dec, self.b_dec, error_2BD[:rows], features)
        aux = dense.decode_error(gate_BF, x_BD, self.W_dec, self.b_dec, error_2BD[rows:], features)
        sparsity = features.sum_(torch.dot(gate_sum_F, norm_F) / rows)

        error_2BD.mul_(2.0 / rows)
        torch.mm(f_BF.T, error_2BD[:rows], out=dense.gradient_of(self.W_dec))
        torch.sum(error_2BD[:rows], dim=0, out=dense.gradient_of(self.b_dec))
        torch.mm(error_2BD, self.W_dec.T, out=g_2BF)
        dense.add_norm_gradient(self.W_dec, norm_F, gate_sum_F.mul_(weight))

        g_gate_BF.add_(norm_F, alpha=weight)
        dense.keep_where_positive(g_gate_BF, gate_BF)
        dense.keep_where_positive(g_f_BF, f_BF)
        g_gate_F = torch.sum(g_gate_BF, dim=0, out=dense.gradient_of(self.b_gate))
        g_mag_F = torch.sum(g_f_BF, dim=0, out=dense.gradient_of(self.b_mag))
        # Where the gradient is not zero, c @ W_enc * exp(r_mag) = f - b_mag, so the product itself is not needed again.
        g_scale_F = torch.sum(f_BF.mul_(g_f_BF), dim=0, out=dense.gradient_of(self.r_mag))
        g_scale_F.addcmul_(self.b_mag, g_mag_F, value=-1.0)

        g_pre_BF = g_gate_BF.addcmul_(g_f_BF, scale_F)
        g_pre_sum_F = torch.addcmul(g_gate_F, g_mag_F, scale_F)
        dense.encoder_gradients(c_BD, g_pre_BF, g_pre_sum_F, self.W_enc, self.b_dec, features)
        total = mse + state.sparsity_scale * self._penalty * sparsity + aux
        return StepLoss(total, {"mse": mse, "sparsity": sparsity, "aux": aux}, fired_F)

    @property
    def _penalty(self) -> float:
        return cast(GatedOptions, self.options).sparsity_penalty

    def scaled_tensors(self) -> list[Tensor]:
        """The three biases; ``r_mag`` is a pure number."""
        return [self.b_dec, self.b_gate, self.b_mag]

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it."""
        return {"architecture": "gated"}
