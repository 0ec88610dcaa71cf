"""``check_sae``: the public contract of an SAE architecture as code. Built-in architectures and plug-ins run the same rules.

Shapes: B rows, T tokens, D = d_in, F = d_sae, N rows of a data set.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, NeuronMapError, PluginError
from neuronmap.saes.base import ArchitectureOptions, SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.bundle import load_sae, save_bundle
from neuronmap.saes.metadata import BundleMetadata
from neuronmap.saes.workspace import Workspace

__all__ = ["check_sae"]

_ROWS = 48
_K = 4
_TRAINING_STEPS = 120
_CALIBRATION_TOLERANCE = 0.02


class _Broken(Exception):
    """Carries what a rule found up to :func:`check_sae`, which names the rule."""


@dataclass(frozen=True)
class _Case:
    """The architecture under test and its sizes."""

    cls: type[SparseAutoencoder]
    d_in: int
    d_sae: int
    options: ArchitectureOptions | None
    seed: int

    def generator(self, offset: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + offset)

    def new(self, dtype: torch.dtype = torch.float64) -> SparseAutoencoder:
        """An SAE with every parameter away from its special values (zero biases would hide mistakes)."""
        sae = self.cls(self.d_in, self.d_sae, self.options, dtype=dtype)
        generator = self.generator(1)
        sae.initialise(torch.zeros(self.d_in, dtype=dtype), generator)
        with torch.no_grad():
            for parameter in sae.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((0.05 * noise).to(dtype))
            sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        # after_step brings the other parameters back to where training keeps them (thresholds not below zero).
        x_BD = self.rows(dtype=dtype, offset=5)
        sae.after_step(sae.loss_and_gradients(x_BD, StepState(), Workspace()), StepState())
        sae.zero_grad(set_to_none=True)
        if sae.calibrated:
            sae.calibrate(lambda: iter([x_BD]))
        return sae

    def rows(self, count: int = _ROWS, dtype: torch.dtype = torch.float64, offset: int = 2) -> Tensor:
        """[count, D] sparse mixtures of fixed directions with E|x|^2 = 1, the scale that trainers feed."""
        atoms = 2 * self.d_in
        directions = torch.randn(atoms, self.d_in, generator=self.generator(99), dtype=torch.float64)
        directions /= directions.norm(dim=1, keepdim=True)
        generator = self.generator(offset)
        active = torch.rand(count, atoms, generator=generator, dtype=torch.float64) < 3 / atoms
        strength = 0.5 + torch.rand(count, atoms, generator=generator, dtype=torch.float64)
        rows = (active * strength) @ directions + 0.02 * torch.randn(
            count, self.d_in, generator=generator, dtype=torch.float64
        )
        return (rows / rows.square().sum(dim=1).mean().sqrt()).to(dtype)

    def states(self) -> Iterator[tuple[str, StepState]]:
        """Training states that reach each part of a loss."""
        dead_F = torch.zeros(self.d_sae, dtype=torch.bool)
        dead_F[::3] = True
        yield "at the start", StepState()
        yield "with sparsity_scale 0.5", StepState(step=3, sparsity_scale=0.5)
        yield "with sparsity_scale 0", StepState(step=0, sparsity_scale=0.0)
        yield "with dead features", StepState(step=10, dead_F=dead_F)
        yield "with all features dead", StepState(step=10, dead_F=torch.ones(self.d_sae, dtype=torch.bool))
        if hasattr(self.new().options, "k"):
            yield "with an annealed k", StepState(step=5, k=_K + 3, dead_F=dead_F)


def check_sae(
    cls: type[SparseAutoencoder],
    d_in: int = 12,
    d_sae: int = 48,
    seed: int = 0,
    *,
    options: ArchitectureOptions | None = None,
) -> None:
    """Run every rule that training, evaluation, files and the explorer rely on. Takes a few seconds on a CPU.

    Args:
        cls: the architecture's class.
        d_in: width to test at, at least 4.
        d_sae: number of features to test at, at least 16.
        seed: of all random numbers used.
        options: options to test with; None takes the defaults, with ``k = 4`` where there is a k.

    Raises:
        PluginError: at the first broken rule; the message names the class, the rule and what was seen.
        ConfigError: for sizes below those, and for an architecture that is read only.
    """
    if not getattr(cls, "trainable", True):
        raise ConfigError(f"check_sae proves training right, and a {cls.architecture} is not trained by NeuronMap.")
    if d_in < 4 or d_sae < 16:
        raise ConfigError(f"check_sae needs d_in >= 4 and d_sae >= 16, got {d_in} and {d_sae}.")
    for title, rule in _RULES:
        try:
            case = _Case(cls, d_in, d_sae, options if options is not None else _options_for(cls), seed)
            rule(case)
        except _Broken as broken:
            raise PluginError(f"{cls.__name__} breaks the rule '{title}': {broken}") from None
        except Exception as error:
            raise PluginError(f"{cls.__name__} fails the rule '{title}' with {error!r}.") from error


def _options_for(cls: type[SparseAutoencoder]) -> ArchitectureOptions:
    return cls.Options.from_dict({"k": _K}) if "k" in cls.Options.model_fields else cls.Options()


# --- tools of the rules ----------------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _Broken(message)


def _require_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Largest difference relative to the largest expected value."""
    _require(found.shape == expected.shape, f"{what} has shape {list(found.shape)}, expected {list(expected.shape)}")
    found, expected = found.detach(), expected.detach()
    scale = max(float(expected.abs().max()), 1e-3) if expected.numel() else 1.0
    difference = float((found.double() - expected.double()).abs().max()) / scale if expected.numel() else 0.0
    _require(difference <= tolerance, f"{what} differs by {difference:.2e} (relative; at most {tolerance:.0e})")


