"""``check_sae`` finds what is wrong: each class below breaks one rule, and the error names that rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from neuronmap.errors import PluginError
from neuronmap.saes import SparseAutoencoder, StepLoss, StepState, Workspace, check_sae
from neuronmap.saes.batchtopk import BatchTopKSAE
from neuronmap.saes.relu import ReLUSAE
from neuronmap.saes.topk import TopKSAE


class PlainReLU(ReLUSAE):
    """A sound plug-in: unregistered name, gradients by autograd."""

    architecture: ClassVar[str] = "plain-relu"
    loss_and_gradients = SparseAutoencoder.loss_and_gradients


class AcceptsAnyWidth(PlainReLU):
    def __init__(self, d_in: int, d_sae: int, options: Any = None, **where: Any) -> None:
        super().__init__(max(d_in, 1), max(d_sae, 1), options, **where)


class DrawsGlobalNumbers(PlainReLU):
    def __init__(self, d_in: int, d_sae: int, options: Any = None, **where: Any) -> None:
        super().__init__(d_in, d_sae, options, **where)
        torch.rand(1)


class IgnoresTheMean(PlainReLU):
    def initialise(self, mean_D: Tensor, generator: torch.Generator) -> None:
        super().initialise(torch.zeros_like(mean_D), generator)


class SharesItsResult(PlainReLU):
    def encode(self, x: Tensor) -> Tensor:
        f = super().encode(x)
        if torch.is_grad_enabled():
            return f
        return self.__dict__.setdefault("held", {}).setdefault(f.shape, f)


class SignedActivations(PlainReLU):
    def encode(self, x: Tensor) -> Tensor:
        return self.pre_activations(x)


class LooksAtItsNeighbours(PlainReLU):
    def encode(self, x: Tensor) -> Tensor:
        f = super().encode(x)
        return f * (f > 0.1 * f.max()) if f.dim() == 2 and len(f) > 48 else f


class ScalesTheBias(PlainReLU):
    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + 0.9 * self.b_dec


class ForgetsDecoderGradient(ReLUSAE):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        loss = super().loss_and_gradients(x_BD, state, workspace)
        assert self.b_dec.grad is not None
        self.b_dec.grad.mul_(0.5)
        return loss


class IgnoresTheWarmUp(ReLUSAE):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        return super().loss_and_gradients(x_BD, StepState(step=state.step, dead_F=state.dead_F), workspace)


class IgnoresAnnealedK(TopKSAE):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        return super().loss_and_gradients(x_BD, StepState(dead_F=state.dead_F), workspace)


class IgnoresDeadFeatures(TopKSAE):
    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        loss = super().training_loss(x_BD, StepState(k=state.k))
        if state.dead_F is not None:
            loss.parts["aux"] = torch.zeros((), dtype=x_BD.dtype)
        return loss


class ChangesParameters(ReLUSAE):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        loss = super().loss_and_gradients(x_BD, state, workspace)
        with torch.no_grad():
            self.b_enc.add_(1e-6)
        return loss


class AveragesOverDimensions(PlainReLU):
    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        loss = super().training_loss(x_BD, state)
        loss.parts["mse"] = loss.parts["mse"] / self.d_in
        return loss


class AccumulatesGradients(PlainReLU):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        with torch.enable_grad():
            loss = self.training_loss(x_BD, state)
            loss.total.backward()  # type: ignore[no-untyped-call]
        loss.total = loss.total.detach()
        loss.parts = {name: part.detach() for name, part in loss.parts.items()}
        return loss


class ReadsOldBuffers(ReLUSAE):
    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        loss = super().loss_and_gradients(x_BD, state, workspace)
        counter = workspace.get("calls", (1,), torch.int64)
        counter.fill_(int(counter) % 1000 + 1)
        assert self.b_enc.grad is not None
        self.b_enc.grad.add_(1e-9 * int(counter))
        return loss


class CountsFiringTwice(PlainReLU):
    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        loss = super().training_loss(x_BD, state)
        loss.fired_F = loss.fired_F * 2
        return loss


class ProjectsNothing(PlainReLU):
    def project_decoder_gradient(self) -> None:
        pass


class LetsNormsDrift(PlainReLU):
    def after_step(self, loss: StepLoss, state: StepState) -> None:
        pass


class UndoesLearning(PlainReLU):
    def after_step(self, loss: StepLoss, state: StepState) -> None:
        super().after_step(loss, state)
        with torch.no_grad():
            if state.step:
                self.W_enc.zero_()
                self.b_enc.fill_(-1.0)


class SkipsCalibration(BatchTopKSAE):
    def calibrate(self, batches: Callable[[], Iterable[Tensor]]) -> dict[str, float]:
        figures = super().calibrate(batches)
        self.threshold.mul_(1.05)
        return figures


class FoldsHalf(PlainReLU):
    def scaled_tensors(self) -> list[Tensor]:
        return [self.b_dec]


class HidesState(PlainReLU):
    def __init__(self, d_in: int, d_sae: int, options: Any = None, **where: Any) -> None:
        super().__init__(d_in, d_sae, options, **where)
        self.gain = 1.0

    def initialise(self, mean_D: Tensor, generator: torch.Generator) -> None:
        super().initialise(mean_D, generator)
        self.gain = 2.0

    def encode(self, x: Tensor) -> Tensor:
        return self.gain * super().encode(x)


class LosesABias(PlainReLU):
    def saelens_tensors(self) -> dict[str, Tensor]:
        tensors = super().saelens_tensors()
        return {**tensors, "b_enc": torch.zeros_like(tensors["b_enc"])}


class WritesForeignTensors(PlainReLU):
    def saelens_tensors(self) -> dict[str, Tensor]:
        return {**super().saelens_tensors(), "extra": torch.zeros(3)}


BROKEN = [
    (AcceptsAnyWidth, "the constructor stores", "need a ConfigError"),
    (DrawsGlobalNumbers, "the constructor stores", "global random numbers"),
    (IgnoresTheMean, "initialise", "b_dec"),
    (SharesItsResult, "encode keeps shapes", "overwritten"),
    (SignedActivations, "encode keeps shapes", "negative"),
    (LooksAtItsNeighbours, "one row never depends", "row"),
    (ScalesTheBias, "decode is affine", "b_dec"),
    (ForgetsDecoderGradient, "equals autograd", "gradient of b_dec"),
    (IgnoresTheWarmUp, "equals autograd", "sparsity_scale"),
    (IgnoresAnnealedK, "equals autograd", "annealed k"),
    (IgnoresDeadFeatures, "equals autograd", "dead features"),
    (ChangesParameters, "equals autograd", "changed b_enc"),
    (AveragesOverDimensions, "mean squared distance", "mse"),
    (AccumulatesGradients, "overwritten in place", "gradient of"),
    (ReadsOldBuffers, "", "gradient of b_enc"),
    (CountsFiringTwice, "fired_F counts", "number of rows"),
    (ProjectsNothing, "project_decoder_gradient", "along the decoder rows"),
    (LetsNormsDrift, "after_step restores", "unit norm"),
    (UndoesLearning, "training lowers mse", "mse"),
    (SkipsCalibration, "calibrate brings L0", "L0"),
    (FoldsHalf, "fold_input_scale", "encode"),
    (HidesState, "", ""),
    (LosesABias, "a saved bundle loads", "encode differs"),
    (WritesForeignTensors, "a saved bundle loads", "extra does not belong"),
]


def test_a_sound_plug_in_passes() -> None:
    check_sae(PlainReLU)


@pytest.mark.parametrize(("cls", "rule", "finding"), BROKEN, ids=[cls.__name__ for cls, _, _ in BROKEN])
def test_a_broken_rule_is_found_and_named(cls: type[SparseAutoencoder], rule: str, finding: str) -> None:
    with pytest.raises(PluginError) as raised:
        check_sae(cls)
    assert cls.__name__ in raised.value.message
    assert rule in raised.value.message
    assert finding in raised.value.message


def test_an_error_inside_a_rule_names_the_rule_and_keeps_its_cause() -> None:
    class Unfinished(PlainReLU):
        def encode(self, x: Tensor) -> Tensor:
            raise RuntimeError("no kernel")

    with pytest.raises(PluginError, match=r"Unfinished fails the rule 'encode keeps shapes.*no kernel") as raised:
        check_sae(Unfinished)
    assert isinstance(raised.value.__cause__, RuntimeError)
