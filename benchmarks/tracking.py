"""The abstraction tracker: how long it takes, what it finds on the sample models, how both grow.

    python benchmarks/tracking.py                        # everything, about half an hour on 2 cores
    python benchmarks/tracking.py --sections presets     # presets, table, models, growth

Sections: ``presets`` times quick (two families) and full (all built-in concepts) in a process each, the model's loading apart; ``table``
is the demonstration that the tracker was specified by (one construction at a time); ``models`` puts SmolLM2, the MiniLM encoder and a
GPT-2 of SmolLM2's shape with random weights side by side; ``growth`` varies blocks, width and items of random Llamas. Every
measurement begins with an empty cache. Writes ``results/tracking-<date>.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from speed_machine import commit, machine

HERE = Path(__file__).parent
SECTIONS = ("presets", "table", "models", "growth")
TABLE_LAYERS = (0, 2, 4, 6, 10, 14, 20, 28)
MODELS_CONCEPTS = ("grammatical_number:subject", "syntactic_role:grammatical", "polarity", "semantic_category:later")
GROWTH = {
    "blocks": [{"blocks": 6}, {"blocks": 12}, {"blocks": 24}],
    "width": [{"width": 192}, {"width": 384}, {"width": 768}],
    "items": [{"items": 240}, {"items": 480}, {"items": 960}],
}
SHAPE = {"blocks": 12, "width": 384, "items": 480}


def in_process(section: str, **arguments: Any) -> dict[str, Any]:
    """One measurement in a process and a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        cached = Path(os.environ.get("NEURONMAP_HOME", Path.home() / ".local/share/neuronmap")) / "cache/models"
        (Path(folder) / "cache").mkdir()
        if cached.is_dir():
            (Path(folder) / "cache/models").symlink_to(cached)  # the dequantised sample
        done = subprocess.run(
            [sys.executable, __file__, "--worker", section, json.dumps(arguments)],
            env={**os.environ, "NEURONMAP_HOME": folder},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_gib() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def work_preset(preset: str, concepts: list[str]) -> dict[str, Any]:
    """One preset on the sample model."""
    from neuronmap.hub.tracking import TrackingSettings, track_into_library
    from neuronmap.models import load_model

    model = load_model("smollm2-135m")
    loaded, started = peak_gib(), time.perf_counter()
    wanted = TrackingSettings(
        model="smollm2-135m", preset=preset, concepts=tuple(concepts), prompts=("The keys to the cabinet probably",)
    )
    report = track_into_library(wanted, model=model)
    return {
        "seconds": time.perf_counter() - started,
        "parts": report.seconds,
        "loaded_gib": loaded,
        "peak_gib": peak_gib(),
        "concepts": [summary(one) for one in report.concepts],
        "blocks": report.similarity.blocks if report.similarity else None,
    }


def summary(result: Any) -> dict[str, Any]:
    """What is printed of one concept."""
    one, found = result.summary, result.complexity
    return {
        "name": result.concept["name"],
        "verdict": one.verdict,
        "embedding": one.present_at_embedding,
        "half_depth": one.half_depth.to_dict(),
        "relative": one.half_depth_relative,
        "emergence": one.emergence,
        "peak": one.peak,
        "best": one.best,
        "decay": one.decay,
        "null95": result.null95,
        "bits": found.mdl_bits.value if found else None,
        "bits_embedding": found.mdl_bits_embedding.value if found else None,
        "rank": found and found.rank,
        "rank_low": found and found.rank_low,
        "rank_high": found and found.rank_high,
        "context_need": found.context_need.value if found else None,
        "n90": found.n90.value if found else None,
        "rank90": found.rank90.value if found else None,
        "mlp_gap": found.mlp_gap.value if found else None,
    }


def work_table() -> dict[str, Any]:
    """One construction at a time, as in the demonstration: number in "the N1 near the N2 ADV", roles within and across voices."""
    from neuronmap.abstraction.settings import TrackerConfig
    from neuronmap.abstraction.tracker import AbstractionTracker
    from neuronmap.concepts import ConceptData, get_concepts

    def only(name: str, condition: str) -> Any:
        concept = get_concepts(name)[0]

        def generate(items: int, seed: int) -> ConceptData:
            data = concept.generate(4 * items, seed)
            kept = tuple(item for item in data.items if item.condition == condition)
            return ConceptData(f"{name}-{condition}", data.classes, kept)

        return dataclasses.replace(concept, name=f"{name}-{condition}", crossed=None, generate=generate)

    config = TrackerConfig(
        items=900, permutations=100, resamples=100, mlp=False, untrained=False, complexity=False, similarity=False
    )
    tracker = AbstractionTracker("smollm2-135m", config=config, layers=TABLE_LAYERS)
    subject, attractor = tracker.measure(
        [only("grammatical_number:subject", "prepositional"), only("grammatical_number:attractor", "prepositional")]
    )
    tracker.config = config.updated(items=480)
    lexical, thematic = tracker.measure(["grammatical_number:lexical", "syntactic_role:thematic"])
    alone = [level.alone for level in thematic.cross.levels] if thematic.cross else []
    return {
        "layers": list(TABLE_LAYERS),
        "rows": {
            "number at the noun": lexical.within.score,
            "subject's number at the adverb, probe": subject.within.score,
            "subject's number at the adverb, difference of means": subject.difference_of_means,
            "attractor's number at the adverb, probe": attractor.within.score,
            "attractor's number at the adverb, difference of means": attractor.difference_of_means,
            "random labels of nouns, the same nouns": lexical.control.shared if lexical.control else [],
            "random labels of nouns, other nouns": lexical.control.heldout if lexical.control else [],
            "thematic role within a voice": [min(both) for both in zip(*alone, strict=True)],
            "thematic role across voices": thematic.cross.mean.score if thematic.cross else [],
        },
    }


def work_model(which: str) -> dict[str, Any]:
    """Some concepts in one of three models."""
    from neuronmap.abstraction.settings import TrackerConfig
    from neuronmap.abstraction.tracker import AbstractionTracker
    from neuronmap.models import load_model
    from neuronmap.models.samples import SENTENCE_ENCODER

    if which == "minilm":
        model = load_model(str(SENTENCE_ENCODER.require().parent))
    elif which == "gpt2-random":
        model = random_gpt2()
    else:
        model = load_model("smollm2-135m")
    config = TrackerConfig(untrained=False, context_need=False, similarity=False)
    tracker = AbstractionTracker(model, config=config)
    results = tracker.measure(MODELS_CONCEPTS)
    return {
        "blocks": model.num_layers,
        "concepts": [{**summary(one), "cross": one.cross.mean.score} for one in results],
    }


def random_gpt2() -> Any:
    """A GPT-2 of SmolLM2's width and depth, as initialised, with SmolLM2's tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from neuronmap.models import load_model, wrap_model

    sample = load_model("smollm2-135m")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=sample.module.config.vocab_size, n_embd=576, n_layer=30, n_head=9, bos_token_id=0, eos_token_id=0
    )
    return wrap_model(GPT2LMHeadModel(config), sample.tokenizer, "GPT-2, random weights")


def work_growth(blocks: int, width: int, items: int) -> dict[str, Any]:
    """One concept in a random Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from neuronmap.abstraction.settings import TrackerConfig
    from neuronmap.abstraction.tracker import AbstractionTracker
    from neuronmap.models import load_tokenizer, wrap_model

    torch.manual_seed(0)
    tokenizer = load_tokenizer("smollm2-135m")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = wrap_model(LlamaForCausalLM(config), tokenizer, "random Llama")
    loaded = peak_gib()
    tracker = AbstractionTracker(model, config=TrackerConfig(items=items, untrained=False, context_need=False))
    started = time.perf_counter()
    tracker.track(["grammatical_number:subject"])
    return {
        "seconds": time.perf_counter() - started,
        "parts": dict(tracker._seconds),
        "more_gib": peak_gib() - loaded,
    }


WORK = {"preset": work_preset, "table": work_table, "model": work_model, "growth": work_growth}


def number(value: float | None, places: int = 2) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{value:.{places}f}"


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    lines = [
        "# The abstraction tracker",
        "",
        f"{record['date']}, commit {record['commit']}, {record['machine']['cpu']}, ",
    ]
    lines[-1] += f"{record['machine']['threads']} cores. By `benchmarks/tracking.py`."
    kept = [f"{section} {name}" for section, name in record.get("kept", {}).items()]
    if kept:
        lines += ["", f"Taken over from an earlier run of the day, by commit: {', '.join(kept)}."]
    for name, found in record.get("presets", {}).items():
        lines += ["", f"## {name}", ""]
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found["parts"].items())
        lines.append(
            f"{found['seconds']:.0f} s after loading ({parts}); {found['peak_gib']:.2f} GiB at its peak, {found['loaded_gib']:.2f} with the"
            " model alone."
        )
        lines += ["", *concept_table(found["concepts"])]
    if "table" in record:
        layers = record["table"]["layers"]
        lines += ["", "## AUC on SmolLM2, one construction at a time", ""]
        lines += [f"| layer | {' | '.join(map(str, layers))} |", f"| --- |{' ---: |' * len(layers)}"]
        rows = record["table"]["rows"].items()
        lines += [f"| {name} | {' | '.join(number(value) for value in row)} |" for name, row in rows]
    for name, found in record.get("models", {}).items():
        lines += ["", f"## {name}, {found['blocks']} blocks", "", *concept_table(found["concepts"])]
    if "growth" in record:
        lines += ["", "## Growth, one concept in a random Llama", "", "| | seconds | of it reading | memory, GiB |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for label, found in record["growth"].items():
            lines.append(
                f"| {label} | {found['seconds']:.1f} | {found['parts'].get('reading', 0):.1f} | {found['more_gib']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def concept_table(concepts: list[dict[str, Any]]) -> list[str]:
    """Markdown lines, a concept each."""
    lines = [
        "| concept | verdict | half depth (95 %) | relative | emerges | best AUC | null | bits (embedding) | place | context |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for one in concepts:
        half = one["half_depth"]
        depth = (
            f"{number(half['value'], 1)} ({number(half['low'], 1)} to {number(half['high'], 1)})"
            if half["value"] is not None
            else half["reason"]
        )
        place = "–" if one["rank"] is None else f"{one['rank']} ({one['rank_low']} to {one['rank_high']})"
        lines.append(
            f"| {one['name']} | {one['verdict']} | {depth} | {number(one['relative'])} | {number(one['emergence'], 0)} | "
            f"{number(one['best'])} | {number(one['null95'])} | {number(one['bits'], 0)} ({number(one['bits_embedding'], 0)}) | {place} | "
            f"{number(one['context_need'], 0)} |"
        )
    return lines


def with_kept(record: dict[str, Any], file: Path) -> dict[str, Any]:
    """The record with the sections that it lacks and today's file has, each with the commit that it was measured at."""
    if not file.is_file():
        return record
    before = json.loads(file.read_text())
    kept = {section: before.get("kept", {}).get(section, before["commit"]) for section in SECTIONS if section in before}
    kept = {section: at for section, at in kept.items() if section not in record}
    return {**record, **{section: before[section] for section in kept}, "kept": kept}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options.add_argument("--out", type=Path, default=HERE / "results")
    options.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        print(json.dumps(WORK[given.worker[0]](**json.loads(given.worker[1]))))
        return
    record: dict[str, Any] = {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "machine": machine(os.cpu_count() or 1),
    }
    if "presets" in given.sections:
        record["presets"] = {
            "Quick, two families": in_process(
                "preset", preset="quick", concepts=["grammatical_number", "syntactic_role"]
            ),
            "Full, all built-in concepts": in_process("preset", preset="full", concepts=[]),
        }
    if "table" in given.sections:
        record["table"] = in_process("table")
    if "models" in given.sections:
        record["models"] = {
            "SmolLM2-135M": in_process("model", which="smollm2"),
            "MiniLM (encoder)": in_process("model", which="minilm"),
            "GPT-2 of SmolLM2's shape, random weights": in_process("model", which="gpt2-random"),
        }
    if "growth" in given.sections:
        record["growth"] = {
            ", ".join(f"{key} {value}" for key, value in change.items()): in_process("growth", **{**SHAPE, **change})
            for changes in GROWTH.values()
            for change in changes
        }
    name = given.out / f"tracking-{record['date']}"
    record = with_kept(record, name.with_suffix(".json"))
    name.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    name.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
