"""The leaderboard: only what was measured alike stands in one table, ranks by intervals, the front in closed form, nothing made up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from bundles import MODEL, make_bundle

from neuronmap.config import FrozenConfig
from neuronmap.corpora import open_corpus, tokenize
from neuronmap.errors import ConfigError
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.suites import SuiteRecord, evaluate_suites
from neuronmap.evaluation.suites.record import AbsorptionOf, AbsorptionSuite, CoreSuite
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.hub import SAEModelHub
from neuronmap.hub.comparable import TITLES
from neuronmap.hub.leaderboard import leaderboard, pareto_front, parse_range, ranks
from neuronmap.hub.leaderboard_record import Leaderboard, StoredFigure, table_rows
from neuronmap.paths import new_folder, write_json
from neuronmap.progress import SilentProgress
from neuronmap.saes import get_architecture

if TYPE_CHECKING:
    from neuronmap.models import LanguageModel

HOOK = "model.layers.1:out"
SMALL = SuiteSettings(max_tokens=64, max_ce_tokens=32, fit_rows=64, meta_steps=3, bootstrap=50)


@pytest.fixture(scope="module")
def records(tiny_llama: LanguageModel) -> dict[str, SuiteRecord]:
    """A real record of ``core`` and of ``structure``."""
    architecture = get_architecture("topk")
    sae = architecture(32, 48, architecture.Options(k=4))
    sae.initialise(torch.zeros(32), torch.Generator().manual_seed(0))
    texts = [f"Document {number}: the quick brown fox jumps over {number * 7} lazy dogs." for number in range(40)]
    quiet = SilentProgress()
    tokens = tokenize(open_corpus(texts), tiny_llama.tokenizer, context_length=16, part="all", progress=quiet)
    return evaluate_suites(
        sae, ("core", "structure"), model=tiny_llama, tokens=tokens, hook=HOOK, settings=SMALL, progress=quiet
    ).suites


@pytest.fixture
def core(records: dict[str, SuiteRecord]) -> dict[str, Any]:
    """The core metrics of it, as ``metrics.json`` holds them."""
    result = records["core"].result
    assert isinstance(result, CoreSuite)
    return result.sae.to_dict()


Put = Callable[..., None]


@pytest.fixture
def put(hub: SAEModelHub, core: dict[str, Any]) -> Put:
    """Puts an SAE with an evaluation into the library: the record with some of it changed (by dotted name)."""

    def add(name: str, l0: float = 4.0, figure: float | None = None, half: float = 0.0, **changes: Any) -> None:
        record = changed(core, {"sparsity.l0.value": l0, **changes.pop("record", {})})
        if figure is not None:
            ends = {"value": figure, "error": half / 2, "low": figure - half, "high": figure + half}
            record["reconstruction"]["explained_variance"] |= ends
        more = changes.pop("more", {})
        seed = len(hub.list())
        place = {"name": HOOK, "layer": 1, "component": "residual"}
        bundle = {"model": {**MODEL, "name": "tiny-llama"}, "hook": place, **changes}
        make_bundle(hub.root / name, seed=seed, metrics={"summary": {}, "core": record, **more}, **bundle)

    return add


def changed(record: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy with values replaced, by dotted name."""
    found = {**record}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        found[first] = changed(found[first], {rest: value}) if rest else value
    return found


def names(board: Leaderboard) -> list[str]:
    return [row.sae for row in board.rows]


# --- what may stand in one table ----------------------------------------------------------------------------------------


def test_what_was_measured_alike_is_shown_best_first(hub: SAEModelHub, put: Put) -> None:
    put("low", 4, 0.6, 0.01)
    put("high", 8, 0.8, 0.01)
    board = leaderboard(hub)
    assert names(board) == ["high", "low"]
    assert (board.model, board.hook, board.model_digest) == ("tiny-llama", HOOK, MODEL["model_digest"])
    assert not board.left_out
    assert {line.field for line in board.protocol} <= set(TITLES)
    assert [row.l0.value for row in board.rows] == [8, 4]
    assert Leaderboard.from_dict(board.to_dict()) == board


