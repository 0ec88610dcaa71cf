"""Language models: loading any Hugging Face model or GGUF, hook points by structure, capture that stops at the hook."""

from neuronmap.models.capture import capture, replaced
from neuronmap.models.hooks import (
    COMPONENTS,
    HookPoint,
    list_hooks,
    resolve_hook,
    resolve_hooks,
    saelens_hook_name,
)
from neuronmap.models.identity import ModelIdentity, tokenizer_digest
from neuronmap.models.language_model import LanguageModel, wrap_model
from neuronmap.models.loading import load_model, load_tokenizer
from neuronmap.models.samples import SampleModel, list_samples

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
