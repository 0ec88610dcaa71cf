"""Where an SAE reads and writes in a loaded language model, by what its metadata record.

An SAE writes where it reads; a transcoder reads one hook and reconstructs another, so its decoder's rows are directions there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuronmap.errors import InputError, MismatchError
from neuronmap.models import resolve_hook

if TYPE_CHECKING:
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes.base import SparseAutoencoder

__all__ = ["output_hook", "recorded_hook"]


def recorded_hook(record: Mapping[str, Any] | None, model: LanguageModel) -> HookPoint | None:
    """The place in a model that a record of the metadata (``hook``, ``hook_out``) names; None if it names none.

    Raises:
        HookPointError: it names one that the model does not have.
    """
    record = record or {}
    if record.get("module_path"):
        return resolve_hook(model, component=f"{record['module_path']}:{record.get('side', 'out')}")
    if record.get("component") and record.get("layer") is not None:
        return resolve_hook(model, int(record["layer"]), str(record["component"]))
    return None


def output_hook(
    sae: SparseAutoencoder, model: LanguageModel, hook: HookPoint, given: HookPoint | str | None = None
) -> HookPoint:
    """The hook whose activation an SAE reconstructs.

    Args:
        sae: an SAE or a transcoder.
        model: its language model.
        hook: where it reads.
        given: what a transcoder reconstructs, or its name; what its metadata say when left out.

    Raises:
        InputError: for a transcoder that does not say.
        MismatchError: if the hook has another width than what it gives.
        HookPointError: the model has no such place.
    """
    if sae.reconstructs_input:
        return hook
    if isinstance(given, str):
        given = resolve_hook(model, component=given)
    recorded = (sae.provenance.metadata.hook_out if sae.provenance is not None else None) or {}
    found = given if given is not None else recorded_hook(recorded, model)
    if found is None:
        name = recorded.get("name")
        said = f"only {name!r}, which is no place of a Hugging Face model" if name else "nothing"
        raise InputError(
            f"The {sae.architecture} does not say which hook it reconstructs: its metadata have {said}.",
            hint="Where it can be given, name it: hook_out='model.layers.8.mlp:out'.",
        )
    width = sae.b_dec.shape[-1]
    if found.width != width:
        raise MismatchError(
            f"The {sae.architecture} gives activations of width {width}, but {found.name} has width {found.width}."
        )
    return found
