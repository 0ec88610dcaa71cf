"""The form that starts a training, made from the schema of ``SAEConfig``: a new setting is in the form without a change here."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel, Field

from neuronmap.saes.registry import architecture_options
from neuronmap.training.config import SAEConfig

__all__ = ["FormField", "FormGroup", "form_groups", "form_values"]

_GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("What is looked at", "", ("model_name", "layer", "component")),
    ("The SAE", "", ("architecture", "hidden_dim", "k", "sparsity_penalty", "target_l0")),
    ("Text", "", ("corpus", "max_tokens", "context_length")),
    ("Training", "", ("num_epochs", "batch_size", "learning_rate", "seed")),
    ("Name", "", ("name", "tags")),
)
"""What the form shows first; everything else is under "More settings"."""
_LEFT_OUT = ("loggers", "input_dim")
_NAMES = {
    "model_name": "language model",
    "hidden_dim": "features",
    "k": "k, active features",
    "corpus": "text",
    "max_tokens": "tokens",
    "num_epochs": "epochs",
    "batch_size": "batch size (contexts)",
    "target_l0": "target L0",
}
_ABOUT = {
    "model_name": "A sample, a model that SAEs here were trained on, a hub id such as owner/name, or a folder that this server opens.",
    "corpus": "A sample, a text that SAEs here were trained on, hf:owner/name, or a text in the folder that this server opens.",
    "name": "What the SAE is called in the library; made from model, hook and architecture when left out.",
}
"""Where the setting's own words speak of what a browser cannot give."""
_LISTS = {"model_name": "models", "corpus": "texts"}


class FormField(BaseModel):
    """One setting as the form shows it."""

    name: str
    label: str
    kind: Literal["text", "number", "choice", "flag"]
    about: str = Field(description="What it is, from the setting's own documentation.")
    value: str = Field(description="As it was typed; empty for the default.")
    default: str = Field(description="What holds when it is left empty.")
    choices: list[str] = Field(default_factory=list)
    least: float | None = None
    most: float | None = None
    step: str = "any"
    suggestions: str = Field(default="", description="Id of a list of suggestions.")
    error: str = ""


class FormGroup(BaseModel):
    """Settings that belong together."""

    title: str
    about: str
    fields: list[FormField]


def form_groups(values: Mapping[str, str], errors: Mapping[str, str] | None = None) -> list[FormGroup]:
    """The form.

    Args:
        values: what was typed, by setting.
        errors: what is wrong with it, by setting.
    """
    errors, first = errors or {}, {name for _, _, names in _GROUPS for name in names}
    rest = tuple(name for name in SAEConfig.model_fields if name not in first and name not in _LEFT_OUT)
    groups = [*_GROUPS, ("More settings", "All of them have defaults that fit most runs.", rest)]
    return [
        FormGroup(title=title, about=about, fields=[_field(name, values, errors) for name in names])
        for title, about, names in groups
    ]


def form_values(sent: Mapping[str, str]) -> dict[str, Any]:
    """Settings from what a form sent: empty fields are left to their defaults, flags that were not sent are off."""
    found: dict[str, Any] = {}
    for name in SAEConfig.model_fields:
        if name in _LEFT_OUT:
            continue
        text = sent.get(name, "").strip()
        if _kind(name)[0] == "flag":
            found[name] = text != ""
        elif text:
            found[name] = _parsed(name, text)
    return found


def _parsed(name: str, text: str) -> Any:
    """A value as its setting takes it; what cannot be read is left for the setting's own check to refuse."""
    if name == "architecture_options":
        return {
            key.strip(): value.strip() for key, _, value in (part.partition("=") for part in text.split(",")) if key
        }
    if _kind(name)[0] == "number":
        return re.sub(r"(?<=\d)[, _](?=\d{3}\b)", "", text)
    return None if text == "none" else text


def _field(name: str, values: Mapping[str, str], errors: Mapping[str, str]) -> FormField:
    info = SAEConfig.model_fields[name]
    kind, whole, choices = _kind(name)
    least, most = _limits(info.metadata)
    default = info.get_default(call_default_factory=True)
    return FormField(
        name=name,
        label=_NAMES.get(name, name.replace("_", " ")),
        kind=kind,
        about=_ABOUT.get(name) or " ".join((info.description or "").split()),
        value=values.get(name, ""),
        default="" if default in (None, {}, ()) else str(default),
        choices=choices,
        least=least,
        most=most,
        step="1" if whole else "any",
        suggestions=_LISTS.get(name, ""),
        error=errors.get(name, ""),
    )


def _kind(name: str) -> tuple[str, bool, list[str]]:
    """How a setting is typed in: kind, whether whole, choices."""
    if name == "architecture":
        return "choice", False, ["auto", *architecture_options()]
    plain = _plain(SAEConfig.model_fields[name].annotation)
    if typing.get_origin(plain) is Literal:
        return "choice", False, [str(one) for one in typing.get_args(plain)]
    if plain is bool:
        return "flag", False, []
    if plain in (int, float):
        return "number", plain is int, []
    return "text", False, []


def _plain(annotation: Any) -> Any:
    """A type without None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def _limits(metadata: list[Any]) -> tuple[float | None, float | None]:
    least: Any = None
    most: Any = None
    for one in metadata:
        if isinstance(one, annotated_types.Ge):
            least = one.ge
        elif isinstance(one, annotated_types.Le):
            most = one.le
    return least, most
