"""One whole run of ours, from text to bundle; started by ``benchmarks/end_to_end.py`` with a job file.

Writes ``result.json`` beside the job: stages in seconds (imports count from the process's start), and when the bundle
was finished. Rows are exported afterwards, outside the time, when the job names a file for them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuronmap import SAEConfig, SAETrainer
from neuronmap.models import load_model
from neuronmap.progress import LineProgress


def main() -> None:
    file = Path(sys.argv[1])
    job = json.loads(file.read_text())
    torch.set_num_threads(job["threads"])
    if job["only_prepare"]:
        load_model(job["model"], dtype=job["precision"], device="cpu", progress=LineProgress())
        return
    imported = time.time()
    config = SAEConfig(
        model_name=job["model"],
        layer=job["layer"],
        architecture="topk",
        hidden_dim=job["features"],
        k=job["k"],
        context_length=job["context"],
        batch_size=job["batch"] // job["context"],
        max_tokens=job["tokens"],
        model_dtype=job["precision"],
    )
    trainer = SAETrainer(config, progress=LineProgress(interval_s=30), run_folder=file.parent / "run")
    result = trainer.train(job["corpus"])
    finished = time.time()
    record = result.run.read()
    answer = {
        "finished_at": finished,
        "seconds": {
            "imports": imported - job["started"],
            "train()": finished - imported,
            "of which training steps": result.history[-1]["seconds"],
        },
        "steps": record["steps"],
        "rows": record["rows"],
        "explained_variance": result.metrics["summary"].get("explained_variance"),
        "threads": torch.get_num_threads(),
    }
    if job["export"] and result.data is not None:
        stored: Any = result.data.rows
        np.save(job["export"], stored.read(0, stored.num_rows).float().numpy())
    (file.parent / "result.json").write_text(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
