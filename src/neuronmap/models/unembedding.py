"""How a model turns its residual stream into logits, found by watching it run. No table of architectures.

Legend: B directions, D width of the residual stream, E width that the head reads (D in nearly every model), W width of an
activation, V vocabulary, T tokens.

**The way to the head.** The model runs once on four tokens. From the last block's output on, every module that is given the value
at hand and returns another one is a *step*; the last value must be what the head is given, or a constant multiple of it. In most
models the only step is the final norm.

**What a step may be.** A direction has logits of its own only if the steps treat a sum of directions as the sum of what each gives,
up to one length: step(x) - step(0) = A x / r(x), with r the root mean square of x (RMSNorm), the standard deviation of its entries
(LayerNorm), or 1 (a linear layer). Each step is *tested* for that on random vectors, so a norm whose weight is stored as 1 + gamma
(Gemma) needs no rule of its own, and a head with a nonlinearity (BERT) is refused rather than misread.

**Why the model's own module is called.** It is the definition of what the model does. Two things of it are not wanted, and both are
taken out: its bias, by subtracting what it gives at zero, and its epsilon, which would shrink short directions, by scaling the
direction up first (to a root mean square of 64; an epsilon of 1e-5 then changes 1 part in 10^9). A norm does not see that scale.

Left out, since they are no part of a direction: the head's own bias, a factor on the logits (Granite, Cohere), and the soft cap of
Gemma 2, which is monotone and so changes no order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuronmap.errors import ModelFormatError
from neuronmap.models.blocks import activation_of_call, backbone_kwargs, probe_tokens
from neuronmap.models.language_model import LanguageModel
from neuronmap.models.quiet import quiet_log

__all__ = ["DirectionMap", "Normalisation", "Unembedding", "find_unembedding"]

Normalisation = Literal["rms", "layer", "none"]

_LENGTH = 64.0
"""Root mean square that directions are given before a norm."""


@dataclass(frozen=True, eq=False)
class _Step:
    """One module in float32, what it divides by, and what it gives at zero."""

    module: nn.Module
    normalisation: Normalisation
    at_zero_1E: Tensor


class DirectionMap:
    """Modules in a row, as a map of directions: linear up to one length, biases and epsilons taken out.

    Args:
        modules: path -> module, in the order they run. They are copied to float32.
        width: size W of the last dimension of what the first is given.
        device: where the copies live.
        factor: what the result is multiplied by.

    Raises:
        ModelFormatError: if a module is neither linear nor a normalisation.
    """

    def __init__(
        self, modules: dict[str, nn.Module], width: int, device: torch.device | str, factor: float = 1.0
    ) -> None:
        self.factor = factor
        self.names = tuple(modules)
        self._steps: list[_Step] = []
        for name, original in modules.items():
            module = copy.deepcopy(original).to(device=device, dtype=torch.float32)
            with torch.inference_mode():
                at_zero_1E = module(torch.zeros(1, width, device=device))
            normalisation = _normalisation(lambda x_BW: module(x_BW) - at_zero_1E, width, device)  # noqa: B023 (called here)
            if normalisation is None:
                raise ModelFormatError(
                    f"The module '{name}' ({type(original).__name__}) is neither linear nor a normalisation, so a direction "
                    "before it has no logits of its own."
                )
            self._steps.append(_Step(module, normalisation, at_zero_1E))
            width = int(at_zero_1E.shape[-1])
        self.width = width
        """Size E of the last dimension of what comes out."""

    @property
    def normalisation(self) -> Normalisation:
        """What the last normalising step divides by; ``none`` if there is no such step."""
        kinds = [step.normalisation for step in self._steps if step.normalisation != "none"]
        return kinds[-1] if kinds else "none"

    def __call__(self, d_BW: Tensor) -> Tensor:
        """What becomes of directions.

        Args:
            d_BW: float32 [B, W], on the map's device.

        Returns:
            float32 [B, E]; a zero direction gives zero.
        """
        with torch.inference_mode():
            for step in self._steps:
                if step.normalisation != "none":
                    d_BW = _scaled(d_BW)
                d_BW = step.module(d_BW) - step.at_zero_1E
            return d_BW if self.factor == 1.0 else d_BW * self.factor


@dataclass(frozen=True, eq=False)
class Unembedding:
    """From the residual stream after the last block to the logits.

    Attributes:
        before_head: the way from the stream to what the head reads, D -> E.
        weight_VE: the head's weight [V, E], in the model's precision and on its device; not a copy.
    """

    before_head: DirectionMap
    weight_VE: Tensor


def find_unembedding(model: LanguageModel) -> Unembedding:
    """Find the final norm and the unembedding of a model by running it once on four tokens.

    Args:
        model: a model with a language-model head.

    Raises:
        ModelFormatError: if it has no head, or if what lies before the head is not linear behind a normalisation; the message
            says which module.
    """
    name = model.identity.name
    head = model.module.get_output_embeddings()
    weight_VE = getattr(head, "weight", None)
    if not isinstance(weight_VE, Tensor) or weight_VE.dim() != 2:
        raise ModelFormatError(
            f"{name} ({model.identity.architecture}) has no language-model head, so it gives no logits."
        )
    if weight_VE.is_meta:
        raise ModelFormatError(f"The head of {name} is not in memory (it is offloaded), so its weight cannot be read.")
    modules, stream_TD, read_TE = _way_to_head(model, head)
    factor = _factor(stream_TD, read_TE)
    if factor is None:
        raise ModelFormatError(
            f"What the head of {name} reads does not come from the last block's output through modules alone "
            f"(followed through: {', '.join(modules) or 'none'}), so directions cannot be put through the same way."
        )
    return Unembedding(DirectionMap(modules, model.hidden_size, weight_VE.device, factor), weight_VE.detach())


def _way_to_head(model: LanguageModel, head: nn.Module) -> tuple[dict[str, nn.Module], Tensor, Tensor]:
    """The steps after the last block, the value after the last of them, and what the head was given."""
    last = model.blocks.modules[-1]
    steps: dict[str, nn.Module] = {}
    value: list[Tensor] = []
    read: list[Tensor] = []

    def watch(path: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = activation_of_call(args, kwargs)
            result = output[0] if isinstance(output, tuple | list) and output else output
            if module is head and given is not None:
                read[:] = [given[1]]
            if read or given is None or not isinstance(result, Tensor):
                return
            if module is last:
                value[:] = [result]
            elif value and _same(given[1], value[0]) and not _same(result, value[0]):
                steps[path] = module
                value[:] = [result]

        return hook

    ids = probe_tokens(model.module)
    with ExitStack() as stack:
        for path, module in model.module.named_modules():
            handle = module.register_forward_hook(watch(path, module), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(model.running)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(quiet_log())
        model.module(input_ids=ids, **backbone_kwargs(model.module))
    if not value or not read:
        raise ModelFormatError(f"{model.identity.name} does not run its head on text, so it gives no logits.")
    return steps, value[0].flatten(0, -2).float(), read[0].flatten(0, -2).float()


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left.device == right.device and bool(torch.equal(left, right))


def _factor(value_TE: Tensor, read_TE: Tensor) -> float | None:
    """The constant c with read = c * value, or None."""
    if value_TE.shape != read_TE.shape:
        return None
    value_TE = value_TE.to(read_TE.device)
    if torch.equal(value_TE, read_TE):
        return 1.0
    size = value_TE.square().sum()
    factor = float((value_TE * read_TE).sum() / size) if size > 0 else 0.0
    rest = (read_TE - factor * value_TE).norm()
    return factor if factor != 0.0 and bool(rest <= 0.01 * read_TE.norm()) else None


def _scaled(d_BW: Tensor) -> Tensor:
    rms_B1 = d_BW.square().mean(dim=1, keepdim=True).sqrt()
    return d_BW * (_LENGTH / rms_B1.clamp_min(1e-30))  # zero stays zero


def _normalisation(step: Callable[[Tensor], Tensor], width: int, device: torch.device | str) -> Normalisation | None:
    """Which r makes step(x) * r(x) linear in x; None if none of the three does.

    The entries of the random vectors have a mean as large as their spread, or the two norms would look alike.
    """
    generator = torch.Generator().manual_seed(0)
    a_1W, b_1W = (_LENGTH * (1 + torch.randn(1, width, generator=generator)).to(device) for _ in range(2))
    probes_3W = torch.cat([a_1W, b_1W, a_1W - 0.5 * b_1W])
    with torch.inference_mode():
        y_3E = step(probes_3W)
    lengths: dict[Normalisation, Tensor] = {
        "rms": probes_3W.square().mean(dim=1).sqrt(),
        "layer": probes_3W.std(dim=1, correction=0),
        "none": torch.ones(3, device=probes_3W.device),
    }
    for kind, length_3 in lengths.items():
        whole_3E = y_3E * length_3[:, None]
        rest = (whole_3E[2] - whole_3E[0] + 0.5 * whole_3E[1]).norm()
        if bool(rest <= 1e-3 * whole_3E.norm()) and bool(whole_3E.norm() > 0):
            return kind
    return None