def _fast(sae: SparseAutoencoder, x_BD: Tensor, state: StepState) -> tuple[StepLoss, dict[str, Tensor]]:
    loss = sae.loss_and_gradients(x_BD, state, Workspace())
    return loss, _gradients(sae)


def _gradients(sae: SparseAutoencoder) -> dict[str, Tensor]:
    found = {}
    for name, parameter in sae.named_parameters():
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    return found


def _snapshot(sae: SparseAutoencoder) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}


def _require_unchanged(sae: SparseAutoencoder, before: dict[str, Tensor], what: str) -> None:
    for name, tensor in sae.state_dict().items():
        _require(torch.equal(tensor, before[name]), f"{what} changed {name}")


def _train(case: _Case, dtype: torch.dtype = torch.float32) -> tuple[SparseAutoencoder, list[float], Tensor]:
    """A small run as the trainer does it: loss, projection, Adam, after_step."""
    rows_ND = case.rows(1024, dtype, offset=7)
    sae = case.cls(case.d_in, case.d_sae, case.options, dtype=dtype)
    sae.initialise(rows_ND.mean(dim=0), case.generator(8))
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3, betas=sae.adam_betas)
    workspace, order, losses = Workspace(), case.generator(9), []
    for step in range(_TRAINING_STEPS):
        x_BD = rows_ND[torch.randint(0, len(rows_ND), (128,), generator=order)]
        state = StepState(step=step, sparsity_scale=min(1.0, step / 40))
        loss = sae.loss_and_gradients(x_BD, state, workspace)
        sae.project_decoder_gradient()
        optimiser.step()
        sae.after_step(loss, state)
        losses.append(float(loss.parts["mse"]))
    return sae, losses, rows_ND


# --- the rules -------------------------------------------------------------------------------------------------------


