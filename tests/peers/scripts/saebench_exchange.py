"""Runs in the peers' environment: read our result files with SAEBench's own classes, and write what they hold."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from sae_bench.evals.absorption.eval_output import AbsorptionEvalOutput
from sae_bench.evals.core.eval_output import CoreEvalOutput
from sae_bench.evals.sparse_probing.eval_output import SparseProbingEvalOutput

CLASSES = {
    "core": CoreEvalOutput,
    "sparse_probing": SparseProbingEvalOutput,
    "absorption_first_letter": AbsorptionEvalOutput,
}
folder = Path(sys.argv[1])
read = {}
for kind, made in CLASSES.items():
    document = json.loads((folder / f"{kind}.json").read_text())
    read[kind] = asdict(TypeAdapter(made).validate_python(document))
(folder / "read.json").write_text(json.dumps(read, default=str))
