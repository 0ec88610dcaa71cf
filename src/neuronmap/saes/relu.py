"""The ReLU SAE with an L1 penalty (Bricken et al. 2023; decoder-norm weighting: Conerly et al. 2024).

Shapes: B rows of a batch, D = d_in, F = d_sae.

    f    = relu((x - b_dec) @ W_enc + b_enc)
    loss = mean_b |x - xhat|^2  +  sparsity_penalty * mean_b sum_j f_j |W_dec_j|
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from neuronmap.saes.base import ArchitectureOptions, Revival, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels import dense
from neuronmap.saes.kernels.choice import backend, is_sparse
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.entries import above_floor, at_entries, entry_limit, sums_over_entries
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.options import ReLUOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["ReLUOptions", "ReLUSAE"]


class ReLUSAE(SparseAutoencoder):
    """ReLU encoder trained with an L1 penalty weighted by decoder norms. SAELens calls it ``standard``.

    The weighting keeps the penalty blind to a rescaling f -> a f, W_dec -> W_dec / a. With unit rows it is 1, and
    its gradient along the row is what the decoder projection takes away.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`ReLUOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    architecture: ClassVar[str] = "relu"
    Options: ClassVar[type[ArchitectureOptions]] = ReLUOptions
    revival: ClassVar[Revival] = "resample"
    splits_batches: ClassVar[bool] = True
    splits_features: ClassVar[bool] = True

    b_enc: nn.Parameter
    """[F]"""

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
        self.b_enc = nn.Parameter(torch.zeros(d_sae, device=device, dtype=dtype))

    def encoder_start(self) -> float:
        """A tenth: half of the features start active, with unit columns their sum overshoots x by F / 2D, and unlearning
        that kills features."""
        return 0.1

    def encode(self, x: Tensor) -> Tensor:
        """relu of the pre-activations."""
        return torch.relu(self.pre_activations(self.normalised(x)))

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """Positive pre-activations."""
        return above_floor((self.normalised(x_BD), self.b_dec, self.W_enc), self.b_enc, None, workspace)

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        f_BF = self.encode(x_BD)
        mse = (x_BD - self.decode(f_BF)).square().sum(dim=1).mean()
        sparsity = (f_BF * torch.linalg.vector_norm(self.W_dec, dim=1)).sum(dim=1).mean()
        total = mse + state.sparsity_scale * self._penalty * sparsity
        return StepLoss(total, {"mse": mse, "sparsity": sparsity}, (f_BF > 0).sum(dim=0))

    @torch.no_grad()
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """The same by hand: over the active entries once they are few, else as five matrix products."""
        kernels = backend(workspace, self.W_enc)
        loss = None
        if is_sparse(workspace, kernels, state.active_share):
            loss = self._sparse_step(x_BD, state, workspace, kernels)
        workspace.ran = "dense" if loss is None else "sparse"
        return loss if loss is not None else self._dense_step(x_BD, state, workspace)

    def _sparse_step(self, x_BD: Tensor, state: StepState, workspace: Workspace, kernels: Kernels) -> StepLoss | None:
        """One matrix product, the encoder's; None if too many features are active for that to pay."""
        rows, widths, scale = len(x_BD), (self.d_sae,), 2.0 / len(x_BD)
        c_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("c", (rows, self.d_in), x_BD.dtype))
        limit = entry_limit(workspace, kernels, rows, self.d_sae)
        encoded = kernels.encode_above(Encoder(c_BD, self.W_enc, self.b_enc), None, limit)
        if encoded is None:
            return None
        code = encoded.code
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        weight = state.sparsity_scale * self._penalty / rows
        sum_F = sums_over_entries(code, code.value_N)
        sparsity = workspace.features.sum_(torch.dot(sum_F, norm_F) / rows)

        found = kernels.reconstruct(code, self.W_dec, c_BD, widths, scale)
        gradient_N = found.gradient_N.add_(at_entries(norm_F, code), alpha=weight)
        b_enc_grad = dense.gradient_of(self.b_enc)
        gradients = (dense.gradient_of(self.W_enc), b_enc_grad, dense.gradient_of(self.W_dec))
        kernels.weight_gradients(code, gradient_N, found, c_BD, widths, scale, gradients)
        if not state.unit_rows:  # else the parameter step would take it out again
            dense.add_norm_gradient(self.W_dec, norm_F, sum_F.mul_(weight))
        b_dec_grad = torch.sum(found.error_BD, dim=0, out=dense.gradient_of(self.b_dec)).mul_(scale)
        dense.subtract_encoder_share(b_dec_grad, self.W_enc, b_enc_grad, workspace.features)
        mse = found.squared_L[-1]
        total = mse + state.sparsity_scale * self._penalty * sparsity
        return StepLoss(total, {"mse": mse, "sparsity": sparsity}, code.fired())

    def _dense_step(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """Five matrix products, one B x F buffer; block by block of features, so that what is done in between stays in cache."""
        rows, dtype = len(x_BD), x_BD.dtype
        c_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("c", (rows, self.d_in), dtype))
        error_BD = workspace.get("error", (rows, self.d_in), dtype)
        norm_F = torch.linalg.vector_norm(self.W_dec, dim=1)
        weight = state.sparsity_scale * self._penalty / rows
        blocks = dense.blocks_of(self.d_sae, rows, dtype)
        g_buffer = workspace.get("g", (rows * blocks[0][1],), dtype)
        f_buffer = workspace.get("f", (rows * self.d_sae,), dtype)
        sum_F, fired_F = torch.empty_like(norm_F), torch.empty_like(norm_F, dtype=torch.int64)
        W_enc_FD, W_enc_grad_FD = self.W_enc.T, dense.gradient_of(self.W_enc).T
        W_dec_grad, b_enc_grad = dense.gradient_of(self.W_dec), dense.gradient_of(self.b_enc)

        torch.neg(c_BD, out=error_BD)
        if workspace.features.rank:
            error_BD.zero_()  # x counts once
        f_parts: list[Tensor] = []
        for start, stop in blocks:
            f_BW = f_buffer[rows * start : rows * stop].view(rows, stop - start)
            g_BW = g_buffer[: f_BW.numel()].view_as(f_BW)
            torch.addmm(self.b_enc[start:stop], c_BD, W_enc_FD[start:stop].T, out=f_BW).relu_()
            fired_F[start:stop] = dense.count_active(torch.gt(f_BW, 0, out=g_BW))
            torch.sum(f_BW, dim=0, out=sum_F[start:stop])
            error_BD.addmm_(f_BW, self.W_dec[start:stop])
            f_parts.append(f_BW)
        workspace.features.sum_(error_BD)
        mse = torch.linalg.vector_norm(error_BD, dim=1).square_().mean()
        sparsity = workspace.features.sum_(torch.dot(sum_F, norm_F) / rows)

        error_BD.mul_(2.0 / rows)
        for (start, stop), f_BW in zip(blocks, f_parts, strict=True):
            g_BW = g_buffer[: f_BW.numel()].view_as(f_BW)
            torch.addmm(norm_F[start:stop], error_BD, self.W_dec[start:stop].T, beta=weight, out=g_BW)
            dense.keep_where_positive(g_BW, f_BW)
            torch.sum(g_BW, dim=0, out=b_enc_grad[start:stop])
            torch.mm(f_BW.T, error_BD, out=W_dec_grad[start:stop])
            torch.mm(g_BW.T, c_BD, out=W_enc_grad_FD[start:stop])
        if not state.unit_rows:  # else the parameter step would take it out again
            dense.add_norm_gradient(self.W_dec, norm_F, sum_F.mul_(weight))
        b_dec_grad = torch.sum(error_BD, dim=0, out=dense.gradient_of(self.b_dec))
        dense.subtract_encoder_share(b_dec_grad, self.W_enc, b_enc_grad, workspace.features)
        total = mse + state.sparsity_scale * self._penalty * sparsity
        return StepLoss(total, {"mse": mse, "sparsity": sparsity}, fired_F)

    @property
    def _penalty(self) -> float:
        return cast(ReLUOptions, self.options).sparsity_penalty

    def scaled_tensors(self) -> list[Tensor]:
        """Both biases."""
        return [self.b_dec, self.b_enc]

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it."""
        return {"architecture": "standard"}
