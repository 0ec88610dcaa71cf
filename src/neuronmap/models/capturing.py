"""Reading activations at hook points, and putting others in their place.

Legend: B batch rows, T tokens in a context, W width of the activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuronmap.errors import HookPointError
from neuronmap.models.blocks import activation_of_call, backbone_kwargs
from neuronmap.models.hooks import HookPoint
from neuronmap.models.language_model import LanguageModel
from neuronmap.models.quiet import quiet_log

__all__ = ["capture", "replaced"]


class _AllCaptured(Exception):
    """Leaves the forward pass once every activation is in hand; never seen outside this module."""


def capture(
    model: LanguageModel,
    input_ids_BT: Tensor,
    hooks: Iterable[HookPoint],
    *,
    attention_mask_BT: Tensor | None = None,
    out: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Read the activations at some hook points in one forward pass.

    The model runs only as far as the deepest of the hooks: layer 8 of 30 costs 8 blocks, and the language-model head
    is never run. There is no graph and no key-value cache; each activation is copied once. Threads that share a model
    take turns.

    Args:
        model: the language model.
        input_ids_BT: int64 token ids [B, T], on any device.
        hooks: hook points of this model, from :func:`~neuronmap.models.resolve_hook`.
        attention_mask_BT: 1 or True for real tokens [B, T]; None when there is no padding. Pad on the right.
        out: tensors [B, T, W] to copy into, by ``hook.name``, of any dtype and device; a hook that is not in it gets
            a new tensor.

    Returns:
        ``hook.name`` -> activation [B, T, W]; in the model's dtype on its device where ``out`` has none. They are
        ordinary tensors: they may be used in autograd.

    Raises:
        HookPointError: if a hook's module does not exist, does not run, or carries another shape than expected.

    Example:
        >>> hook = resolve_hook(model, 8, "residual")                      # doctest: +SKIP
        >>> capture(model, ids_BT, [hook])[hook.name].shape                # doctest: +SKIP
        torch.Size([4, 128, 576])
    """
    wanted = {hook.name: hook for hook in hooks}
    if not wanted:
        return {}
    rows, tokens = _batch_shape(input_ids_BT)
    taken: dict[str, Tensor] = {}

    def take(hook: HookPoint, activation: Tensor) -> None:
        activation_BTW = _as_contexts(activation, hook, rows, tokens)
        target = None if out is None else out.get(hook.name)
        if target is None:
            # Outside inference mode, so that the copy is an ordinary tensor.
            with torch.inference_mode(False):
                target = torch.empty(activation_BTW.shape, dtype=activation_BTW.dtype, device=activation_BTW.device)
        elif target.shape != activation_BTW.shape:
            raise HookPointError(
                f"The tensor given for '{hook.name}' is {list(target.shape)}, the activation {list(activation_BTW.shape)}."
            )
        target.copy_(activation_BTW)
        taken[hook.name] = target
        if len(taken) == len(wanted):
            raise _AllCaptured

    inputs: dict[str, Any] = {"input_ids": input_ids_BT.to(model.device)}
    if attention_mask_BT is not None:
        inputs["attention_mask"] = attention_mask_BT.to(model.device, torch.int64)
    with model.running, ExitStack() as stack, torch.inference_mode(), quiet_log():
        for hook in wanted.values():
            stack.callback(_read_at(_module_of(model, hook), hook, take).remove)
        try:
            model.backbone(**inputs, **backbone_kwargs(model.backbone))
        except _AllCaptured:
            return {name: taken[name] for name in wanted}
    missing = [name for name in wanted if name not in taken]
    raise HookPointError(
        f"{len(missing)} of {len(wanted)} hook points did not run in the forward pass of {model.identity.name}: "
        f"{', '.join(missing[:5])}."
    )


