"""``evaluate``: an SAE measured in its language model. The call of ``neuronmap sae evaluate``.

Cancel and resume: nothing is kept of a stopped evaluation (it takes minutes at most); the next attempt begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds.analyze import absolute
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, model_bytes, sae_bytes
from neuronmap.jobs.machine import resolve_device

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Evaluate", "EvaluateArgs"]


class EvaluateArgs(FrozenConfig):
    """What to evaluate. ``text`` and ``model`` may be paths."""

    sae: str
    """Name in the library."""
    text: str | None = None
    """Text to evaluate on; the held-out part of the training text when left out."""
    model: str | None = None
    """Language model, if not the one it was trained on."""
    tokens: int = Field(default=16_384, ge=1)
    """Tokens for reconstruction and sparsity."""
    ce_tokens: int = Field(default=8_192, ge=1)
    """Tokens run through the whole model for loss and KL."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; as in training when left out."""
    dtype: str | None = None
    """Number format of the language model; as in training when left out."""
    force: bool = False
    """Go on although model, revision or tokenizer differ."""


class Evaluate(Kind[EvaluateArgs]):
    """Evaluates one SAE."""

    name = "evaluate"
    args = EvaluateArgs

    def checked(self, args: EvaluateArgs, hub: SAEModelHub) -> EvaluateArgs:
        return args.updated(sae=usable(hub, args.sae).id, text=absolute(args.text), model=absolute(args.model))

    def title(self, args: EvaluateArgs) -> str:
        return f"evaluating {args.sae}"

    def needs(self, args: EvaluateArgs, hub: SAEModelHub) -> Needs:
        entry = hub.get(args.sae)
        device = args.device or (entry.training or {}).get("device")
        return Needs(resolve_device(device), PROCESS_BYTES + model_bytes(args.model or entry.model) + sae_bytes(entry))

    def run(self, args: EvaluateArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.hub.pipeline import evaluate_entry

        given = {name: getattr(args, name) for name in EvaluateArgs.model_fields if name != "sae"}
        hub = context.hub
        metrics = evaluate_entry(hub, hub.get(args.sae), **given, progress=context.progress, fence=context.fence)
        return {"sae": args.sae, "metrics": metrics.summary()}
