"""How a model comes to hold a concept, in four lessons; on SmolLM2-135M.

    python examples/demo_abstraction.py                     # thorough: every layer, more sentences, complexity (some minutes)
    python examples/demo_abstraction.py --quick             # every other layer, fewer sentences; what CI runs

The page with all plots is ./abstraction.html (``--out``). Finished concepts are kept: a second run reads them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import fill

from neuronmap import AbstractionTracker
from neuronmap.abstraction import TrackerConfig, TrackingReport
from neuronmap.abstraction.export import report_html
from neuronmap.abstraction.record import ConceptResult, Series
from neuronmap.abstraction.settings import Preset

NOUN, SUBJECT, ROLE = "grammatical_number:lexical", "grammatical_number:subject", "syntactic_role:thematic"
PROMPT = "Everyone said that the keys to the cabinet probably"


def settings(quick: bool) -> TrackerConfig:
    """The preset; in a quick run without what these lessons do not use."""
    preset: Preset = "quick" if quick else "full"
    return (
        TrackerConfig.preset(preset, complexity=False, control_labelings=0) if quick else TrackerConfig.preset(preset)
    )


def line(name: str, values: Series | None, layers: list[int], shown: list[int]) -> str:
    """One score at some layers; a dash is "not established"."""
    cells = [None if values is None else values[layers.index(layer)] for layer in shown]
    return f"  {name:<34}" + "".join("     –" if value is None else f"{value:6.2f}" for value in cells)


def lesson(number: int, title: str, result: ConceptResult, remark: str) -> None:
    """Print a concept's curve at about eight layers, and what follows from it."""
    layers = result.layers
    shown = sorted({layers[round(at * (len(layers) - 1) / 7)] for at in range(8)})
    example = result.examples[0]
    start, stop = example["span"]
    text = f"{example['text'][:start]}[{example['text'][start:stop]}]{example['text'][stop:]}"
    print(f"\n# {number}. {title}\n")
    print(f"{result.concept['contrast']} Read {result.concept['read_rule']}.\n  {text}  ({example['label']})\n")
    print(f"  {'layer':<34}" + "".join(f"{layer:6}" for layer in shown))
    print(line("AUC, words held out", result.within.score, layers, shown))
    if result.cross is not None:
        print(line("AUC, words and condition held out", result.cross.mean.score, layers, shown))
    print(line("AUC, difference of means", result.difference_of_means, layers, shown))
    null = "not known" if result.null95 is None else f"{result.null95:.2f}"
    verdict = f"Verdict: {result.summary.verdict}. {result.summary.statement}"
    for part in (f"95 % of relabelings stay below {null} at all layers. {verdict}", remark):
        print("\n" + fill(part, 110, initial_indent="  ", subsequent_indent="  "))


def depth(result: ConceptResult) -> str:
    """The half depth with its interval, or why there is none."""
    half = result.summary.half_depth
    if half.value is None:
        return f"not established ({half.reason})"
    return f"layer {half.value:.1f}" + ("" if half.low is None else f" ({half.low:.1f} to {half.high:.1f})")


def follow(report: TrackingReport) -> None:
    """Print where each concept is strongest in the prompt, and at how many of its cells a probe may speak at all."""
    (trajectory,) = report.trajectories
    print(f"\n# 4. Follow a prompt: {trajectory.prompt}\n")
    for one in trajectory.concepts:
        cells = [why for row in one.grey for why in row]
        may = f"{cells.count('')} of {len(cells)} cells say something"
        if one.peak_token is None or one.peak_layer is None:
            print(f"  {one.title}: {may}; the others are grey: {', '.join(sorted(set(cells) - {''}))}.")
            continue
        value = one.log_odds[one.peak_token][trajectory.layers.index(one.peak_layer)] or 0.0
        token = trajectory.tokens[one.peak_token].strip()
        print(
            f"  {one.title}: strongest at '{token}', layer {one.peak_layer}: {one.classes[value > 0]} (log-odds {value:+.1f}); {may}."
        )
    if trajectory.lens is not None:
        for place in (len(trajectory.layers) // 2, -1):
            words = ", ".join(repr(word) for word in trajectory.lens[-1][place])
            print(f"  Logit lens at the last token, layer {trajectory.layers[place]}: {words}")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every other layer and fewer sentences")
    parser.add_argument("--model", default="smollm2-135m", help="hub id, folder, GGUF file or sample")
    parser.add_argument("--out", type=Path, default=Path("abstraction.html"), help="the page with all plots")
    arguments = parser.parse_args()

    tracker = AbstractionTracker(arguments.model, config=settings(arguments.quick))
    report = tracker.track([NOUN, SUBJECT, ROLE], prompts=[PROMPT])
    found = {str(result.concept["name"]): result for result in report.concepts}
    layers = f"{len(report.layers)} of {report.blocks + 1} layers; 0 is the embedding"
    print(f"\n{report.model['name']}: {layers}, {report.blocks} the last block's output.")
    lesson(
        1, "What the word shows is there from the start", found[NOUN],
        f"Half depth: {depth(found[NOUN])}. 'keys' and 'key' are different tokens: nothing has to emerge.",
    )  # fmt: skip
    lesson(
        2, "What the word does not show must be carried there", found[SUBJECT],
        f"Half depth: {depth(found[SUBJECT])}. The adverb is the same word after either number, so the embedding is at chance.",
    )  # fmt: skip
    lesson(
        3, "A perfect score can be of something else", found[ROLE],
        "Held-out words alone would call this solved. In the voice that was left out the same probes are below chance: they "
        "read what follows 'that', a verb or a noun, which goes with the one role in the active and with the other in the passive.",
    )  # fmt: skip
    follow(report)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report_html(report), encoding="utf-8")
    print(f"\nAll plots: {arguments.out}")


if __name__ == "__main__":
    main()
