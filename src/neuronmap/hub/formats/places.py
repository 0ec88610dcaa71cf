"""Where foreign names of hook points lie: TransformerLens', module paths, and what is left to say.

A name is turned into layer and component where it means one of ours; else it is kept as it is, and only a person (``--hook``)
can say where it lies in a Hugging Face model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["INSIDE", "LENS_MODELS", "Place", "hub_model", "layer_in", "lens_place", "module_place", "said_record"]

_LENS = {
    "hook_resid_post": "residual",
    "hook_resid_pre": "residual_pre",
    "hook_mlp_out": "mlp",
    "mlp.hook_out": "mlp",
    "mlp.hook_post": "mlp_hidden",
    "hook_attn_out": "attention",
    "attn.hook_z": "attention_heads",
}
INSIDE = ("mlp:in", "mlp:out")
"""What the MLP module itself is given and gives, in whatever model: found by structure. ``mlp:out`` is the component ``mlp``
except where a norm follows before the addition (Gemma 2)."""
_LENS_INSIDE = {"mlp.hook_in": "mlp:in", "ln2.hook_normalized": "mlp:in", "mlp.hook_out": "mlp:out"}
"""ln2.hook_normalized is the MLP's input in models that TransformerLens has not folded; its proof tells where it is not."""
LENS_MODELS = {
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
"""Hub ids of TransformerLens' short names, where the two are not alike."""
_OWNERS = (
    (r"gemma-.*", "google"),
    (r"pythia-.*", "EleutherAI"),
    (r"llama-.*", "meta-llama"),
    (r"qwen.*", "Qwen"),
    (r"gpt2.*", "openai-community"),
)


class Place(NamedTuple):
    """A hook point by name.

    Attributes:
        layer: block, counted from 0; None where the name has none.
        component: one of ours, or None.
        name: explicit hook (``layers.3.mlp:in``) where the name is a module path; else None.
        foreign: the name as it was given.
        inside: one of :data:`INSIDE`, or None.
    """

    layer: int | None
    component: str | None
    name: str | None
    foreign: str
    inside: str | None = None

    def record(self, width: int) -> dict[str, Any]:
        """As metadata keeps it, with the width of its activation."""
        found: dict[str, Any] = {"name": self.name, "layer": self.layer, "component": self.component, "width": width}
        if self.name is not None:
            module_path, _, side = self.name.rpartition(":")
            found |= {"module_path": module_path, "side": side}
        if self.inside is not None:
            found["inside"] = self.inside
        return found


def lens_place(name: str) -> Place:
    """A TransformerLens name (``blocks.8.hook_resid_post``), or a module path of which the output is meant."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match is None:
        return Place(layer_in(name), None, None, name) if name.startswith("hook_") else module_place(name)
    return Place(int(match[1]), _LENS.get(match[2]), None, name, _LENS_INSIDE.get(match[2]))


def said_record(hook: str, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """A hook's record by what a person says: a component (``residual``), ``mlp:in`` or ``mlp:out`` of the record's layer, or a module
    path with a side.

    Args:
        hook: what was said.
        record: what the files say; its layer and width stay.
    """
    before = record or {}
    layer, width = before.get("layer"), before.get("width")
    if hook in INSIDE and layer is not None:
        return {"name": None, "layer": layer, "component": None, "width": width, "inside": hook}
    if ":" not in hook:
        return {"name": None, "layer": layer, "component": hook, "width": width}
    module_path, _, side = hook.rpartition(":")
    return {"name": hook, "layer": layer_in(module_path), "component": None, "width": width, "module_path": module_path,
            "side": side}  # fmt: skip


def module_place(path: str, side: str = "out") -> Place:
    """A module path of a Hugging Face model, absolute or relative to its base model; ``.output`` and ``.input`` say the side."""
    shown = path
    for ending, meant in ((".output", "out"), (".input", "in")):
        if path.endswith(ending):
            path, side = path.removesuffix(ending), meant
    layer = layer_in(path)
    whole_block = layer is not None and re.search(rf"\.{layer}$", path) is not None
    component = ("residual" if side == "out" else "residual_pre") if whole_block else None
    return Place(layer, component, f"{path}:{side}", shown)


def layer_in(text: str) -> int | None:
    """The first number between dots, or after ``layer_``, ``layers.``, ``L``."""
    match = re.search(r"(?:^|[./_-])(?:layers?[._-]?|blocks?[._-]|h\.|L)(\d+)(?=$|[^0-9])", text) or re.search(
        r"\.(\d+)(?=\.|$)", text
    )
    return int(match[1]) if match else None


def hub_model(name: str | None) -> str | None:
    """A hub id for a model's short name; other names stay as they are."""
    if not name or "/" in name:
        return name
    if name in LENS_MODELS:
        return LENS_MODELS[name]
    owner = next((owner for pattern, owner in _OWNERS if re.fullmatch(pattern, name, re.IGNORECASE)), None)
    return f"{owner}/{name}" if owner else name
