"""Run by the peers' own interpreter (see ``test_synthetic.py``); needs sae-lens, knows nothing of NeuronMap.

    synthetic_exchange.py FOLDER

Reads  FOLDER/sae/                a bundle
       FOLDER/truth.safetensors   dictionary [G, D], bias [D], values [N, G], start [G, D], base [H] (of a hierarchy)
Writes FOLDER/saelens.json        what eval_sae_on_synthetic_data says
       FOLDER/saelens.safetensors orthogonalised start, compensated probabilities, parents
"""

import json
import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.synthetic.evals import eval_sae_on_synthetic_data
from sae_lens.synthetic.feature_dictionary import FeatureDictionary, orthogonalize_embeddings
from sae_lens.synthetic.hierarchy import HierarchyConfig, generate_hierarchy
from safetensors.torch import load_file, save_file


class Given:
    """Stands where a generator of activations stands, and gives those it was given."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.at = values, 0

    def sample(self, count: int) -> torch.Tensor:
        self.at += count
        return self.values[self.at - count : self.at]


folder = Path(sys.argv[1])
given = load_file(folder / "truth.safetensors")
dictionary = FeatureDictionary(*given["dictionary"].shape, initializer=None)
dictionary.feature_vectors.data, dictionary.bias.data = given["dictionary"], given["bias"]
sae = SAE.load_from_disk(folder / "sae")
result = eval_sae_on_synthetic_data(sae, dictionary, Given(given["values"]), len(given["values"]), batch_size=1024)
(folder / "saelens.json").write_text(json.dumps(result.to_dict()))

hierarchy = generate_hierarchy(len(given["base"]), HierarchyConfig(4, 3, 2, 1.0, compensate_probabilities=True), seed=0)
factors = hierarchy.compute_probability_correction_factors(given["base"])
parents = torch.full((len(given["base"]),), -1)
nodes = list(hierarchy.roots)
while nodes:
    node = nodes.pop()
    for child in node.children:
        parents[child.feature_index] = node.feature_index
        nodes.append(child)
save_file(
    {
        "apart": orthogonalize_embeddings(given["start"], num_steps=50, lr=0.01),
        "probability": (given["base"] * factors).clamp(max=1.0),
        "parents": parents,
    },
    folder / "saelens.safetensors",
)