DIFFERENT = {
    "text": {"record": {"protocol.source_digest": "sha256:" + "9" * 64}},
    "held_out": {"more": {"heldout_is_training": True}},
    "source": {"record": {"protocol.source": "stored rows"}},
    "context_length": {"record": {"protocol.context_length": 8}},
    "tokens": {"record": {"protocol.tokens": 7}},
    "behaviour_tokens": {"record": {"protocol.behaviour_tokens": 7}},
    "mask": {"record": {"protocol.mask": {"skip_special": False, "skip_first_positions": 1, "outlier_factor": 10.0}}},
    "outlier_threshold": {"record": {"protocol.outlier_threshold": 1.5}},
    "ablations": {"record": {"behaviour.ce_mean": None}},
    "model_dtype": {"record": {"protocol.model_dtype": "bfloat16"}},
    "rows_dtype": {"record": {"protocol.rows_dtype": "float16"}},
    "neuronmap": {"record": {"protocol.versions": {"neuronmap": "0.0.1"}}},
    "hook": {"record": {"protocol.hook": "model.layers.2:out"}},
    "model": {"model": {**MODEL, "name": "tiny-llama", "model_digest": "sha256:" + "7" * 64}},
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_a_differing_field_is_refused_and_named(hub: SAEModelHub, put: Put, field: str) -> None:
    put("a")
    put("b")
    put("other", **DIFFERENT[field])
    board = leaderboard(hub)
    assert names(board) == ["a", "b"]
    (left,) = board.left_out
    assert left.saes == ("other",)
    assert [line.field for line in left.differences] == [field]
    assert TITLES[field] in left.said
    assert "1 SAE was left out" in left.said
    assert left.differences[0].shown != left.differences[0].theirs
    assert names(leaderboard(hub, group=left.key)) == ["other"]


def test_what_is_not_of_the_protocol_changes_nothing(hub: SAEModelHub, put: Put) -> None:
    put("a")
    put("b", record={"protocol.resamples": 7, "protocol.seed": 3, "protocol.d_sae": 9, "protocol.sae_dtype": "float16"})
    put("c", record={"protocol.outlier_threshold_from": "somewhere else"})
    assert len(leaderboard(hub).rows) == 3


def test_a_model_is_known_by_its_digest_not_by_its_place(hub: SAEModelHub, put: Put) -> None:
    put("here", record={"protocol.model": "/models/ada/tiny-llama"}, model={**MODEL, "name": "/models/ada/tiny-llama"})
    put("pulled", record={"protocol.model": "tiny-llama"})
    board = leaderboard(hub)
    assert names(board) == ["here", "pulled"]
    assert board.model == "tiny-llama"
    put("measured in another", record={"protocol.model": "org/another"})
    assert leaderboard(hub).left_out[0].saes == ("measured in another",)


def test_text_that_an_sae_was_trained_on_is_not_held_out(hub: SAEModelHub, put: Put, core: dict[str, Any]) -> None:
    digest = core["protocol"]["source_digest"]
    put("a", corpus={"name": "/data/ada/speeches", "train": "sha256:" + "3" * 64, "heldout": digest})
    put("b")
    put("trained on it", corpus={"name": "speeches", "train": digest})
    (left,) = leaderboard(hub).left_out
    assert (left.saes, [line.field for line in left.differences]) == (("trained on it",), ["held_out"])
    assert "--text TEXT" in left.commands[0]
    line = next(line for line in leaderboard(hub).protocol if line.field == "text")
    assert line.value.startswith("held-out part of speeches ("), "told by name, without the folder"


def test_the_way_to_make_them_comparable(hub: SAEModelHub, put: Put) -> None:
    put("a")
    put("b")
    put("fewer", record={"protocol.tokens": 7, "protocol.contexts": 2})
    put("half", record={"protocol.model_dtype": "bfloat16"})
    put("masked", record={"protocol.mask": None})
    put("older", record={"protocol.versions": {"neuronmap": "0.0.1"}})
    by_name = {left.saes[0]: left for left in leaderboard(hub).left_out}
    assert by_name["fewer"].commands == ("neuronmap sae evaluate fewer --suite core --tokens 64 --ce-tokens 32",)
    assert by_name["half"].commands[0].endswith("--dtype float32")
    assert by_name["masked"].commands == (), "no option changes a mask, so no command is named"
    assert "no option" in by_name["masked"].remedy
    assert [command.split()[3] for command in by_name["older"].commands] == ["older"]


def test_two_places_of_a_model_are_never_ranked(hub: SAEModelHub, put: Put) -> None:
    for name in ("a", "b"):
        put(name)
    put("deep", record={"protocol.hook": "model.layers.2:out"}, hook={"name": "model.layers.2:out", "layer": 2})
    assert names(leaderboard(hub)) == ["a", "b"]
    assert leaderboard(hub).left_out[0].commands == ()
    assert names(leaderboard(hub, layer=2)) == ["deep"]
    assert names(leaderboard(hub, hook="model.layers.2:out")) == ["deep"]
    assert names(leaderboard(hub, hook="residual")) == ["a", "b"]


# --- conditions and what is missing -------------------------------------------------------------------------------------


def test_conditions(hub: SAEModelHub, put: Put) -> None:
    put("a", 4, tags=("good",))
    put("b", 9)
    make_bundle(hub.root / "bare")
    assert names(leaderboard(hub, l0="8:")) == ["b"]
    assert "1 SAE with an L0 outside 8: was not shown." in leaderboard(hub, l0="8:").notes
    assert names(leaderboard(hub, tag="good")) == ["a"]
    assert names(leaderboard(hub, features="48", architecture="relu")) == ["a", "b"]
    assert names(leaderboard(hub, features="64:")) == []
    assert names(leaderboard(hub, model="other")) == []
    (bare,) = leaderboard(hub).not_measured
    assert (bare.sae, bare.command) == ("bare", "neuronmap sae evaluate bare")
    wrong: list[dict[str, Any]] = [
        {"suite": "all"},
        {"sort": "beauty"},
        {"metrics": ["x"]},
        {"l0": "9:1"},
        {"group": "zz"},
    ]
    for given in wrong:
        with pytest.raises(ConfigError):
            leaderboard(hub, **given)


def test_an_empty_library(hub: SAEModelHub) -> None:
    board = leaderboard(hub)
    assert (board.rows, board.left_out, board.not_measured) == ((), (), ())


def test_a_record_that_cannot_be_read_is_said(hub: SAEModelHub, put: Put) -> None:
    put("a")
    put("b")
    (hub.root / "a" / "metrics.json").write_text('{"core": [')
    new_folder(hub.root / "b" / "evaluations")
    write_json(hub.root / "b" / "evaluations" / "core-000000000000.json", {"format": 99})
    board = leaderboard(hub)
    assert names(board) == ["b"]
    assert any("metrics.json of a" in note or "core-000000000000.json of b" in note for note in board.notes)
    assert str(hub.root) not in str(board.notes)


def test_what_is_not_established_is_null_and_last(hub: SAEModelHub, put: Put) -> None:
    nothing = {"value": None, "error": None, "low": None, "high": None, "count": 0, "reason": "constant"}
    put("none", record={"reconstruction.explained_variance": nothing})
    put("bad", 4, -0.5, 0.1)
    put("no interval", record={"reconstruction.explained_variance": {**nothing, "value": 0.9}})
    board = leaderboard(hub, sort="explained_variance")
    assert names(board) == ["no interval", "bad", "none"]
    assert [row.rank for row in board.rows] == [None, 1, None]
    figure = board.rows[-1].figures["explained_variance"]
    assert (figure.value, figure.reason) == (None, "constant")
    assert not board.rows[-1].on_front
    assert any("2 SAEs were without a rank" in note for note in board.notes)
    _, rows = table_rows(board)
    assert rows[-1]["explained_variance"] is None


def test_a_part_that_was_not_measured_is_null(hub: SAEModelHub, put: Put) -> None:
    gone = {"behaviour": None, "protocol.behaviour_tokens": 0, "protocol.behaviour_contexts": 0}
    put("a", record=gone)
    put("b", record=gone)
    board = leaderboard(hub)
    assert [one.name for one in board.metrics] == ["explained_variance", "fraction_alive"]
    with pytest.raises(ConfigError, match="ce_score_mean"):
        leaderboard(hub, sort="ce_score_mean")


# --- order, ranks, front ------------------------------------------------------------------------------------------------


def at(value: float | None, half: float | None = None) -> StoredFigure:
    if half is None or value is None:
        return StoredFigure(value=value)
    return StoredFigure(value=value, low=value - half, high=value + half)


def test_ranks_are_shared_where_intervals_overlap_that_of_the_best() -> None:
    best_first = [at(0.9, 0.02), at(0.88, 0.02), at(0.85, 0.02), at(0.83, 0.02), at(0.5), at(0.2, 0.01)]
    assert ranks(best_first) == [(1, True), (1, True), (3, True), (3, True), (None, False), (5, False)]
    # 0.88 and 0.85 overlap, but 0.85 does not overlap 0.9: sharing is with the best of a rank, it does not go on from one to the next
    assert ranks([]) == []
    assert ranks([at(None), at(1.0)]) == [(None, False), (None, False)]
    touching = [StoredFigure(value=3.0, low=2.0, high=4.0), StoredFigure(value=1.0, low=0.0, high=2.0)]
    assert ranks(touching) == [(1, True), (1, True)]


def test_the_front_in_closed_form() -> None:
    points: list[tuple[float | None, float | None]] = [
        (1, 0.5), (2, 0.7), (2, 0.6), (3, 0.7), (4, 0.9), (4, 0.9), (5, 0.8), (None, 2.0), (1, None)
    ]  # fmt: skip
    assert pareto_front(points, "higher") == [True, True, False, False, True, True, False, False, False]
    assert pareto_front(points, "lower") == [True, False, False, False, False, False, False, False, False]
    values = [(float(x), float(-(x**2) % 7)) for x in range(12)]
    on = pareto_front(list(values), "higher")
    for number, (x, y) in enumerate(values):
        beaten = any((u <= x and v >= y) and (u, v) != (x, y) for u, v in values)
        assert on[number] == (not beaten)


def test_order_of_metrics_without_a_better_side(hub: SAEModelHub, put: Put) -> None:
    put("a", 9, 0.8, 0.01)
    put("b", 4, 0.6, 0.01)
    board = leaderboard(hub, metrics=["norm_ratio"], sort="l0")
    assert names(board) == ["b", "a"]
    assert [row.rank for row in board.rows] == [None, None]
    assert board.front_metric == ""
    assert names(leaderboard(hub, sort="name")) == ["a", "b"]
    lower = leaderboard(hub, sort="mse")
    assert next(one for one in lower.metrics if one.name == "mse").better == "lower"
    assert any("L0 goes from 4 to 9" in note for note in board.notes)
    assert not any("L0 goes" in note for note in leaderboard(hub, l0=":5").notes)
    unranked = leaderboard(hub, sort="fraction_alive")
    assert any("No interval of fraction_alive" in note for note in unranked.notes)


def test_ranges() -> None:
    assert parse_range("10:40", "l0") == (10, 40)
    assert parse_range(":40", "l0") == (0, 40)
    assert parse_range("10:", "l0") == (10, float("inf"))
    assert parse_range("64", "features") == (64, 64)
    for wrong in ("a", "", "5:1", "1:2:3", "nan:2", "-1:2"):
        with pytest.raises(ConfigError, match="l0 ="):
            parse_range(wrong, "l0")


# --- suites -------------------------------------------------------------------------------------------------------------


def edited(record: FrozenConfig, **changes: Any) -> Any:
    """A copy of a record with other values."""
    return record.model_copy(update=changes)


def keep(hub: SAEModelHub, sae: str, record: SuiteRecord, name: str) -> None:
    write_json(new_folder(hub.root / sae / "evaluations") / f"{record.result.suite}-{name}.json", record.to_dict())


def test_suites_are_grouped_by_their_own_settings(hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord]) -> None:
    structure = records["structure"]
    for name in ("a", "b", "c", "d"):
        put(name)
    keep(hub, "a", structure, "000000000001")
    keep(hub, "b", structure, "000000000001")
    keep(hub, "c", edited(structure, result=edited(structure.result, meta_steps=9)), "000000000002")
    board = leaderboard(hub, suite="structure")
    assert names(board) == ["a", "b"]
    assert [line.field for line in board.left_out[0].differences] == ["meta"]
    assert board.not_measured[0].command == "neuronmap sae evaluate d --suite structure"
    assert board.rows[0].l0.value == structure.protocol.l0
    assert "share_above_09" in board.rows[0].figures
    keep(hub, "c", edited(structure, created="2999-01-01T00:00:00+00:00"), "000000000003")
    assert names(leaderboard(hub, suite="structure")) == ["a", "b", "c"], (
        "an SAE with several records stands where it fits"
    )
    keep(hub, "d", edited(structure, rule=structure.rule + 1), "000000000004")
    fields = [line.field for line in leaderboard(hub, suite="structure").left_out[0].differences]
    assert fields == ["rule"]