@contextmanager
def replaced(model: LanguageModel, hook: HookPoint, fn: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, put ``fn`` of the activation in the activation's place, in every forward pass of the model.

    Other threads wait with the model until the block is left.

    Args:
        model: the language model.
        hook: where.
        fn: takes the activation [B, T, W] (not to be changed in place) and returns one of the same shape; it is cast
            to the activation's dtype and device.

    Raises:
        HookPointError: if the module does not exist, or ``fn`` gives another shape.

    Example:
        >>> with replaced(model, hook, torch.zeros_like):                  # doctest: +SKIP
        ...     logits_BTV = model.logits(ids_BT)
    """
    shape: list[tuple[int, int]] = []

    def note_shape(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor) and ids.dim() == 2:
            shape[:] = [_batch_shape(ids)]

    def swap(activation: Tensor) -> Tensor:
        rows, tokens = shape[0] if shape else (activation.shape[0], activation.shape[-2])
        given_BTW = _as_contexts(activation, hook, rows, tokens)
        result_BTW = fn(given_BTW)
        if not isinstance(result_BTW, Tensor) or result_BTW.shape != given_BTW.shape:
            got = list(result_BTW.shape) if isinstance(result_BTW, Tensor) else type(result_BTW).__name__
            raise HookPointError(
                f"What replaces '{hook.name}' must have its shape {list(given_BTW.shape)}; the function gave {got}."
            )
        return result_BTW.to(activation).reshape(activation.shape)

    module = _module_of(model, hook)
    with model.running, ExitStack() as stack:
        # A model's forward pass may go past its backbone's (OPT), so both are watched for the batch shape.
        for root in {model.module, model.backbone}:
            stack.callback(root.register_forward_pre_hook(note_shape, with_kwargs=True).remove)
        stack.callback(_swap_at(module, hook, swap).remove)
        yield


def _module_of(model: LanguageModel, hook: HookPoint) -> nn.Module:
    try:
        module: nn.Module = model.module.get_submodule(hook.module_path)
    except AttributeError as error:
        raise HookPointError(
            f"{model.identity.name} ({model.identity.architecture}) has no module '{hook.module_path}'.",
            hint="Resolve hook points on the model they are used with.",
        ) from error
    return module


def _batch_shape(ids_BT: Tensor) -> tuple[int, int]:
    if ids_BT.dim() != 2 or ids_BT.numel() == 0:
        raise HookPointError(f"Token ids must be [batch, tokens] and not empty, not {list(ids_BT.shape)}.")
    return int(ids_BT.shape[0]), int(ids_BT.shape[1])


def _as_contexts(activation: Tensor, hook: HookPoint, rows: int, tokens: int) -> Tensor:
    """View an activation as [B, T, W]; some modules are given [B*T, W] (OPT's MLP)."""
    if activation.shape == (rows * tokens, hook.width):
        return activation.reshape(rows, tokens, hook.width)
    if activation.shape != (rows, tokens, hook.width):
        raise HookPointError(
            f"The activation at '{hook.name}' is {list(activation.shape)}, not "
            f"[batch, tokens, width] = {[rows, tokens, hook.width]}.",
            hint="Choose a module whose activation has one row a token.",
        )
    return activation


def _read_at(
    module: nn.Module, hook: HookPoint, take: Callable[[HookPoint, Tensor], None]
) -> torch.utils.hooks.RemovableHandle:
    if hook.side == "in":

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            take(hook, _input_at(hook, args, kwargs)[1])

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        take(hook, _output_at(hook, output))

    return module.register_forward_hook(after)


def _swap_at(module: nn.Module, hook: HookPoint, swap: Callable[[Tensor], Tensor]) -> torch.utils.hooks.RemovableHandle:
    if hook.side == "in":

        def before(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            place, activation = _input_at(hook, args, kwargs)
            if isinstance(place, int):
                return (*args[:place], swap(activation), *args[place + 1 :]), kwargs
            return args, {**kwargs, place: swap(activation)}

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        swapped = swap(_output_at(hook, output))
        if isinstance(output, Tensor):
            return swapped
        return (swapped, *output[1:]) if isinstance(output, tuple) else [swapped, *output[1:]]

    return module.register_forward_hook(after)


def _input_at(hook: HookPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int | str, Tensor]:
    found = activation_of_call(args, kwargs)
    if found is None:
        raise HookPointError(f"Module '{hook.module_path}' was called without a tensor, so '{hook.name}' has no value.")
    return found


def _output_at(hook: HookPoint, output: Any) -> Tensor:
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        raise HookPointError(f"Module '{hook.module_path}' gave a {type(first).__name__}, not a tensor.")
    return first
