"""The parameter step equals torch.optim.Adam, with the decoder's rows kept at unit norm, and its gradient's energy is exact.

Shapes: D = d_in, F = d_sae.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.protocol import AdamStep
from neuronmap.saes.workspace import Workspace

SIZES = [(1, 1), (5, 7), (33, 130), (130, 33)]
LAYOUTS = ["by row", "by column", "a vector"]
STEPS = 12
RATE, BETA1, BETA2, EPSILON = 3e-3, 0.9, 0.999, 1e-8


def laid_out(tensor: Tensor, layout: str, dtype: torch.dtype) -> Tensor:
    """The same numbers in the memory layout of W_dec, of W_enc, or of a bias; always a copy."""
    tensor = tensor.to(dtype, copy=True)
    if layout == "a vector":
        return tensor.reshape(-1)
    return tensor.T.contiguous().T if layout == "by column" else tensor


@pytest.mark.parametrize("scale", [1.0, 0.03])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_adam_is_that_of_torch(backend, numbers, size, layout, scale):
    kernels = backend.make(Workspace())
    start = numbers(*size)
    parameter = laid_out(start, layout, backend.dtype)
    moments = (torch.zeros_like(parameter), torch.zeros_like(parameter))
    expected = laid_out(start, layout, torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([expected], lr=RATE, betas=(BETA1, BETA2), eps=EPSILON)
    for step in range(1, STEPS + 1):
        gradient = numbers(*size, seed=step) * 10.0 ** -(step % 4)
        expected.grad = laid_out(scale * gradient, layout, torch.float64)
        optimizer.step()
        settings = AdamStep(RATE, BETA1, BETA2, EPSILON, step)
        given = laid_out(gradient, layout, backend.dtype)
        kernels.adam(parameter, given, moments, settings, torch.tensor(scale, dtype=torch.float64), unit_rows=False)
    # float32: each step moves by at most RATE, so rounding its direction to 1e-6 shows at RATE * 1e-6 * STEPS, below that of W.
    torch.testing.assert_close(parameter.double(), expected.detach(), rtol=0, atol=max(backend.tolerance / 10, 1e-12))
    state = optimizer.state[expected]
    first, second = state["exp_avg"], state["exp_avg_sq"]  # the second has no terms that cancel
    torch.testing.assert_close(
        moments[0].double(), first, rtol=0, atol=backend.tolerance / 10 * float(first.abs().max())
    )
    torch.testing.assert_close(moments[1].double(), second, rtol=backend.tolerance / 5, atol=0)


@pytest.mark.parametrize("size", [(5, 7), (33, 130), (130, 33)])
def test_unit_rows_move_across_their_sphere(backend, numbers, size):
    """Against projection, torch.optim.Adam and renormalisation written out; a row whose gradient is 0 stays."""
    kernels = backend.make(Workspace())
    start = torch.nn.functional.normalize(numbers(*size), dim=1)
    W_FD = start.to(backend.dtype)
    moments = (torch.zeros_like(W_FD), torch.zeros_like(W_FD))
    expected = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([expected], lr=RATE, betas=(BETA1, BETA2), eps=EPSILON)
    for step in range(1, STEPS + 1):
        gradient = numbers(*size, seed=step)
        gradient[2] = 0.0
        with torch.no_grad():
            along_F1 = (gradient * expected).sum(1, keepdim=True)
            expected.grad = 0.5 * (gradient - along_F1 * expected)
            optimizer.step()
            expected.div_(expected.norm(dim=1, keepdim=True))
        settings = AdamStep(RATE, BETA1, BETA2, EPSILON, step)
        kernels.adam(W_FD, gradient.to(backend.dtype), moments, settings, torch.tensor(0.5), unit_rows=True)
    torch.testing.assert_close(W_FD.double(), expected.detach(), rtol=0, atol=backend.tolerance)
    torch.testing.assert_close(W_FD.double().norm(dim=1), torch.ones(size[0], dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(W_FD[2].double(), start[2], rtol=0, atol=backend.tolerance)


def test_rows_of_zeros_stay_finite(backend, numbers):
    W_FD = torch.zeros(3, 5, dtype=backend.dtype)
    moments = (torch.zeros_like(W_FD), torch.zeros_like(W_FD))
    step = AdamStep(RATE, BETA1, BETA2, EPSILON, 1)
    backend.make(Workspace()).adam(W_FD, torch.zeros_like(W_FD), moments, step, torch.tensor(1.0), unit_rows=True)
    assert torch.equal(W_FD, torch.zeros_like(W_FD))


@pytest.mark.parametrize("size", [*SIZES, (1037, 7)])
def test_energy_leaves_out_what_lies_along_the_rows(backend, numbers, size):
    features, d_in = size
    W_FD = torch.nn.functional.normalize(numbers(*size), dim=1)
    gradient_FD = numbers(*size, seed=1)
    gradient_FD[0] = 100.0 * W_FD[0]  # all of it along the row: nothing is left, and rounding must not go below 0
    others = (numbers(d_in, features, seed=2), numbers(features, seed=3), numbers(d_in, seed=4))
    along_F1 = (gradient_FD * W_FD).sum(1, keepdim=True)
    expected = (gradient_FD - along_F1 * W_FD).square().sum() + sum(other.square().sum() for other in others)
    given = [gradient_FD.to(backend.dtype), *(other.to(backend.dtype) for other in others)]
    given[1] = given[1].T.contiguous().T  # W_enc lies by feature
    before = [tensor.clone() for tensor in given]
    energy = backend.make(Workspace()).gradient_energy(W_FD.to(backend.dtype), given[0], given[1:])
    assert energy.ndim == 0
    # The part along a row is taken out of the squares: its 1e4 is rounded.
    torch.testing.assert_close(energy.double(), expected, rtol=backend.tolerance, atol=1e4 * backend.tolerance)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


def test_energy_of_a_gradient_along_its_row_is_not_negative(backend, numbers):
    W_FD = torch.nn.functional.normalize(numbers(200, 33), dim=1).to(backend.dtype)
    assert float(backend.make(Workspace()).gradient_energy(W_FD, 1e3 * W_FD, [])) >= 0.0


# NumPy, in which Triton's interpreter computes, says it when infinities cancel.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["decoder", "encoder", "bias"])
def test_energy_of_a_gradient_that_is_not_finite_is_not_finite(backend, numbers, bad, where):
    """Clipping must see it."""
    W_FD = torch.nn.functional.normalize(numbers(20, 7), dim=1).to(backend.dtype)
    gradients = {
        "decoder": torch.ones_like(W_FD),
        "encoder": torch.ones_like(W_FD).T,
        "bias": torch.ones_like(W_FD[:, 0]),
    }
    gradients[where][3] = bad
    decoder, *others = gradients.values()
    assert not bool(backend.make(Workspace()).gradient_energy(W_FD, decoder, others).isfinite())


def test_the_step_and_the_energy_are_the_same_bits_with_any_number_of_threads(native_backend, numbers):
    threads, found = torch.get_num_threads(), []
    start, gradient = (numbers(2000, 37, seed=seed).to(native_backend.dtype) for seed in (0, 1))
    try:
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            kernels = native_backend.make(Workspace())
            W_FD, moments = start.clone(), (torch.zeros_like(start), torch.zeros_like(start))
            # Sums in another order often round alike: take many.
            energies = [kernels.gradient_energy(W_FD[:last], gradient[:last], [start.T]) for last in range(1900, 2000)]
            step = AdamStep(RATE, BETA1, BETA2, EPSILON, 1)
            kernels.adam(W_FD, gradient.clone(), moments, step, torch.tensor(0.7), unit_rows=True)
            found.append((torch.stack(energies), W_FD, *moments))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rounded_copy_is_that_of_the_updated_parameter(backend, numbers, layout):
    parameter = laid_out(numbers(33, 130), layout, backend.dtype)
    moments = (torch.zeros_like(parameter), torch.zeros_like(parameter))
    rounded = torch.zeros_like(parameter, dtype=torch.bfloat16)
    step = AdamStep(RATE, BETA1, BETA2, EPSILON, 1)
    kernels = backend.make(Workspace())
    kernels.adam(parameter, torch.ones_like(parameter), moments, step, torch.tensor(1.0), False, rounded)
    # Triton's interpreter cuts off what hardware rounds to the nearest: one unit of the last of 8 bits.
    torch.testing.assert_close(rounded.to(parameter.dtype), parameter, rtol=2**-7, atol=0)


@pytest.mark.parametrize("shape", [(), (3, 2, 4)])
def test_a_parameter_of_any_shape_is_updated(backend, numbers, shape):
    """Plug-ins have scalars, and tensors of three axes."""
    kernels = backend.make(Workspace())
    count = math.prod(shape)
    parameter = numbers(count).to(backend.dtype).view(shape)
    gradient = numbers(count, seed=1).to(backend.dtype).view(shape)
    expected = parameter.double().clone().requires_grad_()
    expected.grad = gradient.double()
    torch.optim.Adam([expected], lr=RATE, betas=(BETA1, BETA2), eps=EPSILON).step()
    W_FD = torch.eye(2, dtype=backend.dtype)
    energy = kernels.gradient_energy(W_FD, torch.zeros_like(W_FD), [gradient])
    assert float(energy) == pytest.approx(float(gradient.double().square().sum()), rel=1e-5)
    moments = (torch.zeros_like(parameter), torch.zeros_like(parameter))
    one = torch.tensor(1.0, dtype=backend.dtype)
    kernels.adam(parameter, gradient, moments, AdamStep(RATE, BETA1, BETA2, EPSILON, 1), one, unit_rows=False)
    torch.testing.assert_close(parameter.double(), expected.detach(), rtol=0, atol=1e-6)


def test_the_native_step_takes_a_parameter_of_another_precision(native_backend, numbers):
    kernels = native_backend.make(Workspace())
    other = torch.float32 if native_backend.dtype == torch.float64 else torch.float64
    parameter, gradient = numbers(5).to(other), numbers(5, seed=1).to(other)
    expected = parameter - RATE * gradient.sign()  # what Adam's first step is
    moments = (torch.zeros_like(parameter), torch.zeros_like(parameter))
    one = torch.tensor(1.0)
    kernels.adam(parameter, gradient, moments, AdamStep(RATE, BETA1, BETA2, EPSILON, 1), one, unit_rows=False)
    torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-5)
