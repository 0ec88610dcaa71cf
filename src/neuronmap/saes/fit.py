"""Whether an SAE belongs on a model: every difference, and how bad each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neuronmap.errors import MismatchError
from neuronmap.saes.metadata import BundleMetadata

__all__ = ["Difference", "differences", "require_fit"]

Severity = Literal["impossible", "wrong", "note"]

_STREAM_WIDE = ("residual", "residual_pre", "mlp", "attention")
"""Components as wide as the residual stream."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the SAE's model and the given one differ.

    Attributes:
        what: model, revision, tokenizer, hook, width, layers, architecture, dtype.
        expected: what the SAE was trained on.
        found: what the model has.
        severity: ``impossible`` (shapes do not fit; force does not help), ``wrong`` (numbers would mean something
            else), ``note`` (may change results slightly).
    """

    what: str
    expected: str
    found: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.what}: the SAE has {self.expected}, the model {self.found}"


def differences(
    metadata: BundleMetadata, d_in: int, model: Mapping[str, Any], hook: Mapping[str, Any] | None
) -> list[Difference]:
    """Compare what a bundle remembers with a model and the hook on it. What the bundle does not know is not compared.

    A transcoder is compared at the hook that it reads; of the one that it reconstructs, and of a crosscoder's hooks, the widths.

    Args:
        metadata: the bundle's block.
        d_in: width of the SAE.
        model: identity record of the model (``ModelIdentity.to_dict()``).
        hook: record of the hook as found on the model (``module_path``, ``side``, ``width``); empty if the model has no
            such module, None if it was not looked up.

    Returns:
        The worst first; empty if it fits.
    """
    stored, stored_hook = metadata.model or {}, metadata.hook or {}
    found: list[Difference] = []

    def compare(what: str, key: str, severity: Severity) -> bool:
        ours, theirs = stored.get(key), model.get(key)
        if ours is None or theirs is None or ours == theirs:
            return True
        found.append(Difference(what, str(ours), str(theirs), severity))
        return False

    if hook is not None and hook.get("width") is not None and hook["width"] != d_in:
        found.append(Difference("width at the hook", str(d_in), str(hook["width"]), "impossible"))
    hidden = model.get("hidden_size")
    if hidden is not None:
        widths: list[tuple[str, Any, dict[str, Any]]] = [("width", d_in, stored_hook)] if hook is None else []
        widths += [("width", each.get("width"), each) for each in metadata.hooks or ()]
        widths += [("width of its output", (metadata.hook_out or {}).get("width"), metadata.hook_out or {})]
        wrong = {
            (what, width)
            for what, width, place in widths
            if place.get("component") in _STREAM_WIDE and width not in (None, hidden)
        }
        found += [Difference(what, str(width), str(hidden), "impossible") for what, width in sorted(wrong)]
    if hook is not None and stored_hook.get("module_path"):
        ours = f"{stored_hook['module_path']}:{stored_hook.get('side', 'out')}"
        theirs = f"{hook['module_path']}:{hook['side']}" if "side" in hook else "no such module"
        if ours != theirs:
            found.append(Difference("hook", ours, theirs, "wrong"))
    same = stored.get("model_digest") is not None and stored.get("model_digest") == model.get("model_digest")
    if not same:
        compare("model digest", "model_digest", "wrong")
        # Without digests (SAEs from elsewhere) the name is all there is; with them it is only a label.
        known = stored.get("model_digest") is not None and model.get("model_digest") is not None
        compare("model name", "name", "note" if known else "wrong")
        compare("model architecture", "architecture", "wrong")
        compare("number of layers", "num_layers", "wrong")
    # The same weights under another commit hash are still the same weights.
    compare("revision", "revision", "note" if same else "wrong")
    compare("tokenizer digest", "tokenizer_digest", "wrong")
    compare("dtype", "dtype", "note")
    order = ("impossible", "wrong", "note")
    return sorted(found, key=lambda difference: order.index(difference.severity))


def require_fit(found: list[Difference], identifier: str, *, force: bool) -> list[str]:
    """Decide whether an SAE may be used.

    Returns:
        Notes to show: what was forced, and what is only worth knowing.

    Raises:
        MismatchError: lists every difference, unless all are notes or ``force`` is on and the shapes fit.
    """
    impossible = any(difference.severity == "impossible" for difference in found)
    wrong = any(difference.severity == "wrong" for difference in found)
    if impossible or (wrong and not force):
        raise MismatchError(
            f"SAE '{identifier}' does not fit this model: {'; '.join(map(str, found))}.",
            hint="" if impossible else "Load the model it was trained on, or force it if you know that they agree.",
        )
    forced = [f"SAE '{identifier}', forced: {difference}" for difference in found if difference.severity == "wrong"]
    return forced + [f"SAE '{identifier}': {difference}" for difference in found if difference.severity == "note"]
