"""TransformerLens' side of ``harvest.py``; runs in the peers' environment and knows nothing of NeuronMap.

Reads one JSON object a line and answers with one. The first is the setup; then {"tokens": [[...]], "all": false} -> {"seconds": ...},
with one activation cached, or all up to the layer.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

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

    def run(ids: torch.Tensor, every: bool) -> None:
        names = {} if every else {"names_filter": name}
        _, cache = model.run_with_cache(ids, stop_at_layer=layer + 1, **names)
        if tuple(cache[name].shape[:2]) != tuple(ids.shape):
            raise RuntimeError("the cached activation has a wrong shape")

    with torch.inference_mode():
        versions = {"transformer-lens": version("transformer-lens"), "torch (peers)": torch.__version__}
        print(json.dumps({"versions": versions, "threads": torch.get_num_threads()}), flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            ids = torch.tensor(question["tokens"])
            started = time.perf_counter()
            run(ids, question["all"])
            print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
