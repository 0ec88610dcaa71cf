"""LISTA-Matryoshka SAE: a nested BatchTopK SAE whose encoder looks twice (LISTA: Gregor & LeCun 2010; as an SAE: Chanin 2026).

Shapes: B rows, D = d_in, F = d_sae, L levels; eta = ``refinement_step``.

    c  = x - b_dec
    f1 = BatchTopK of c @ W_enc + b_enc                what a plain encoder sees
    z  = c + eta (c - f1 @ W_dec)                      the input, with what the first code leaves over made stronger
    f  = BatchTopK of z @ W_enc + b_enc
    loss: Matryoshka's of f, with its options (arXiv 2503.17547); AuxK takes z as given

(c @ W + b) + eta (c - f1 W_dec) @ W, the usual form, is z @ W + b: the second look is the same encoder on another input. A linear
encoder cannot tell a feature from the overlap of others that are active; after one look what these explain is taken away. At
inference each look has a threshold of its own, calibrated one after the other; a row never depends on its neighbours.

A step costs two encoder products instead of one, and three sparse passes more. SAELens has no such architecture and does not open
its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuronmap.saes.auxk import AuxProblem, auxk_gradients
from neuronmap.saes.base import ArchitectureOptions, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.batchtopk import THRESHOLD_DECAY
from neuronmap.saes.kernels.choice import kernels_for
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.dense import gradient_of
from neuronmap.saes.kernels.entries import above_floor
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.matryoshka import MatryoshkaSAE
from neuronmap.saes.options import ListaOptions
from neuronmap.saes.topk import dense_activations
from neuronmap.saes.workspace import Workspace

__all__ = ["ListaOptions", "ListaSAE"]


class ListaSAE(MatryoshkaSAE):
    """The rule at the top of this file.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`ListaOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    architecture: ClassVar[str] = "lista"
    Options: ClassVar[type[ArchitectureOptions]] = ListaOptions
    cuts_pre_activations: ClassVar[bool] = False
    splits_features: ClassVar[bool] = False
    options: ListaOptions

    first_threshold: Tensor
    """[F], all equal; the first look's."""
    first_threshold_sum: Tensor
    """0-d, running sum behind its mean, as ``threshold_sum`` is."""

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
        self.register_buffer("first_threshold", torch.zeros(d_sae, device=device, dtype=dtype))
        self.register_buffer("first_threshold_sum", torch.zeros((), device=device, dtype=dtype))

    def refined(self, centred: Tensor, explained: Tensor) -> Tensor:
        """z [..., D] of x - b_dec and f1 @ W_dec, both [..., D]."""
        return centred + self.options.refinement_step * (centred - explained)

    def encode(self, x: Tensor) -> Tensor:
        """The inference rule: both looks, each with its threshold."""
        normalised = self.normalised(x)
        first = SparseAutoencoder.pre_activations(self, normalised)
        f1 = torch.relu(first) * (first > self.first_threshold)
        second = self.refined(normalised - self.b_dec, f1 @ self.W_dec) @ self.W_enc + self.b_enc
        return torch.relu(second) * (second > self.threshold)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """The same, over what lies above the thresholds."""
        centred_BD = self.normalised(x_BD) - self.b_dec
        refined_BD = self._refined_entries(centred_BD, workspace)
        return None if refined_BD is None else self._above(refined_BD, self.threshold, workspace)

    def _above(self, centred_BD: Tensor, threshold_F: Tensor, workspace: Workspace) -> SparseCode | None:
        encoder = (centred_BD, torch.zeros_like(self.b_dec), self.W_enc)
        return above_floor(encoder, self.b_enc, threshold_F.clamp_min(0.0), workspace)

    def _refined_entries(self, centred_BD: Tensor, workspace: Workspace) -> Tensor | None:
        code = self._above(centred_BD, self.first_threshold, workspace)
        return None if code is None else self.refined(centred_BD, self.decode_entries(code) - self.b_dec)

    # --- training ------------------------------------------------------------------------------------------------

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        _, f1_BF, first = self._training_code(x_BD, state)
        refined_BD = self.refined(x_BD - self.b_dec, f1_BF @ self.W_dec)
        pre_BF = torch.addmm(self.b_enc, refined_BD, self.W_enc)
        code = self.select(pre_BF.detach(), self._k(state), Workspace(x_BD.device))
        nested, residual_BD = self._nested_loss(x_BD, dense_activations(pre_BF, code))
        mse = residual_BD.square().sum(dim=1).mean()
        given_BF = torch.addmm(self.b_enc, refined_BD.detach(), self.W_enc)
        loss = self._reference_loss(code, nested, mse, self._reference_aux(given_BF, residual_BD, state))
        loss.extra["first_threshold"] = first.smallest()
        return loss

    @torch.no_grad()
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """The same loss and its gradients, over kept entries only; the first code's part is added to the second's."""
        rows, k, widths = len(x_BD), self._k(state), self.level_widths()
        W_enc_grad, b_enc_grad = gradient_of(self.W_enc), gradient_of(self.b_enc)
        W_dec_grad, b_dec_grad = gradient_of(self.W_dec), gradient_of(self.b_dec)
        kernels = kernels_for(workspace, self.W_enc, k / self.d_sae)
        centred_BD = torch.sub(x_BD, self.b_dec, out=workspace.get("centred", (rows, self.d_in), self.dtype))
        first = self.encode_kept(kernels, Encoder(centred_BD, self.W_enc, self.b_enc, None, state.rounded_W_enc), k)
        over_BD = kernels.reconstruct(first.code, self.W_dec, centred_BD, (self.d_sae,), 1.0).error_BD
        explained_BD = torch.add(
            over_BD, centred_BD, out=workspace.get("lista.explained", (rows, self.d_in), self.dtype)
        )
        refined_BD = self.refined(centred_BD, explained_BD)
        dead_M = self._dead_features(state)
        second = self.encode_kept(kernels, Encoder(refined_BD, self.W_enc, self.b_enc, dead_M, state.rounded_W_enc), k)

        scale = 2.0 / (rows * len(widths))
        found = kernels.reconstruct(second.code, self.W_dec, centred_BD, widths, scale, self.detaches_levels())
        gradients = (W_enc_grad, b_enc_grad, W_dec_grad)
        kernels.weight_gradients(second.code, found.gradient_N, found, refined_BD, widths, scale, gradients)
        torch.sum(found.pulled_LBD[0], dim=0, out=b_dec_grad).mul_(scale)
        # What the refined input is pulled by; kept at the size of x until the end, so that little is lost beside x.
        pulled_BD = torch.nn.functional.embedding_bag(
            second.code.feature_N.long(), self.W_enc.T, second.code.offset_R, mode="sum",
            per_sample_weights=found.gradient_N / scale, include_last_offset=True,
        )  # fmt: skip

        parts, total = {"mse": found.squared_L[-1]}, found.squared_L.mean()
        extra = {"first_threshold": first.code.smallest()}
        if len(widths) > 1:
            extra["level_mse"] = found.squared_L
        if dead_M is not None and second.kept_BM is not None:
            problem = AuxProblem(second.kept_BM, dead_M, refined_BD, found.error_BD, self._aux_k)
            coefficient = self.options.aux_coefficient
            parts["aux"] = auxk_gradients(
                problem, coefficient, (self.W_enc, self.b_enc, self.W_dec), kernels, workspace
            )
            total = total + coefficient * parts["aux"]
        self._add_first_gradients(first.code, (centred_BD, explained_BD, pulled_BD), scale, kernels, workspace)
        return StepLoss(total, parts, second.code.fired(), second.code.smallest(), extra)

    def _add_first_gradients(
        self,
        code: SparseCode,
        rows_BD: tuple[Tensor, Tensor, Tensor],
        scale: float,
        kernels: Kernels,
        workspace: Workspace,
    ) -> None:
        """What reaches the parameters through z: b_dec directly, and everything through the first code.

        Args:
            code: the first code.
            rows_BD: x - b_dec, f1 @ W_dec, and what z is pulled by (over ``scale``).
        """
        centred_BD, explained_BD, pulled_BD = rows_BD
        eta, shape = self.options.refinement_step, (self.d_sae, self.d_in)
        b_dec_grad = gradient_of(self.b_dec)
        b_dec_grad.sub_(pulled_BD.sum(dim=0), alpha=(1.0 + eta) * scale)
        if eta == 0.0:
            return
        # Decoding the code against explained - pulled leaves pulled over.
        back = kernels.reconstruct(code, self.W_dec, explained_BD.sub_(pulled_BD), (self.d_sae,), -eta * scale)
        W_enc_FD = workspace.get("lista.W_enc", shape, self.dtype)
        W_dec_FD = workspace.get("lista.W_dec", shape, self.dtype)
        b_enc_F = workspace.get("lista.b_enc", (self.d_sae,), self.dtype)
        out = (W_enc_FD.T, b_enc_F, W_dec_FD)
        kernels.weight_gradients(code, back.gradient_N, back, centred_BD, (self.d_sae,), -eta * scale, out)
        gradient_of(self.W_enc).T.add_(W_enc_FD)
        gradient_of(self.W_dec).add_(W_dec_FD)
        gradient_of(self.b_enc).add_(b_enc_F)
        b_dec_grad.addmv_(self.W_enc, b_enc_F, alpha=-1.0)

    def after_step(self, loss: StepLoss, state: StepState) -> None:
        """Unit decoder rows, and both running thresholds."""
        super().after_step(loss, state)
        first = loss.extra.get("first_threshold")
        if first is not None:
            with torch.no_grad():
                self.first_threshold_sum.lerp_(first.to(self.dtype), 1 - THRESHOLD_DECAY)
                mean = self.first_threshold_sum / self.threshold_weight
                self.first_threshold.copy_(mean.expand_as(self.first_threshold))

    @torch.no_grad()
    def calibrate(self, batches: Callable[[], Iterable[Tensor]]) -> dict[str, float]:
        """Set both thresholds, the first look's first, each so that k entries per row are kept on average over these rows.

        Args:
            batches: gives the same scaled rows [B, D] each time it is called.

        Returns:
            Figures of the second look, as BatchTopK's, and ``first_threshold``.

        Raises:
            InputError: for no rows.
        """
        workspace = Workspace(self.device)
        first = self._fit_threshold(batches, self.first_threshold, lambda x_BD: x_BD - self.b_dec)

        def refined(x_BD: Tensor) -> Tensor:
            centred_BD = x_BD - self.b_dec
            found_BD = self._refined_entries(centred_BD, workspace)
            if found_BD is None:
                pre_BF = torch.addmm(self.b_enc, centred_BD, self.W_enc)
                f1_BF = torch.relu(pre_BF) * (pre_BF > self.first_threshold)
                found_BD = self.refined(centred_BD, f1_BF @ self.W_dec)
            return found_BD

        return {
            **self._fit_threshold(batches, self.threshold, refined),
            "first_threshold": first["threshold"],
        }

    def scaled_tensors(self) -> list[Tensor]:
        """Biases and all thresholds."""
        return [*super().scaled_tensors(), self.first_threshold, self.first_threshold_sum]

    def saelens_config(self) -> dict[str, Any]:
        """A name that SAELens does not have, and eta."""
        return {"architecture": "lista", "refinement_step": self.options.refinement_step}

    def saelens_tensors(self) -> dict[str, Tensor]:
        """The parameters and both thresholds."""
        return {**super().saelens_tensors(), "first_threshold": self.first_threshold}