def _rule_constructor(case: _Case) -> None:
    cls = case.cls
    _require(isinstance(cls.architecture, str) and bool(cls.architecture), "architecture must be a name")
    _require(issubclass(cls.Options, ArchitectureOptions), "Options must subclass ArchitectureOptions")
    before = torch.get_rng_state()
    sae = cls(case.d_in, case.d_sae, case.options)
    _require(torch.equal(before, torch.get_rng_state()), "the constructor draws global random numbers (use initialise)")
    _require((sae.d_in, sae.d_sae) == (case.d_in, case.d_sae), "d_in and d_sae are not kept")
    _require(sae.options == case.options, "options are not kept")
    for name, shape in {
        "W_enc": (case.d_in, case.d_sae),
        "W_dec": (case.d_sae, case.d_in),
        "b_dec": (case.d_in,),
    }.items():
        found = tuple(getattr(sae, name).shape)
        _require(found == shape, f"{name} has shape {list(found)}, expected {list(shape)}")
    for d_in, d_sae in ((0, 8), (8, 0), (-1, 8)):
        try:
            cls(d_in, d_sae, case.options)
        except ConfigError:
            continue
        raise _Broken(f"d_in={d_in} and d_sae={d_sae} are accepted; they need a ConfigError")


def _rule_initialise(case: _Case) -> None:
    mean_D = torch.linspace(-1, 1, case.d_in, dtype=torch.float64)
    built = []
    for _ in range(2):
        sae = case.cls(case.d_in, case.d_sae, case.options, dtype=torch.float64)
        before = torch.get_rng_state()
        sae.initialise(mean_D, case.generator(3))
        _require(torch.equal(before, torch.get_rng_state()), "initialise draws random numbers outside its generator")
        built.append(sae)
    _require_unchanged(built[0], _snapshot(built[1]), "a second initialise with the same generator")
    _require_close(built[0].W_dec.norm(dim=1), torch.ones(case.d_sae), "norms of decoder rows", 1e-6)
    _require_close(built[0].b_dec, mean_D, "b_dec after initialise (the mean)", 1e-6)