@pytest.mark.parametrize(
    ("field", "change"),
    {
        "model_dtype": {"model_dtype": "bfloat16"},
        "mask": {"mask": {"skip_special": False, "skip_first_positions": 1, "outlier_factor": None}},
        "outlier_threshold": {"outlier_threshold": 1.5},
    }.items(),
)
def test_suites_of_another_mask_or_precision_are_refused(
    hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord], field: str, change: dict[str, Any]
) -> None:
    structure = records["structure"]
    for name in ("a", "b", "other"):
        put(name)
    keep(hub, "a", structure, "000000000001")
    keep(hub, "b", structure, "000000000001")
    keep(hub, "other", edited(structure, protocol=edited(structure.protocol, **change)), "000000000002")
    (left,) = leaderboard(hub, suite="structure").left_out
    assert (left.saes, [line.field for line in left.differences]) == (("other",), [field])


def test_core_of_a_suite_stands_beside_core_alone(hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord]) -> None:
    put("a")
    make_bundle(hub.root / "b", seed=5, model={**MODEL, "name": "tiny-llama"}, hook={"name": HOOK, "layer": 1})
    keep(hub, "b", records["core"], "000000000001")
    board = leaderboard(hub)
    assert names(board) == ["a", "b"]
    assert board.rows[1].file == "evaluations/core-000000000001.json"


