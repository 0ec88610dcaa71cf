"""TransformerLens' side of ``harvest.py``; runs in the peers' environment and knows nothing of NeuronMap.

Reads one JSON object a line, answers with one: {"tokens": [[...]]} -> {"seconds": ...}. The first line is the setup.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    layer = setup["layer"]
    config = HookedTransformerConfig(
        n_layers=setup["layers"], d_model=setup["width"], n_ctx=1024, d_head=64, n_heads=setup["width"] // 64,
        d_mlp=4 * setup["width"], d_vocab=setup["vocabulary"], act_fn="gelu_new", normalization_type="LN", seed=0,
    )  # fmt: skip
    model = HookedTransformer(config, move_to_device=True)
    model.eval()
    name = f"blocks.{layer}.hook_resid_post"

    def run(ids: torch.Tensor) -> None:
        _, cache = model.run_with_cache(ids, stop_at_layer=layer + 1, names_filter=name)
        if tuple(cache[name].shape[:2]) != tuple(ids.shape):
            raise RuntimeError("the cached activation has a wrong shape")

    with torch.inference_mode():
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            ids = torch.tensor(json.loads(line)["tokens"])
            started = time.perf_counter()
            run(ids)
            print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
