"""Language models: loading any Hugging Face model or GGUF, hook points by structure, capture that stops at the hook.

Names load on first use, so that rooms which only look names up (``neuronmap.models.samples``) stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.models.capturing import capture as capture
    from neuronmap.models.capturing import replaced as replaced
    from neuronmap.models.hooks import COMPONENTS as COMPONENTS
    from neuronmap.models.hooks import HookPoint as HookPoint
    from neuronmap.models.hooks import list_hooks as list_hooks
    from neuronmap.models.hooks import resolve_hook as resolve_hook
    from neuronmap.models.hooks import resolve_hooks as resolve_hooks
    from neuronmap.models.hooks import saelens_hook_name as saelens_hook_name
    from neuronmap.models.identity import ModelIdentity as ModelIdentity
    from neuronmap.models.identity import tokenizer_digest as tokenizer_digest
    from neuronmap.models.language_model import LanguageModel as LanguageModel
    from neuronmap.models.language_model import wrap_model as wrap_model
    from neuronmap.models.loading import load_model as load_model
    from neuronmap.models.loading import load_tokenizer as load_tokenizer
    from neuronmap.models.samples import SampleModel as SampleModel
    from neuronmap.models.samples import list_samples as list_samples

_HOMES = {
    "COMPONENTS": "hooks",
    "HookPoint": "hooks",
    "LanguageModel": "language_model",
    "ModelIdentity": "identity",
    "SampleModel": "samples",
    "capture": "capturing",
    "list_hooks": "hooks",
    "list_samples": "samples",
    "load_model": "loading",
    "load_tokenizer": "loading",
    "replaced": "capturing",
    "resolve_hook": "hooks",
    "resolve_hooks": "hooks",
    "saelens_hook_name": "hooks",
    "tokenizer_digest": "identity",
    "wrap_model": "language_model",
}

__all__ = [
    "COMPONENTS",
    "HookPoint",
    "LanguageModel",
    "ModelIdentity",
    "SampleModel",
    "capture",
    "list_hooks",
    "list_samples",
    "load_model",
    "load_tokenizer",
    "replaced",
    "resolve_hook",
    "resolve_hooks",
    "saelens_hook_name",
    "tokenizer_digest",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.models' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
