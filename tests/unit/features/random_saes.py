"""Small random SAEs on the tiny Llama; what they find is meaningless, so every number must come from the rule itself."""

from __future__ import annotations

import torch

from neuronmap.models import LanguageModel, capture, resolve_hook
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture
from neuronmap.saes.provenance import Provenance

LAYER, F, K = 1, 64, 5
MASK = {"skip_special": True, "skip_first_positions": 1, "outlier_factor": None}


def random_sae(
    model: LanguageModel, layer: int = LAYER, features: int = F, k: int = K, seed: int = 0
) -> SparseAutoencoder:
    """A top-k SAE whose decoder and encoder are random; it knows the model it belongs to."""
    hook = resolve_hook(model, layer, "residual")
    generator = torch.Generator().manual_seed(seed)
    cls = get_architecture("topk")
    sae = cls(hook.width, features, cls.Options.from_dict({"k": k}))
    ids_BT = torch.randint(3, 290, (8, 32), generator=generator)
    x_ND = capture(model, ids_BT, [hook])[hook.name].reshape(-1, hook.width).float()
    sae.initialise(x_ND.mean(0), generator)
    sae.requires_grad_(False).eval()
    metadata = BundleMetadata(
        architecture="topk",
        options={"k": k},
        model=model.identity.to_dict(),
        hook=hook.to_dict(),
        corpus={"mask": MASK, "context_length": 32},
    )
    sae.provenance = Provenance(metadata).with_model(model)
    return sae