@pytest.mark.parametrize(("main_f1", "ranked"), [(0.59, False), (0.6, True)])
def test_absorption_where_nothing_stands_for_a_letter_is_no_figure(
    hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord], main_f1: float, ranked: bool
) -> None:
    nothing = Estimate(value=0.0, low=0.0, high=0.02, count=40)
    own = AbsorptionOf(
        mean_absorption_fraction=nothing,
        mean_full_absorption=nothing,
        mean_main_f1=main_f1,
        mean_main_latents=1.0,
        letters=(),
    )
    measured = AbsorptionSuite(
        possible=True,
        reason=None,
        words=300,
        letters_reached=24,
        probe_f1={},
        template="{}",
        dictionaries={"sae": own},
    )
    put("a")
    keep(hub, "a", edited(records["structure"], result=measured), "000000000001")
    (row,) = leaderboard(hub, suite="absorption").rows
    assert (row.figures["fraction"].value is not None) is ranked
    assert row.figures["main_f1"].value == main_f1
    if not ranked:
        assert "nothing stands for the letters: main_f1 is 0.59" in row.figures["fraction"].reason


def test_a_suite_that_was_not_possible_has_no_figures(
    hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord]
) -> None:
    refused = AbsorptionSuite(
        possible=False,
        reason="it cannot spell",
        words=30,
        letters_reached=0,
        probe_f1={},
        template="{}",
        dictionaries={},
    )
    put("a")
    keep(hub, "a", edited(records["structure"], result=refused), "000000000001")
    (row,) = leaderboard(hub, suite="absorption").rows
    assert row.figures["fraction"].value is None
    assert row.figures["fraction"].reason == "it cannot spell"
    assert row.rank is None


