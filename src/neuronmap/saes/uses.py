"""What an SAE can be used for: clear refusals where a tool would give wrong numbers.

Tools that work on rows [N, D] of one hook ask before they start, on the SAE or on its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from neuronmap.errors import MismatchError

if TYPE_CHECKING:
    from neuronmap.saes.base import SparseAutoencoder

__all__ = ["Use", "require_use", "why_not"]

Use = Literal["features", "reconstruction", "intervention"]
"""features: codes of single rows, each activation at least 0 (analysis, extraction).
reconstruction: xhat is compared with x or put in its place (evaluation).
intervention: features are changed at the hook that is read (steering, ablation, effects)."""


def why_not(sae: SparseAutoencoder | type[SparseAutoencoder], use: Use) -> str | None:
    """Why an SAE does not suit a use; None if it does."""
    name = sae.architecture
    if sae.reads == "hooks":
        return f"a {name} reads several hooks together, and this reads one"
    if sae.reads == "contexts":
        return f"a {name} SAE reads whole contexts in the order of the text, and this reads single rows"
    if not sae.reconstructs_input and use != "features":
        return f"a {name} reads one hook and reconstructs another, and this needs a reconstruction of what is read"
    if sae.signed and use != "reconstruction":
        return f"activations of an {name} SAE may be negative, and this takes them to be 0 or more"
    return None


def require_use(sae: SparseAutoencoder | type[SparseAutoencoder], use: Use, what: str) -> None:
    """Refuse an SAE that does not suit a use.

    Args:
        sae: the SAE or its class.
        use: what is asked of it.
        what: what the user wants to do, as the subject of a sentence (``Evaluation``).

    Raises:
        MismatchError: with the reason.
    """
    reason = why_not(sae, use)
    if reason is not None:
        raise MismatchError(
            f"{what} is not possible with this SAE: {reason}.",
            hint="Call its encode and reconstruct on tensors instead.",
        )
