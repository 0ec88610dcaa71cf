"""Hook points: places in a model where an activation ``[B, T, W]`` can be read or replaced.

Components (``resolve_hook(model, layer, component)``), found by structure in :mod:`neuronmap.models.blocks`:

    residual_pre     what the block is given                              width D
    attention        what the attention (token mixer) adds to the stream  width D
    attention_heads  the heads' outputs, before the output projection     width heads x head size
    mlp              what the MLP adds to the stream                      width D
    mlp_hidden       the MLP's neurons, before the down projection        width of the MLP
    residual         what the block gives                                 width D

"What is added" is meant literally: where the attention or MLP output is normalised before the addition (Gemma 2 and
3, OLMo 2) it is the output of that norm, and where the norm comes after the addition (BERT) it is the output of the
projection. In a pre-norm model ``residual = residual_pre + attention + mlp``.

An explicit module path with ``:in`` or ``:out`` works for any module that handles one ``[B, T, W]`` activation.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from neuronmap.errors import HookPointError
from neuronmap.models.language_model import LanguageModel

__all__ = ["COMPONENTS", "HookPoint", "list_hooks", "resolve_hook", "resolve_hooks", "saelens_hook_name"]

COMPONENTS = ("residual_pre", "attention", "attention_heads", "mlp", "mlp_hidden", "residual")
Side = Literal["in", "out"]


@dataclass(frozen=True)
class HookPoint:
    """One place in one model.

    Attributes:
        layer: index of the block, or None outside the blocks.
        component: one of the six components, or None for another module.
        module_path: the module's path in the full model, as in ``named_modules()``.
        side: ``in`` for the module's input, ``out`` for its output.
        width: size W of the last dimension of the activation.
    """

    layer: int | None
    component: str | None
    module_path: str
    side: Side
    width: int

    @property
    def name(self) -> str:
        """``model.layers.8.mlp:out``: the key used in manifests and in the results of capture."""
        return f"{self.module_path}:{self.side}"

    @property
    def slug(self) -> str:
        """The name as a folder name: ``model.layers.8.mlp-out``."""
        return f"{re.sub(r'[^A-Za-z0-9._-]', '_', self.module_path)}-{self.side}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with ``name``; :meth:`from_dict` reads it back to an equal object."""
        return {**asdict(self), "name": self.name}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(**{key: value for key, value in values.items() if key != "name"})


def list_hooks(model: LanguageModel) -> list[HookPoint]:
    """Every component of every block, in the order of :data:`COMPONENTS`, with widths.

    Example:
        >>> [hook.name for hook in list_hooks(model) if hook.layer == 0]  # doctest: +SKIP
        ['model.layers.0:in', 'model.layers.0.self_attn:out', ...]
    """
    hooks: list[HookPoint] = []
    for layer in range(model.num_layers):
        found = model.roles(layer).found
        hooks += [_component_hook(model, layer, name) for name in COMPONENTS if name in found]
    return hooks


def resolve_hook(model: LanguageModel, layer: int | None = None, component: str = "residual") -> HookPoint:
    """Find one hook point.

    Args:
        model: the language model.
        layer: index of the block, from 0. Not needed with an explicit path.
        component: one of :data:`COMPONENTS`, or an explicit module path with ``:in`` or ``:out``, relative to the
            full model or to the part without the head (``model.layers.3.mlp.down_proj:in``).

    Returns:
        The hook point, named relative to the full model.

    Raises:
        HookPointError: if the layer, component or module does not exist, with what does.
    """
    if ":" in component:
        hook = _explicit_hook(model, component)
        if layer is not None and hook.layer is not None and layer != hook.layer:
            raise HookPointError(
                f"'{component}' lies in layer {hook.layer}, but layer {layer} was asked for.",
                hint="Leave the layer out when you give an explicit path.",
            )
        return hook
    if component not in COMPONENTS:
        near = difflib.get_close_matches(component, COMPONENTS, n=2, cutoff=0.5)
        raise HookPointError(
            f"Unknown component '{component}'. Components: {', '.join(COMPONENTS)}; "
            f"or an explicit module path with ':in' or ':out', such as "
            f"'{model.blocks.prefix}.0:out'.",
            hint=f"Did you mean {' or '.join(near)}?" if near else "`neuronmap models hooks MODEL` lists them.",
        )
    if layer is None:
        raise HookPointError(
            f"Component '{component}' needs a layer: {model.identity.name} has layers 0 to {model.num_layers - 1}.",
            hint=f"Choose one, for example the middle: {model.num_layers // 2}.",
        )
    return _component_hook(model, _checked_layer(model, layer), component)


