"""TopK SAE (arXiv 2406.04093), and the training step that the whole top-k family shares.

Shapes: B rows, D = d_in, F = d_sae, K = k, N kept entries of the batch, L nested levels (1 except for Matryoshka).

    pre_BF = (x - b_dec) @ W_enc + b_enc
    f_BF   = the k largest of each row of pre, then ReLU (fewer than k may be active)
    xhat   = f @ W_dec + b_dec
    loss   = mean_b |x - xhat|^2 + aux_coefficient * AuxK

Of a step's six B x D x F products only the encoder's forward one is done, by blocks, so that pre_BF never exists as a
whole; the others touch the N kept entries (see ``kernels.protocol``). What a step costs is in docs/performance.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neuronmap.saes.auxk import AuxProblem, auxk_gradients, auxk_loss
from neuronmap.saes.base import ArchitectureOptions, Revival, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.kernels.choice import backend, is_sparse, kernels_for
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.dense import gradient_of, subtract_encoder_share
from neuronmap.saes.kernels.protocol import Encoded, Encoder, Kernels
from neuronmap.saes.kernels.select import select_top_k
from neuronmap.saes.options import TopKOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["TopKFamily", "TopKOptions", "TopKSAE"]


class TopKFamily(SparseAutoencoder):
    """What TopK, BatchTopK and Matryoshka share: parameters, AuxK, and the sparse training step.

    A subclass says which entries are kept (``select``) and states its loss (``training_loss``).

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: the architecture's options; None for its defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    Options: ClassVar[type[ArchitectureOptions]] = TopKOptions
    revival: ClassVar[Revival] = "auxk"
    clip_norm: ClassVar[float | Literal["unit"]] = "unit"
    splits_batches: ClassVar[bool] = True
    splits_features: ClassVar[bool] = True
    options: TopKOptions

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

    def select(self, pre_BF: Tensor, k: int, workspace: Workspace) -> SparseCode:
        """The entries a training step keeps, of pre-activations that are there."""
        raise NotImplementedError

    def encode_kept(self, kernels: Kernels, encoder: Encoder, k: int) -> Encoded:
        """The same entries, of pre-activations that are never there as a whole."""
        raise NotImplementedError

    def level_widths(self) -> tuple[int, ...]:
        """Widths of the nested prefixes that are trained to reconstruct, ascending; the last is F."""
        return (self.d_sae,)

    def detaches_levels(self) -> bool:
        """Whether an inner level's error reaches only the features that the level adds (the last level's reaches all)."""
        return False

    def encoder_start(self) -> float:
        """A quarter: the k largest of F random projections overshoot x, most of all where the batch chooses."""
        return 0.25

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F]: (x - b_dec) @ W_enc + b_enc, by the operation that training uses, so that both select alike."""
        centred = (x - self.b_dec).reshape(-1, self.d_in)
        return torch.addmm(self.b_enc, centred, self.W_enc).view(*x.shape[:-1], self.d_sae)

    def scaled_tensors(self) -> list[Tensor]:
        """Both biases."""
        return [self.b_dec, self.b_enc]

    # --- training ------------------------------------------------------------------------------------------------

    def _k(self, state: StepState) -> int:
        return min(state.k if state.k is not None else self.options.k, self.whole_d_sae)

    def _dead(self, state: StepState) -> Tensor | None:
        """The dead mask if AuxK has anything to do."""
        if state.dead_F is None or self.options.aux_coefficient == 0.0 or not bool(state.dead_F.any()):
            return None
        return state.dead_F

    def _dead_features(self, state: StepState) -> Tensor | None:
        """int64 [M], the dead features if AuxK has anything to do. The device is only asked if the state holds a mask alone."""
        if state.dead_M is not None and self.options.aux_coefficient != 0.0:
            return state.dead_M if len(state.dead_M) or state.dead_F is not None else None
        dead_F = self._dead(state)
        return None if dead_F is None else torch.nonzero(dead_F).view(-1)

    @property
    def _aux_k(self) -> int:
        return self.options.aux_k if self.options.aux_k is not None else max(1, self.d_in // 2)

    def _training_code(self, x_BD: Tensor, state: StepState) -> tuple[Tensor, Tensor, SparseCode]:
        """For the reference: pre_BF and dense f_BF, both differentiable, and the selection, a constant."""
        pre_BF = self.pre_activations(x_BD)
        code = self.select(pre_BF.detach(), self._k(state), Workspace(x_BD.device))
        return pre_BF, dense_activations(pre_BF, code), code

    def _reference_loss(self, code: SparseCode, nested: Tensor, mse: Tensor, aux: Tensor | None) -> StepLoss:
        parts = {"mse": mse}
        total = nested
        if aux is not None:
            parts["aux"] = aux
            total = nested + self.options.aux_coefficient * aux
        return StepLoss(total, parts, code.fired(), code.smallest())

    def _reference_aux(self, pre_BF: Tensor, residual_BD: Tensor, state: StepState) -> Tensor | None:
        dead_F = self._dead(state)
        return None if dead_F is None else auxk_loss(pre_BF, residual_BD, self.W_dec, dead_F, self._aux_k)

    @torch.no_grad()
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """The same loss and its gradients, over kept entries only.

        For nested levels xhat_l = sum of the groups up to l: each group is decoded once, the errors r_l = xhat_l - x
        accumulate, and a feature of group g receives the sum of the errors of all levels l >= g (with detached levels: of
        l = g and of the last).
        """
        rows, k, widths = len(x_BD), self._k(state), self.level_widths()
        W_enc_grad, b_enc_grad = gradient_of(self.W_enc), gradient_of(self.b_enc)
        W_dec_grad, b_dec_grad = gradient_of(self.W_dec), gradient_of(self.b_dec)
        kernels = kernels_for(workspace, self.W_enc, k / self.whole_d_sae)
        centred_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("centred", (rows, self.d_in), self.dtype))
        dead_M = self._dead_features(state)
        encoder = Encoder(centred_BD, self.W_enc, self.b_enc, dead_M, state.rounded_W_enc)
        encoded = self.encode_kept(kernels, encoder, k)

        # 2 / (B L) is the derivative of a mean square, averaged over levels; it rides on the per-entry weights.
        scale = 2.0 / (rows * len(widths))
        found = kernels.reconstruct(encoded.code, self.W_dec, centred_BD, widths, scale, self.detaches_levels())
        gradients = (W_enc_grad, b_enc_grad, W_dec_grad)
        kernels.weight_gradients(encoded.code, found.gradient_N, found, centred_BD, widths, scale, gradients)
        torch.sum(found.pulled_LBD[0], dim=0, out=b_dec_grad).mul_(scale)

        parts = {"mse": found.squared_L[-1]}
        total = found.squared_L.mean()
        extra = {"level_mse": found.squared_L} if len(widths) > 1 else {}
        if dead_M is not None and encoded.kept_BM is not None:
            problem = AuxProblem(encoded.kept_BM, dead_M, centred_BD, found.error_BD, self._aux_k)
            coefficient = self.options.aux_coefficient
            parts["aux"] = auxk_gradients(
                problem, coefficient, (self.W_enc, self.b_enc, self.W_dec), kernels, workspace
            )
            total = total + coefficient * parts["aux"]
        # The product with the encoder's transpose is only needed summed over rows: sum first, then one vector.
        subtract_encoder_share(b_dec_grad, self.W_enc, b_enc_grad, workspace.features)
        return StepLoss(total, parts, encoded.code.fired(), encoded.code.smallest(), extra)


class TopKSAE(TopKFamily):
    """Keeps the k largest pre-activations of each row, then applies a ReLU. SAELens calls it ``topk``."""

    architecture: ClassVar[str] = "topk"

    def select(self, pre_BF: Tensor, k: int, workspace: Workspace) -> SparseCode:
        """The k largest of each row, ties to the lowest feature."""
        del workspace
        return select_top_k(pre_BF, k)

    def encode_kept(self, kernels: Kernels, encoder: Encoder, k: int) -> Encoded:
        """The same, fused with the product."""
        return kernels.encode_top_k(encoder, k)

    def encode(self, x: Tensor) -> Tensor:
        """The rule at the top of this file, with the option's k."""
        # The product and sum of SAELens, so that near ties fall alike there.
        pre_RF = SparseAutoencoder.pre_activations(self, self.normalised(x)).reshape(-1, self.d_sae)
        f_RF = dense_activations(pre_RF, select_top_k(pre_RF.detach(), self.options.k))
        return f_RF.view(*x.shape[:-1], self.d_sae)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """The k largest of each row, without the others."""
        kernels = backend(workspace, self.W_enc)
        if not is_sparse(workspace, kernels, self.options.k / self.whole_d_sae):
            return None
        encoder = Encoder((self.normalised(x_BD) - self.b_dec).contiguous(), self.W_enc, self.b_enc)
        return kernels.encode_top_k(encoder, self.options.k).code.trimmed()

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        pre_BF, f_BF, code = self._training_code(x_BD, state)
        residual_BD = x_BD - (f_BF @ self.W_dec + self.b_dec)
        mse = residual_BD.square().sum(dim=1).mean()
        return self._reference_loss(code, mse, mse, self._reference_aux(pre_BF, residual_BD, state))

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' ``topk``; decoder rows have unit norm, so its rescaling by them is switched off."""
        return {"architecture": "topk", "k": self.options.k, "rescale_acts_by_decoder_norm": False}


def dense_activations(pre_BF: Tensor, code: SparseCode) -> Tensor:
    """f_BF: pre-activations at the kept entries, zero elsewhere; differentiable in ``pre_BF``."""
    kept = (code.row_N, code.feature_N)
    return torch.zeros_like(pre_BF).index_put(kept, pre_BF[kept])