def _rule_encode(case: _Case) -> None:
    sae = case.new()
    x_BD = case.rows()
    before, kept = _snapshot(sae), x_BD.clone()
    with torch.no_grad():
        f_BF = sae.encode(x_BD)
        for x, shape in ((x_BD[0], []), (x_BD, [_ROWS]), (x_BD.view(4, -1, case.d_in), [4, _ROWS // 4])):
            f = sae.encode(x)
            _require(list(f.shape) == [*shape, case.d_sae], f"encode of {list(x.shape)} has shape {list(f.shape)}")
            _require_close(f.reshape(-1, case.d_sae), f_BF[: f.numel() // case.d_sae], f"encode of {list(x.shape)}")
            _require(list(sae.decode(f).shape) == list(x.shape), f"decode of {list(f.shape)} has a wrong shape")
        _require(f_BF.dtype == torch.float64, f"encode of float64 gives {f_BF.dtype}")
        _require(not f_BF.is_sparse, "encode must give a dense tensor")
        _require(bool((f_BF >= 0).all()), "activations must not be negative")
        _require(bool((f_BF > 0).any()), "no feature is ever active")
        again = f_BF.clone()
        f_BF.fill_(-7.0)
        _require_close(sae.encode(x_BD), again, "encode after its last result was overwritten")
    _require(torch.equal(x_BD, kept), "encode or decode changed its input")
    _require_unchanged(sae, before, "encode or decode")
    empty = sae.encode(x_BD[:0])
    _require(list(empty.shape) == [0, case.d_sae], f"encode of no rows has shape {list(empty.shape)}")


def _rule_rows(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    with torch.no_grad():
        whole_BF = sae.encode(x_BD)
        alone_BF = torch.stack([sae.encode(x_D) for x_D in x_BD])
        loud_BF = sae.encode(torch.cat([x_BD, 50 * x_BD]))[:_ROWS]
    _require_close(alone_BF, whole_BF, "a row encoded alone")
    _require_close(loud_BF, whole_BF, "a row encoded beside larger rows")


def _rule_entries(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    f_BF = sae.encode(x_BD).detach()
    for products in ("sparse", "dense"):
        code = sae.encode_entries(x_BD, Workspace(products=products))
        if code is None:
            continue
        _require_close(code.dense(code.value_N, torch.empty_like(f_BF)), f_BF, "encode_entries against encode")
        with torch.no_grad():
            _require_close(sae.decode_entries(code), sae.decode(f_BF), "decode_entries against decode")


def _rule_decode(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    with torch.no_grad():
        f_BF = sae.encode(x_BD)
        zero_D = sae.decode(torch.zeros(case.d_sae, dtype=torch.float64))
        _require_close(zero_D, sae.b_dec.detach(), "decode of no features (b_dec)")
        g_BF = f_BF.flip(0)
        mixed = sae.decode(0.3 * f_BF + 0.7 * g_BF)
        _require_close(mixed, 0.3 * sae.decode(f_BF) + 0.7 * sae.decode(g_BF), "decode of a mixture (decode is affine)")
        unit_FD = sae.decode(torch.eye(case.d_sae, dtype=torch.float64)) - zero_D
        _require_close(unit_FD, sae.W_dec.detach(), "decode of single features (rows of W_dec)")
        _require_close(sae(x_BD), sae.decode(f_BF), "forward (decode of encode)")


def _rule_gradients(case: _Case) -> None:
    x_BD = case.rows()
    for when, state in case.states():
        sae = case.new()
        before = _snapshot(sae)
        reference = sae.training_loss(x_BD, state)
        _require("mse" in reference.parts, f"training_loss {when} has no part 'mse'")
        reference.total.backward()  # type: ignore[no-untyped-call]
        expected = _gradients(sae)
        sae.zero_grad(set_to_none=True)
        loss, found = _fast(sae, x_BD, state)
        _require(not loss.total.requires_grad, "loss_and_gradients must give a detached total")
        _require_close(loss.total, reference.total.detach(), f"the total {when}")
        _require(
            set(loss.parts) == set(reference.parts), f"parts {when}: {sorted(loss.parts)} and {sorted(reference.parts)}"
        )
        for name, part in reference.parts.items():
            _require_close(loss.parts[name], part.detach(), f"the part '{name}' {when}")
        for name, gradient in expected.items():
            _require_close(
                found[name], gradient, f"the gradient of {name} {when}, against autograd of training_loss", 1e-8
            )
        _require(torch.equal(loss.fired_F, reference.fired_F), f"fired_F {when} differs between the two losses")
        _require_unchanged(sae, before, f"a loss {when}")


def _rule_mse(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    if sae.calibrated:
        return  # the training rule looks at the whole batch, the inference rule does not
    loss, _ = _fast(sae, x_BD, StepState())
    with torch.no_grad():
        expected = (x_BD - sae(x_BD)).square().sum(dim=1).mean()
    _require_close(loss.parts["mse"], expected, "the part 'mse' (mean over rows of |x - xhat|^2)")


def _rule_overwrite(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    workspace, state = Workspace(), StepState()
    sae.loss_and_gradients(x_BD, state, workspace)
    first = _gradients(sae)
    held = {name: parameter.grad for name, parameter in sae.named_parameters()}
    for parameter in sae.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(3.0)
    sae.loss_and_gradients(x_BD[: _ROWS // 2], state, workspace)
    sae.loss_and_gradients(x_BD, state, workspace)
    for name, gradient in _gradients(sae).items():
        _require(
            torch.equal(gradient, first[name]), f"the gradient of {name} depends on what .grad or the buffers held"
        )
    for name, parameter in sae.named_parameters():
        same = held[name] is None or parameter.grad is held[name]
        _require(same, f"the gradient tensor of {name} is not kept between steps")


def _rule_deterministic(case: _Case) -> None:
    x_BD = case.rows(dtype=torch.float32)
    runs = []
    for _ in range(2):
        sae = case.new(torch.float32)
        with torch.no_grad():
            f_BF = sae.encode(x_BD)
        runs.append([f_BF, *_fast(sae, x_BD, StepState())[1].values()])
    _require(all(torch.equal(*pair) for pair in zip(*runs, strict=True)), "two equal runs differ in their last bits")


def _rule_fired(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    loss, _ = _fast(sae, x_BD, StepState())
    fired_F = loss.fired_F
    _require(fired_F.dtype == torch.int64, f"fired_F has dtype {fired_F.dtype}, expected int64")
    _require(list(fired_F.shape) == [case.d_sae], f"fired_F has shape {list(fired_F.shape)}")
    if not sae.calibrated:
        with torch.no_grad():
            expected_F = (sae.encode(x_BD) > 0).sum(dim=0)
        _require(torch.equal(fired_F, expected_F), "fired_F is not the number of rows in which each feature is active")
        return
    k = getattr(sae.options, "k", None)
    threshold = loss.threshold
    if threshold is None:
        raise _Broken("calibrated architectures give the smallest kept activation as StepLoss.threshold")
    _require(bool(((fired_F >= 0) & (fired_F <= _ROWS)).all()), "fired_F lies outside 0 .. rows")
    if isinstance(k, int):
        _require(
            int(fired_F.sum()) == k * _ROWS,
            f"{int(fired_F.sum())} activations are kept, expected k x rows = {k * _ROWS}",
        )
    if not sae.cuts_pre_activations:
        return
    with torch.no_grad():
        pre_BF = sae.pre_activations(x_BD)
    reached_F = (pre_BF >= threshold * (1 - 1e-12)).sum(dim=0)  # training may add the bias in another order
    _require(torch.equal(fired_F, reached_F), "fired_F and threshold do not belong together")


def _rule_projection(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    _, gradients = _fast(sae, x_BD, StepState())
    sae.project_decoder_gradient()
    grad = sae.W_dec.grad
    if grad is None:
        raise _Broken("W_dec has no gradient after loss_and_gradients")
    W_dec = sae.W_dec.detach()
    along_F = torch.linalg.vecdot(grad, W_dec)
    _require(float(along_F.abs().max()) <= 1e-9, "the projected gradient still has a part along the decoder rows")
    full = gradients["W_dec"]
    expected = full - torch.linalg.vecdot(full, W_dec).unsqueeze(1) * W_dec
    _require_close(grad, expected, "the projected decoder gradient")


def _rule_after_step(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    state = StepState()
    loss, _ = _fast(sae, x_BD, state)
    before_FD = sae.W_dec.detach().clone()
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 2, case.d_sae, dtype=torch.float64).unsqueeze(1))
    sae.after_step(loss, state)
    _require_close(sae.W_dec.detach(), before_FD, "decoder rows after after_step (unit norm, same direction)")
    _require(all(bool(torch.isfinite(p).all()) for p in sae.parameters()), "after_step made a parameter non-finite")


def _rule_training(case: _Case) -> None:
    sae, losses, rows_ND = _train(case)
    start, end = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    mean_alone = float((rows_ND - rows_ND.mean(dim=0)).square().sum(dim=1).mean())
    _require(
        end < 0.8 * min(start, mean_alone),
        f"{_TRAINING_STEPS} steps took mse from {start:.4f} to {end:.4f}; it should fall by a fifth, and by a fifth "
        f"below that of answering with the mean ({mean_alone:.4f})",
    )
    _require(all(bool(torch.isfinite(p).all()) for p in sae.parameters()), "training made a parameter non-finite")
    again, again_losses, _ = _train(case)
    _require(losses == again_losses, "two training runs with the same seeds differ")
    _require_unchanged(again, _snapshot(sae), "a second training run with the same seeds")


def _rule_calibrate(case: _Case) -> None:
    sae, _, rows_ND = _train(case)
    figures = sae.calibrate(lambda: iter(torch.split(rows_ND, 200)))
    if not sae.calibrated:
        return
    _require("threshold" in figures, f"calibrate gives {sorted(figures)}; 'threshold' is missing")
    k = getattr(sae.options, "k", None)
    with torch.no_grad():
        l0 = float((sae.encode(rows_ND) > 0).sum(dim=1).double().mean())
    if isinstance(k, int):
        off = abs(l0 - k) / k
        _require(off <= _CALIBRATION_TOLERANCE, f"L0 after calibration is {l0:.3f}, more than 2 % away from k = {k}")


def _rule_fold(case: _Case) -> None:
    sae, x_BD, scale = case.new(), case.rows(), 0.37
    folded = copy.deepcopy(sae)
    folded.fold_input_scale(scale)
    raw_BD = x_BD / scale
    with torch.no_grad():
        _require_close(
            folded.encode(raw_BD) * scale, sae.encode(x_BD), "encode after fold_input_scale, times the scale"
        )
        _require_close(folded(raw_BD) * scale, sae(x_BD), "the reconstruction after fold_input_scale, times the scale")
    _require_close(folded.W_dec.detach().norm(dim=1), torch.ones(case.d_sae), "decoder norms after fold_input_scale")


def _rule_state_dict(case: _Case) -> None:
    sae, x_BD = case.new(), case.rows()
    other = case.cls(case.d_in, case.d_sae, case.options, dtype=torch.float64)
    other.load_state_dict(_snapshot(sae))
    with torch.no_grad():
        _require(
            torch.equal(other.encode(x_BD), sae.encode(x_BD)), "encode differs after state_dict and load_state_dict"
        )
        _require(torch.equal(other(x_BD), sae(x_BD)), "the reconstruction differs after load_state_dict")


def _rule_files(case: _Case) -> None:
    sae, x_BD = case.new(torch.float32), case.rows(dtype=torch.float32)
    with tempfile.TemporaryDirectory(prefix="neuronmap-check-") as scratch:
        folder = save_bundle(sae, Path(scratch) / "bundle", BundleMetadata())
        try:
            loaded = load_sae(folder, architecture=case.cls)
        except NeuronMapError as error:
            raise _Broken(f"what it saves cannot be loaded: {error}") from error
    _require(type(loaded) is case.cls, f"a saved {case.cls.__name__} loads as {type(loaded).__name__}")
    _require(loaded.options == sae.options, "options differ after saving and loading")
    with torch.no_grad():
        _require(torch.equal(loaded.encode(x_BD), sae.encode(x_BD)), "encode differs after saving and loading")
        _require(torch.equal(loaded(x_BD), sae(x_BD)), "the reconstruction differs after saving and loading")


_RULES: list[tuple[str, Callable[[_Case], None]]] = [
    ("the constructor stores and checks widths", _rule_constructor),
    ("initialise sets unit decoder rows and b_dec from its generator", _rule_initialise),
    ("encode keeps shapes and gives fresh, non-negative activations", _rule_encode),
    ("one row never depends on another", _rule_rows),
    ("decode is affine and forward is decode(encode(x))", _rule_decode),
    ("encode_entries keeps what encode does", _rule_entries),
    ("loss_and_gradients equals autograd of training_loss", _rule_gradients),
    ("mse is the mean squared distance to the reconstruction", _rule_mse),
    ("gradients are overwritten in place", _rule_overwrite),
    ("the same input gives the same bits", _rule_deterministic),
    ("fired_F counts active rows", _rule_fired),
    ("project_decoder_gradient removes the part along each row", _rule_projection),
    ("after_step restores unit decoder rows", _rule_after_step),
    ("training lowers mse and is reproducible", _rule_training),
    ("calibrate brings L0 to k", _rule_calibrate),
    ("fold_input_scale keeps the function", _rule_fold),
    ("state_dict restores the SAE", _rule_state_dict),
    ("a saved bundle loads exactly", _rule_files),
]