def resolve_hooks(model: LanguageModel, pattern: str) -> list[HookPoint]:
    """Find all hook points of a pattern, in the order of the model's modules.

    Args:
        model: the language model.
        pattern: an ``fnmatch`` pattern. With a colon it is matched against names of all modules
            (``model.layers.*.mlp:out``, ``*.q_proj:out``), without one against components
            (``residual``, ``mlp*``), in every layer.

    Raises:
        HookPointError: if nothing matches.
    """
    if ":" not in pattern:
        hooks = [hook for hook in list_hooks(model) if hook.component and fnmatchcase(hook.component, pattern)]
    else:
        hooks = [
            _module_hook(model, path, side, record.widths[side])
            for path, record in model.blocks.records.items()
            for side in _SIDES
            if record.calls == 1
            and side in record.widths
            and any(fnmatchcase(f"{name}:{side}", pattern) for name in (path, _short_path(model, path)) if name)
        ]
    if not hooks:
        raise HookPointError(
            f"No hook point of {model.identity.name} matches '{pattern}'. A pattern is a component such as 'residual', "
            f"or a module path such as '{model.blocks.prefix}.*:out'.",
            hint="`neuronmap models hooks MODEL` lists them.",
        )
    return hooks


def saelens_hook_name(hook: HookPoint) -> str | None:
    """The hook's name in a SAELens 6 ``cfg.json`` with ``model_class_name: AutoModelForCausalLM``.

    That is the module path, and always its output; None for an ``:in`` hook, which SAELens cannot name.
    """
    return hook.module_path if hook.side == "out" else None


_SIDES: tuple[Side, Side] = ("in", "out")


def _checked_layer(model: LanguageModel, layer: int) -> int:
    if not isinstance(layer, int) or isinstance(layer, bool) or not 0 <= layer < model.num_layers:
        raise HookPointError(
            f"Layer {layer!r} does not exist: {model.identity.name} has {model.num_layers} layers, "
            f"0 to {model.num_layers - 1}."
        )
    return layer


def _component_hook(model: LanguageModel, layer: int, component: str) -> HookPoint:
    found = model.roles(layer).found
    block = f"{model.blocks.prefix}.{layer}"
    if component not in found:
        raise HookPointError(
            f"Component '{component}' could not be found in layer {layer} of {model.identity.name} "
            f"({model.identity.architecture}). Found there: {', '.join(name for name in COMPONENTS if name in found)}.",
            hint=f"An explicit module path with ':in' or ':out' works too, such as '{block}:out'.",
        )
    path, side, width = found[component]
    return HookPoint(layer, component, f"{block}.{path}" if path else block, "in" if side == "in" else "out", width)


def _module_hook(model: LanguageModel, path: str, side: Side, width: int) -> HookPoint:
    """A hook for a module path, with the component's name if it is one."""
    match = re.match(rf"{re.escape(model.blocks.prefix)}\.(\d+)(?:\.(.*))?$", path)
    if match is None:
        return HookPoint(None, None, path, side, width)
    layer, inside = int(match[1]), match[2] or ""
    found = model.roles(layer).found
    component = next((name for name in COMPONENTS if found.get(name, (None, None))[:2] == (inside, side)), None)
    return HookPoint(layer, component, path, side, width)


def _short_path(model: LanguageModel, path: str) -> str | None:
    """A full path relative to the backbone, or None for what lies outside it."""
    prefix = f"{model.backbone_path}." if model.backbone_path else ""
    return path.removeprefix(prefix) if path.startswith(prefix) else None


def _explicit_hook(model: LanguageModel, text: str) -> HookPoint:
    path, _, side = text.rpartition(":")
    if side not in _SIDES:
        raise HookPointError(
            f"'{text}': a module path ends in ':in' or ':out', not ':{side}'.", hint=f"Try '{path}:out'."
        )
    records = model.blocks.records
    full = path if path in records else f"{model.backbone_path}.{path}"
    record = records.get(full)
    if record is None or not path:
        raise _unknown_module(model, path)
    chosen: Side = "in" if side == "in" else "out"
    if record.calls != 1:
        times = "does not run when the model reads text" if record.calls == 0 else f"runs {record.calls} times"
        raise HookPointError(f"Module '{full}' {times} in a forward pass up to the head, so it cannot be a hook point.")
    if chosen not in record.widths:
        others = ", ".join(f"':{name}' does" for name in record.widths)
        raise HookPointError(
            f"'{full}:{chosen}' does not carry one activation of shape [batch, tokens, width]."
            + (f" ({others}.)" if others else "")
        )
    return _module_hook(model, full, chosen, record.widths[chosen])


def _unknown_module(model: LanguageModel, path: str) -> HookPointError:
    usable = [name for name, record in model.blocks.records.items() if name and record.widths]
    near = difflib.get_close_matches(path, usable, n=3, cutoff=0.6)
    return HookPointError(
        f"{model.identity.name} ({model.identity.architecture}) has no module '{path}'.",
        hint=f"Did you mean {' or '.join(near)}?" if near else f"Blocks are named '{model.blocks.prefix}.0' and so on.",
    )
