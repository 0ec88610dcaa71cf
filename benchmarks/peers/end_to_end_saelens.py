"""One whole run of SAELens; started by ``benchmarks/end_to_end.py`` in the peers' environment with a job file.

With ``texts`` in the job: ``LanguageModelSAETrainingRunner`` over the same texts and the same model (its own loading,
tokenising, stopping at the hook, shuffling and saving). With ``rows``: its ``SAETrainer`` alone over given activations,
and saving.
Stops at the job's time limit and says how many steps were done and how long the last ones took.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sae_lens
import torch
from datasets import Dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, SAETrainer, TopKTrainingSAE
from sae_lens import TopKTrainingSAEConfig as TopKConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig


class OutOfTimeError(Exception):
    """The job's limit is reached."""


def watch(started, limit_s):
    """Note when each step ends, and stop at the limit."""
    ends = []
    original = SAETrainer.step

    def step(self, batch):
        output = original(self, batch)
        ends.append(time.time())
        if ends[-1] - started > limit_s:
            raise OutOfTimeError
        return output

    SAETrainer.step = step
    return ends


def from_text(job, sae_config):
    texts = [json.loads(line) for line in Path(job["texts"]).read_text().splitlines()]
    config = LanguageModelSAERunnerConfig(
        sae=sae_config,
        model_class_name="AutoModelForCausalLM",
        model_name=job["model"],
        model_from_pretrained_kwargs={"dtype": job["precision"]},
        hook_name=f"model.layers.{job['layer']}",
        dataset_path="given",
        is_dataset_tokenized=False,
        streaming=False,
        context_size=job["context"],
        store_batch_size_prompts=16,
        n_batches_in_buffer=128,
        training_tokens=job["tokens"],
        train_batch_size_tokens=job["batch"],
        prepend_bos=False,
        device="cpu",
        dtype="float32",
        checkpoint_path=None,
        output_path=job["output"],
        logger=LoggingConfig(log_to_wandb=False),
    )
    LanguageModelSAETrainingRunner(config, override_dataset=Dataset.from_dict({"text": texts})).run()


def from_rows(job, sae_config):
    rows_ND = torch.from_numpy(np.load(job["rows"]))

    def batches():
        while True:
            order_N = torch.randperm(len(rows_ND))
            for start in range(0, len(rows_ND) - job["batch"] + 1, job["batch"]):
                yield rows_ND[order_N[start : start + job["batch"]]]

    config = SAETrainerConfig(
        total_training_samples=job["tokens"],
        train_batch_size_samples=job["batch"],
        lr_end=3e-5,
        device="cpu",
    )
    sae = TopKTrainingSAE(sae_config)
    SAETrainer(cfg=config, sae=sae, data_provider=batches()).fit()
    sae.save_inference_model(job["output"])


def main():
    file = Path(sys.argv[1])
    job = json.loads(file.read_text())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    imported = time.time()
    started = job["started"]
    ends = watch(started, job["limit_s"])
    sae_config = TopKConfig(d_in=job["width"], d_sae=job["features"], k=job["k"], normalize_activations="none")
    complete = True
    try:
        (from_rows if job["rows"] else from_text)(job, sae_config)
    except OutOfTimeError:
        complete = False
    finished = time.time()
    answer = {
        "finished_at": finished,
        "seconds": {"imports": imported - started, "to the first step's end": ends[0] - imported},
        "steps": len(ends),
        "steps_wanted": -(-job["tokens"] // job["batch"]),
        "step_ends": [end - started for end in ends],
        "complete": complete,
        "threads": torch.get_num_threads(),
        "versions": {"sae-lens": sae_lens.__version__, "torch": torch.__version__},
    }
    (file.parent / "result.json").write_text(json.dumps(answer, indent=2))


main()