def test_no_torch() -> None:
    program = (
        "import sys, neuronmap.hub.leaderboard as l; from neuronmap.hub import SAEModelHub; l.leaderboard(SAEModelHub(sys.argv[1])); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, "/nowhere"], check=True, timeout=60)


# --- several evaluations of one SAE -------------------------------------------------------------------------------------


def test_other_evaluations_of_an_sae_are_named_and_can_be_chosen(
    hub: SAEModelHub, put: Put, records: dict[str, SuiteRecord]
) -> None:
    put("a", 4, 0.6, 0.01)
    put("b", 4, 0.7, 0.01)
    core = records["core"].to_dict()
    once = {"protocol.mask": None, "result.sae.protocol.mask": None}
    for name, created, values in (
        ("core-1", "2026-01-01T00:00:00+00:00", {}),
        ("core-2", "2026-01-02T00:00:00+00:00", {}),
        ("core-3", "2026-01-03T00:00:00+00:00", {**once, "result.sae.sparsity.l0.value": 90.0}),
    ):
        folder = hub.root / "a" / "evaluations"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{name}.json", changed(core, {"created": created, **values}))
    board = leaderboard(hub)
    by_name = {row.sae: row for row in board.rows}
    assert by_name["b"].others == ()
    row = by_name["a"]
    assert len(row.others) == 3
    assert row.file not in {one.file for one in row.others}
    newest = row.others[0]
    assert (newest.file, newest.created) == ("evaluations/core-3.json", "2026-01-03T00:00:00+00:00")
    assert "mask: not stated" in newest.said
    shown = [group for group in board.groups if group.shown]
    assert [(group.key, group.said) for group in shown] == [(board.key, "")]
    assert sum(group.saes for group in board.groups) >= 3

    other = leaderboard(hub, group=newest.key)
    assert [(one.sae, one.file, len(one.others)) for one in other.rows] == [("a", "evaluations/core-3.json", 3)]
    assert row.file == "evaluations/core-2.json"
    assert [one.file for one in row.others if "before the one" in one.said] == [
        "evaluations/core-1.json",
        "metrics.json",
    ]
    assert any("not counted" in note for note in leaderboard(hub, l0="0:50").notes)
    columns, lines = table_rows(board)
    assert columns[-1] == "other_evaluations"
    assert [line["other_evaluations"] for line in lines] == [len(row.others) for row in board.rows]
