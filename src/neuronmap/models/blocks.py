"""Finds a model's blocks and what is what inside them, by watching it run. No table of architectures.

Legend: B batch rows, T tokens, W width of an activation, D hidden size (width of the residual stream).

**Blocks.** The model runs once on four tokens. The block list is the longest ``ModuleList`` of which every
member ran once, and took and gave tensors ``[1, 4, D]`` of one width D.

**Roles in a block.** The block is run twice on its own inputs, the second time with other values at the first
token. A linear layer whose *input at the last token* changed comes after the mixing of tokens. So:

- ``attention``'s output projection is the first such linear layer of output width D, in the order of execution:
  queries, keys and values come before the mixing, the MLP after it (or beside it: then it does not change);
- the MLP's down projection is the last linear layer of output width D outside the child that holds the former
  whose contribution is seen to be added to the stream: two recorded tensors differ by a multiple of it;
- a projection's *contribution* is followed from its output through the modules that hand it on unchanged (the
  attention module around ``o_proj``) and through norms applied before the addition (Gemma 2). Where the module
  around it adds the residual itself (BERT, Bloom), the contribution is the projection's own output;
- an MLP without one down projection (a mixture of experts) is the child of the block that is seen to be added.

Blocks that are built alike share the result, so one block is usually all that is probed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuronmap.errors import ModelFormatError

__all__ = ["Blocks", "ModuleRecord", "Roles", "activation_of_call", "backbone_kwargs", "find_blocks", "find_roles"]

_PROBE_TOKENS = 4


@dataclass
class ModuleRecord:
    """What was seen of one module in the probe run.

    Attributes:
        calls: how often it ran.
        widths: ``in`` and ``out`` widths, for the sides that carry one ``[B, T, W]`` activation.
    """

    calls: int = 0
    widths: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Blocks:
    """The block list of a model.

    Attributes:
        prefix: module path of the list, such as ``model.layers``.
        modules: the blocks in order.
        hidden_size: width D of the residual stream.
        records: what was seen of every module, by its path in the full model.
    """

    prefix: str
    modules: tuple[nn.Module, ...]
    hidden_size: int
    records: dict[str, ModuleRecord]


class _BlockReached(Exception):
    """Leaves a probe run at the block whose arguments were wanted; never seen outside this module."""


@dataclass(frozen=True)
class Roles:
    """Components of one kind of block: component name -> (path inside the block, side, width)."""

    found: dict[str, tuple[str, str, int]]


@dataclass(eq=False)
class _Call:
    """One module call inside a block: the input and output activations as [T, W], at the time it returned."""

    name: str
    module: nn.Module
    input_TW: Tensor | None
    output_TW: Tensor | None


def activation_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int | str, Tensor] | None:
    """The activation among a call's arguments: the first positional tensor, else ``hidden_states``, else the first
    floating-point keyword tensor. Returns where it is (index or keyword) and the tensor."""
    if args and isinstance(args[0], Tensor):
        return 0, args[0]
    names = ["hidden_states", *kwargs]
    for name in names:
        value = kwargs.get(name)
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return name, value
    return None


def _output_tensor(output: Any) -> Tensor | None:
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) else None


def backbone_kwargs(backbone: nn.Module) -> dict[str, Any]:
    """Keyword arguments that turn the key-value cache off where the model has one."""
    parameters = inspect.signature(backbone.forward).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {"use_cache": False} if takes_any or "use_cache" in parameters else {}


def probe_tokens(module: nn.Module) -> Tensor:
    """Four different token ids [1, 4] of the model's vocabulary, away from its ends where special tokens live."""
    embedding = module.get_input_embeddings()  # type: ignore[operator]
    vocabulary = int(embedding.num_embeddings)
    ids = [(i + 1) * vocabulary // (_PROBE_TOKENS + 2) for i in range(_PROBE_TOKENS)]
    return torch.tensor([ids], device=embedding.weight.device)


def _width(tensor: Tensor | None) -> int | None:
    """Width of a [1, T, W] activation, or of one flattened to [T, W]; None for anything else."""
    if tensor is None or not tensor.is_floating_point():
        return None
    fits = tensor.shape[:-1] in ((1, _PROBE_TOKENS), (_PROBE_TOKENS,))
    return int(tensor.shape[-1]) if fits else None


@contextmanager
def _hooked(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def find_blocks(module: nn.Module, backbone: nn.Module) -> Blocks:
    """Run the backbone once on four tokens and find its block list.

    Args:
        module: the full model, for module paths.
        backbone: the part without a language-model head.

    Raises:
        ModelFormatError: if the model cannot run on token ids alone, or has no list of blocks.
    """
    records: dict[str, ModuleRecord] = {name: ModuleRecord() for name, _ in module.named_modules()}

    def recorder(record: ModuleRecord) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            record.calls += 1
            given = activation_of_call(args, kwargs)
            for side, tensor in (("in", given[1] if given else None), ("out", _output_tensor(output))):
                width = _width(tensor)
                if width is not None:
                    record.widths[side] = width

        return hook

    handles = [
        child.register_forward_hook(recorder(records[name]), with_kwargs=True) for name, child in module.named_modules()
    ]
    with _hooked(handles):
        _run_backbone(module, backbone)
    best: tuple[str, nn.ModuleList, int] | None = None
    for name, child in module.named_modules():
        if not isinstance(child, nn.ModuleList) or len(child) == 0:
            continue
        seen = [records[f"{name}.{index}"] for index in range(len(child))]
        widths = {width for record in seen for width in (record.widths.get("in"), record.widths.get("out"))}
        width = next(iter(widths))
        alike = len(widths) == 1 and width is not None and all(record.calls == 1 for record in seen)
        if alike and width is not None and (best is None or len(child) > len(best[1])):
            best = name, child, width
    if best is None:
        raise ModelFormatError(
            f"{type(module).__name__} has no list of blocks that hand one hidden state on to each other; "
            "NeuronMap works on decoder-only and encoder-only transformers."
        )
    prefix, modules, width = best
    return Blocks(prefix, tuple(modules), width, records)


def _run_backbone(module: nn.Module, backbone: nn.Module) -> None:
    try:
        with torch.inference_mode():
            backbone(input_ids=probe_tokens(module), **backbone_kwargs(backbone))
    except (TypeError, ValueError, AttributeError, NotImplementedError, IndexError) as error:
        raise ModelFormatError(
            f"{type(module).__name__} cannot run on token ids alone ({type(error).__name__}: {error}); "
            "NeuronMap works on decoder-only and encoder-only language models."
        ) from error


def find_roles(module: nn.Module, backbone: nn.Module, block: nn.Module) -> Roles:
    """Find the components of one block by running it (see the module's text).

    Args:
        module: the full model.
        backbone: the part without a language-model head.
        block: one of :attr:`Blocks.modules`.
    """
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments.append((args, kwargs))
        raise _BlockReached

    with _hooked([block.register_forward_pre_hook(keep, with_kwargs=True)]), suppress(_BlockReached):
        _run_backbone(module, backbone)
    args, kwargs = arguments[0]
    given = activation_of_call(args, kwargs)
    if given is None:
        return Roles({})
    place, stream_BTD = given
    clean = _run_block(block, args, kwargs)
    changed_BTD = stream_BTD.clone()
    # Other values of the same size at the first token: the last token's own row reversed.
    changed_BTD[:, 0] = stream_BTD[:, -1].flip(-1) + stream_BTD[:, 0].roll(1, -1)
    if isinstance(place, int):
        changed = _run_block(block, (changed_BTD, *args[1:]), kwargs)
    else:
        changed = _run_block(block, args, {**kwargs, place: changed_BTD})
    return _Probe(block, clean, changed, stream_BTD[0]).roles()


def _run_block(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[_Call]:
    """Run a block and list the calls inside it in the order they returned; the block itself is the last."""
    calls: list[_Call] = []

    def recorder(name: str) -> Callable[..., None]:
        def hook(child: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            given, result = activation_of_call(inputs, named), _output_tensor(output)
            input_TW = given[1].flatten(0, -2).clone() if given and _width(given[1]) else None
            output_TW = result.flatten(0, -2).clone() if result is not None and _width(result) else None
            calls.append(_Call(name, child, input_TW, output_TW))

        return hook

    handles = [child.register_forward_hook(recorder(name), with_kwargs=True) for name, child in block.named_modules()]
    with _hooked(handles), torch.inference_mode():
        block(*args, **kwargs)
    return calls


class _Probe:
    """The recorded calls of one block, and the questions asked of them."""

    def __init__(self, block: nn.Module, clean: list[_Call], changed: list[_Call], stream_TD: Tensor) -> None:
        self.block, self.stream_TD = block, stream_TD
        self.width = int(stream_TD.shape[-1])
        counts: dict[str, int] = {}
        for call in clean:
            counts[call.name] = counts.get(call.name, 0) + 1
        self.calls = clean
        again = {call.name: call for call in changed}
        # A module that runs twice in a block (Phi's shared dropout) cannot be a hook point.
        self.pairs = [
            (call, again[call.name]) for call in clean if call.name and counts[call.name] == 1 and call.name in again
        ]

    def roles(self) -> Roles:
        found = {"residual_pre": ("", "in", self.width), "residual": ("", "out", self.width)}
        projections = [call for call, _ in self.pairs if self._is_projection(call)]
        mixing = next((call for call, other in self.pairs if self._is_projection(call) and _mixed(call, other)), None)
        attention_TD: Tensor | None = None
        if mixing is not None and mixing.input_TW is not None:
            contribution = self._contribution(mixing)
            attention_TD = contribution.output_TW
            found["attention"] = (contribution.name, "out", self.width)
            found["attention_heads"] = (mixing.name, "in", int(mixing.input_TW.shape[-1]))
            owner = mixing.name.split(".", 1)[0]
            projections = [call for call in projections if call.name.split(".", 1)[0] != owner]
        else:
            owner = ""
        self._find_mlp(found, projections, owner, attention_TD)
        return Roles(found)

    def _find_mlp(
        self,
        found: dict[str, tuple[str, str, int]],
        projections: list[_Call],
        owner: str,
        attention_TD: Tensor | None,
    ) -> None:
        for call in reversed(projections):
            contribution = self._contribution(call)
            if call.input_TW is not None and self._is_added(contribution, attention_TD):
                found["mlp"] = (contribution.name, "out", self.width)
                found["mlp_hidden"] = (call.name, "in", int(call.input_TW.shape[-1]))
                return
        for call, _ in reversed(self.pairs):
            if "." in call.name or call.name == owner or not any(p.dim() > 1 for p in call.module.parameters()):
                continue
            if call.output_TW is None or call.output_TW.shape[-1] != self.width:
                continue
            contribution = self._contribution(call)
            if self._is_added(contribution, attention_TD):
                found["mlp"] = (contribution.name, "out", self.width)
                return

    def _is_projection(self, call: _Call) -> bool:
        weight = getattr(call.module, "weight", None)
        return (
            isinstance(weight, Tensor)
            and weight.dim() == 2
            and call.input_TW is not None
            and call.output_TW is not None
            and call.output_TW.shape[-1] == self.width
        )

    def _contribution(self, projection: _Call) -> _Call:
        """Follow a projection's output to the last module that holds what is added to the stream."""
        last, value_TD = projection, projection.output_TW
        start = self.calls.index(projection)
        for call, _ in self.pairs:
            if self.calls.index(call) <= start or value_TD is None or call.output_TW is None:
                continue
            if last.name.startswith(f"{call.name}.") and _same(call.output_TW, value_TD):
                last = call
            elif (
                call.input_TW is not None
                and _same(call.input_TW, value_TD)
                and not _same(call.output_TW, value_TD)
                and call.output_TW.shape == value_TD.shape
                and not any(p.dim() > 1 for p in call.module.parameters())
            ):
                last, value_TD = call, call.output_TW
        return last

    def _is_added(self, contribution: _Call, attention_TD: Tensor | None) -> bool:
        """Whether two recorded tensors differ by a multiple of the contribution.

        A multiple, since some models scale what they add (Granite). Judged on the last two tokens: the first may be
        thousands of times larger than the others.
        """
        if contribution.output_TW is None:
            return False
        added = contribution.output_TW[-2:].double()
        size = added.norm()
        before = [self.stream_TD, *(c.input_TW for c in self.calls), *(c.output_TW for c in self.calls)]
        if attention_TD is not None:
            before.append(self.stream_TD + attention_TD)  # parallel attention and MLP: this sum is never an input
        start = self.calls.index(contribution)
        after = [tensor for call in self.calls[start + 1 :] for tensor in (call.input_TW, call.output_TW)]
        rounding = torch.finfo(contribution.output_TW.dtype).eps
        for late in after:
            if late is None or late.shape[-1] != self.width or size == 0:
                continue
            for early in before:
                if early is None or early.shape[-1] != self.width:
                    continue
                difference = late[-2:].double() - early[-2:].double()
                scale = (difference * added).sum() / size**2
                rest = (difference - scale * added).norm()
                noise = 4 * rounding * late[-2:].double().norm()
                if abs(scale) > 1e-2 and rest <= 0.01 * abs(scale) * size + noise:
                    return True
        return False


def _same(left_TW: Tensor, right_TW: Tensor) -> bool:
    return left_TW.shape == right_TW.shape and bool(torch.equal(left_TW, right_TW)) and bool(right_TW.any())


def _mixed(call: _Call, other: _Call) -> bool:
    """Whether the last token's input depends on the first token."""
    if call.input_TW is None or other.input_TW is None:
        return False
    last, changed = call.input_TW[-1].double(), other.input_TW[-1].double()
    return bool((last - changed).norm() > 1e-3 * last.norm())
