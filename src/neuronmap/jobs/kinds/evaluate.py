"""``evaluate``: an SAE measured in its language model. The call of ``neuronmap sae evaluate``.

Cancel and resume: of suites, each one that was finished is kept, and the next attempt goes on with the others; the core evaluation alone
takes minutes at most, and begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.evaluation.suites.record import SuiteName
from neuronmap.evaluation.suites.settings import check_suites
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
    suites: tuple[SuiteName, ...] = ()
    """Suites to run, with baselines; the core evaluation without baselines when left out."""
    against: str | None = None
    """For the suite stability: an SAE of another seed, its name in the library."""


class Evaluate(Kind[EvaluateArgs]):
    """Evaluates one SAE."""

    name = "evaluate"
    args = EvaluateArgs

    def checked(self, args: EvaluateArgs, hub: SAEModelHub) -> EvaluateArgs:
        if args.suites or args.against is not None:
            check_suites(args.suites, against=args.against is not None)
        found = args.updated(sae=usable(hub, args.sae).id, text=absolute(args.text), model=absolute(args.model))
        if args.against is None:
            return found
        from neuronmap.hub.evaluating import check_second

        second = usable(hub, args.against)
        check_second(hub.get(found.sae), second, args.force)
        return found.updated(against=second.id)

    def title(self, args: EvaluateArgs) -> str:
        return f"evaluating {args.sae}"

    def needs(self, args: EvaluateArgs, hub: SAEModelHub) -> Needs:
        entry = hub.get(args.sae)
        device = args.device or (entry.training or {}).get("device")
        return Needs(resolve_device(device), PROCESS_BYTES + model_bytes(args.model or entry.model) + sae_bytes(entry))

    def run(self, args: EvaluateArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.hub.pipeline import evaluate_entry

        hub = context.hub
        if args.suites:
            return self._suites(args, context)
        left_out = ("sae", "suites", "against")
        given = {name: getattr(args, name) for name in EvaluateArgs.model_fields if name not in left_out}
        metrics = evaluate_entry(hub, hub.get(args.sae), **given, progress=context.progress, fence=context.fence)
        return {"sae": args.sae, "metrics": metrics.summary()}

    def _suites(self, args: EvaluateArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.evaluation.suites.settings import SuiteSettings
        from neuronmap.hub.evaluating import evaluate_suites_entry

        result = evaluate_suites_entry(
            context.hub,
            context.hub.get(args.sae),
            args.suites,
            against=args.against,
            text=args.text,
            model=args.model,
            settings=SuiteSettings(max_tokens=args.tokens, max_ce_tokens=args.ce_tokens),
            device=args.device,
            dtype=args.dtype,
            force=args.force,
            progress=context.progress,
            fence=context.fence,
        )
        return {"sae": args.sae, "metrics": result.summary()}
