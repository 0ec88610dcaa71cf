"""Plots as data: complete, valid for Plotly, with gaps where nothing is established, and with their numbers and notes beside them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from subprocess import run
from typing import Any

import plotly.graph_objects as go
import pytest
from report_by_hand import LAYERS, bare_concept, between, concept, flow, full_report, similarity, summary, trajectory

from neuronmap.abstraction.plots import (
    PlotData,
    compare_plot,
    complexity_plot,
    concept_plots,
    flow_plot,
    plot_named,
    report_plots,
    similarity_plots,
    trajectory_plots,
)
from neuronmap.abstraction.record import Baselines, Interval, LayerSimilarity, TrackingReport
from neuronmap.errors import InputError

REPORT = full_report()
PLOTS = report_plots(REPORT)
MATRICES = ("cka", "cka_standardized", "cka_error", "mutual_knn", "procrustes", "predictivity")


def traces(plot: PlotData) -> dict[str, dict[str, Any]]:
    return {trace.get("name", str(at)): trace for at, trace in enumerate(plot.figure["data"])}


def column(plot: PlotData, name: str) -> list[Any]:
    return [row[plot.columns.index(name)] for row in plot.rows]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_plot_is_a_valid_figure_with_a_table_and_notes(plot: PlotData) -> None:
    figure = plot.to_figure()
    assert isinstance(figure, go.Figure)  # Plotly refuses what it does not know
    assert figure.layout.title.text == plot.title
    assert "title" not in plot.figure["layout"]
    assert plot.rows
    assert all(len(row) == len(plot.columns) for row in plot.rows)
    json.dumps(plot.to_dict(), allow_nan=False)
    assert {trace["type"] for trace in plot.figure["data"]} <= {"scatter", "heatmap", "sankey"}  # nothing on WebGL
    assert plot.about.endswith(".")


@pytest.mark.parametrize("plot", [plot for plot in PLOTS if "lens" not in plot.name], ids=lambda plot: plot.name)
def test_every_measured_plot_says_on_how_much_it_rests_and_its_seed(plot: PlotData) -> None:
    assert "seed 3" in plot.about
    assert any(count in plot.about for count in ("96 items", "384 items", "256 tokens", "16,384 tokens"))


@pytest.mark.parametrize("plot", concept_plots(REPORT, "family:one"), ids=lambda plot: plot.name)
def test_plots_of_a_concept_name_clusters_data_and_model(plot: PlotData) -> None:
    assert "12 train, 4 calibration, 8 test" in plot.about
    assert "data abababababab" in plot.about
    assert "model tiny" in plot.about


def test_names_are_unique_and_in_reading_order() -> None:
    names = [plot.name for plot in PLOTS]
    assert len(set(names)) == len(names)
    kinds = [name.partition("-")[0] for name in names]
    assert kinds[:7] == ["curve", "levels", "transfer", "rotation", "bits", "control", "causal"]
    assert list(dict.fromkeys(kinds))[-5:] == ["complexity", "layers", "between", "prompt", "flow"]


def test_plots_are_made_without_torch_and_without_plotly() -> None:
    code = "import sys, neuronmap.abstraction.plots; print({'torch', 'plotly'} & set(sys.modules))"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_csv_has_empty_cells_for_what_is_not_established() -> None:
    plot = plot_named(PLOTS, "bits-family:one")
    read = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [row["within_bits"] for row in read] == ["0.0", "-0.1", "", "0.9"]
    assert [row["layer"] for row in read] == ["0", "2", "4", "6"]
    assert float(read[1]["depth"]) == pytest.approx(2 / 6, abs=1e-6)


def test_a_plot_is_found_by_its_name_and_a_curve_by_its_concept() -> None:
    assert plot_named(PLOTS).name == "curve-family:one"
    assert plot_named(PLOTS, "family:one").name == "curve-family:one"
    assert plot_named(PLOTS, "layers-cka").name == "layers-cka"
    with pytest.raises(InputError, match=r"no plot 'curve'.*curve-family:one"):
        plot_named(PLOTS, "curve")


def test_records_draw_themselves() -> None:
    assert REPORT.plot("complexity").layout.title.text == "Complexity for tiny"
    assert REPORT.plot().layout.title.text == "Title of family:one: by layer in tiny"
    assert trajectory().plot("none").layout.title.text.startswith("Title of two")
    assert trajectory().plot("lens").layout.title.text.startswith("Logit lens")
    with pytest.raises(InputError, match="no plot 'three'"):
        trajectory().plot("three")


# --- concepts --------------------------------------------------------------------------------------------------------


def test_the_curve_has_both_scores_bands_null_and_baselines() -> None:
    plot = plot_named(PLOTS, "curve-family:one")
    found = traces(plot)
    assert found["within conditions"]["y"] == [0.5, 0.8, None, 0.97]
    assert found["across conditions"]["y"] == [0.5, 0.7, 0.9, 0.95]
    assert found["mean of embeddings"]["y"] == [0.6] * 4
    assert "position and length" not in found  # it was not measured
    assert {"small MLP", "random weights, across", "random weights, within", "difference of means"} <= set(found)
    null = found["null: 95 % of relabelings stay below at all layers"]
    assert (min(null["y"]), max(null["y"])) == (0.5, 0.65)
    assert column(plot, "cross") == [0.5, 0.7, 0.9, 0.95]
    assert column(plot, "within_band_low") == [0.4, 0.7, None, 0.87]
    assert column(plot, "position_length") == [None] * 4


def test_a_band_ends_where_its_curve_has_a_gap() -> None:
    plot = plot_named(PLOTS, "curve-family:one")
    pieces = [trace for trace in plot.figure["data"] if trace["name"] == "within: 95 % interval"]
    assert [sorted(set(piece["x"])) for piece in pieces] == [[0, 2], [6]]
    assert [piece["showlegend"] for piece in pieces] == [True, False]
    assert not any(value is None for piece in pieces for value in piece["y"])


def test_the_summary_is_marked_with_its_intervals() -> None:
    plot = plot_named(PLOTS, "curve-family:one")
    marked = {trace["name"]: trace for trace in plot.figure["data"] if trace.get("yaxis") == "y2"}
    assert marked["half depth"]["x"] == [1.5]
    assert marked["half depth"]["error_x"]["array"] == [1.0]
    assert marked["half depth"]["error_x"]["arrayminus"] == [0.5]
    assert marked["emergence"]["x"] == [2.0]
    assert marked["emergence"]["text"] == ["emergence: 2 (2 to 4)"]
    assert marked["peak set"]["x"] == [4.0, 6.0]


@pytest.mark.parametrize(
    ("name", "reason"), [("surface", "present at the embedding"), ("none", "not detected")], ids=["surface", "nothing"]
)
def test_what_is_not_established_is_said_in_words_and_drawn_nowhere(name: str, reason: str) -> None:
    plot = plot_named(PLOTS, f"curve-{name}")
    marked = {trace["name"]: trace for trace in plot.figure["data"] if trace.get("yaxis") == "y2"}
    assert marked["half depth"]["mode"] == "text"
    assert marked["half depth"]["text"] == [f"not established: {reason}"]
    assert marked["emergence"]["mode"] == "text"


def test_a_concept_without_anything_has_no_made_up_numbers() -> None:
    plots = concept_plots(REPORT, "none")
    assert [plot.name.partition("-")[0] for plot in plots] == ["curve", "transfer", "rotation", "bits"]
    for plot in plots:
        named = ("layer", "depth", "trained_at", "applied_at")
        for row in plot.rows:
            assert all(row[at] is None for at, head in enumerate(plot.columns) if head not in named), plot.name
        drawn = [trace for trace in plot.figure["data"] if trace.get("yaxis") != "y2"]
        assert all(value is None for trace in drawn for value in trace.get("y", []) if trace["type"] == "scatter")


def test_levels_show_what_was_left_out_and_trained_alone() -> None:
    found = traces(plot_named(PLOTS, "levels-family:one"))
    assert found["a: left out"]["y"] == [0.5, 0.6, 0.9, 0.95]
    assert found["b: trained on it alone"]["y"] == [None, 0.9, 1.0, 1.0]
    assert found["a: left out"]["line"]["dash"] == "solid"
    assert found["a: left out"]["marker"]["symbol"] != found["b: left out"]["marker"]["symbol"]  # not by colour alone


def test_transfer_is_centred_at_chance_and_keeps_its_gaps() -> None:
    plot = plot_named(PLOTS, "transfer-family:one")
    (heat,) = plot.figure["data"]
    assert (heat["zmin"] + heat["zmax"]) / 2 == 0.5
    assert heat["z"][0][2] is None
    assert plot.rows[2] == [0, 4, None]
    assert plot.rows[4 * 3] == [6, 0, 0.1]


def test_the_causal_profile_has_the_band_of_random_directions() -> None:
    plot = plot_named(PLOTS, "causal-family:one")
    found = traces(plot)
    swapped = found["swapped with the pair's other member"]
    assert swapped["y"] == [-0.1, -3.5]
    assert swapped["error_y"]["array"] == pytest.approx([0.3, 0.5])
    assert found["random swaps: 95 %"]["y"] == [0.2, -0.2]  # only where it is known
    assert found["erased"]["y"] == [None, -1.0]
    assert plot.rows[0] == [0, -0.1, -0.3, 0.2, 0.2, None, None, None, 0.2]
    assert "-4.00 turns it round" in plot.about


def test_an_unknown_concept_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"no concept 'two'\. Concepts: family:one, none"):
        concept_plots(REPORT, "two")


# --- complexity ------------------------------------------------------------------------------------------------------


def test_complexity_is_in_order_with_intervals_and_ties() -> None:
    plot = complexity_plot(REPORT)
    found = traces(plot)
    assert found["half depth"]["x"] == [1.5, 2.0]
    assert found["half depth"]["y"] == [3.0, 2.0]  # the simplest on top
    assert found["half depth"]["error_x"]["arrayminus"] == pytest.approx([0.5, 0.8])
    assert found["not established"]["text"] == [
        "not established: not detected",
        "not established: present at the embedding",
    ]
    assert len(plot.figure["layout"]["shapes"]) == 1  # one group of two that cannot be told apart
    assert column(plot, "rank") == [1, 2, None, None]
    assert column(plot, "not_established") == [None, None, "not detected", "present at the embedding"]


def test_no_order_is_drawn_where_there_is_none() -> None:
    plot = complexity_plot(full_report(concepts=[bare_concept("none")]))
    assert traces(plot)["half depth"]["x"] == []
    assert plot.to_figure()


# --- layers ----------------------------------------------------------------------------------------------------------


def test_cka_can_be_switched_and_has_its_blocks_drawn() -> None:
    plot = plot_named(PLOTS, "layers-cka")
    kinds = {trace["name"]: trace.get("visible") for trace in plot.figure["data"] if trace["type"] == "heatmap"}
    assert kinds == {"standardised": True, "raw": False}
    (menu,) = plot.figure["layout"]["updatemenus"]
    assert [button["args"][1] for button in menu["buttons"]] == [[True, False, True, True], [False, True, True, True]]
    outlines = [trace for trace in plot.figure["data"] if trace["name"] == "block"]
    assert [(min(one["x"]), max(one["x"])) for one in outlines] == [(-1, 3), (3, 7)]  # half way between layers
    assert "layer 4 (in 62 % of the resamples)" in plot.about
    assert plot.rows[2] == [0, 4, None, None, None]


def test_two_models_are_compared_without_blocks_and_with_their_own_axes() -> None:
    plots = similarity_plots(between(), model="tiny")
    assert [plot.name for plot in plots] == [
        "between-cka",
        "between-mutual-knn",
        "between-procrustes",
        "between-predictivity",
    ]
    assert plots[0].title == "Layers of tiny and other: similarity (CKA)"
    layout = plots[0].figure["layout"]
    assert layout["xaxis"]["title"]["text"] == "Layer of other"
    assert layout["yaxis"]["title"]["text"] == "Layer of tiny"
    assert [trace["name"] for trace in plots[0].figure["data"]] == ["standardised", "raw"]
    assert "block" not in plots[0].about
    assert len(plots[0].rows) == 8
    assert plots[0].rows[3] == [2, 1, None, None, None]


def test_one_layer_can_be_drawn() -> None:
    one = LayerSimilarity(
        **{
            **similarity().to_dict(), "layers": [0], "other_layers": [0], "blocks": [0], "block_support": [1.0],
            **{name: [[1.0]] for name in MATRICES}, "concept_overlap": [[1.0]],
            **{name: [1.0] for name in ("participation_ratio", "mean_norm", "isotropy", "first_position_norm")},
            "intrinsic_dimension": [Interval(value=None)],
        }
    )  # fmt: skip
    assert all(plot.to_figure() for plot in similarity_plots(one))


def test_figures_of_layers_keep_intervals_and_gaps() -> None:
    plot = plot_named(PLOTS, "layers-dimension")
    assert column(plot, "intrinsic_dimension") == [8.0, None, 9.0, 7.0]
    (dimension, _) = plot.figure["data"]
    assert dimension["error_y"]["array"] == [1.0, None, None, None]


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_a_prompt_is_centred_at_zero_and_grey_where_it_says_nothing() -> None:
    plot = plot_named(PLOTS, "prompt-0-family:one")
    told, grey, *_ = plot.figure["data"]
    assert told["zmin"] == -told["zmax"] == -2.5  # not the 9.0 of position 0
    assert [row[0] for row in told["z"]] == [None] * 4
    assert told["z"][2][1] == 2.5
    assert [row[1] for row in grey["text"]] == ["n", "", "", "d"]
    assert grey["customdata"][0][0] == "The: position 0"
    assert [row[1] is None for row in grey["z"]] == [False, True, True, False]
    assert told["customdata"][2][1] == pytest.approx(0.924, abs=1e-3)
    assert plot.rows[0] == [0, "The", 0, 9.0, "position 0"]  # the numbers are all there, with the reason


def test_the_peak_is_marked_with_its_layers_and_left_out_where_there_is_none() -> None:
    plot = plot_named(PLOTS, "prompt-0-family:one")
    peak = plot.figure["data"][-1]
    assert (peak["x"], peak["y"]) == ([1], [4])
    assert peak["error_y"]["arrayminus"] == [2]
    assert "layer 4 (layers 2 to 4 cannot be told from it)" in plot.about
    assert len(plot_named(PLOTS, "prompt-0-none").figure["data"]) == 2
    assert "no peak" in plot_named(PLOTS, "prompt-0-none").about


def test_tokens_are_shown_as_text_and_never_as_markup() -> None:
    plot = plot_named(PLOTS, "prompt-0-family:one")
    assert plot.figure["layout"]["xaxis"]["ticktext"] == ["The", "␣keys", "␣&lt;b&gt;⏎"]


def test_the_lens_shows_words_by_probability() -> None:
    plot = plot_named(PLOTS, "prompt-0-lens")
    (heat,) = plot.figure["data"]
    assert heat["text"][0] == ["a", "␣is&lt;", "averyveryl…"]
    assert heat["z"][3] == [None, None, None]
    assert plot.rows[4] == [1, " keys", 0, " is<", " was", "", 0.1]
    no_lens = trajectory().updated(lens=None, lens_probability=None)
    assert [plot.name for plot in trajectory_plots(no_lens, number=2)] == ["prompt-2-family:one", "prompt-2-none"]


def test_a_long_prompt_gets_the_width_it_needs() -> None:
    tokens = [f" w{at}" for at in range(60)]
    one = trajectory().concepts[0].updated(log_odds=[[0.0] * 4] * 60, grey=[[""] * 4] * 60)
    long = trajectory().updated(tokens=tokens, concepts=[one], lens=None, lens_probability=None)
    (plot,) = trajectory_plots(long)
    assert plot.figure["layout"]["width"] > 60 * 30
    assert "width" not in plot_named(PLOTS, "prompt-0-family:one").figure["layout"]


# --- flow and comparison ---------------------------------------------------------------------------------------------


def test_the_flow_has_columns_widths_kinds_and_where_a_click_goes() -> None:
    plot = flow_plot(flow(), seed=3)
    sankey, *keys = plot.figure["data"]
    assert sankey["node"]["x"] == [0.001, 0.999, 0.999]
    assert sankey["node"]["customdata"][1]["sae"] == "late"
    assert sankey["node"]["customdata"][1]["feature"] == 1
    assert sankey["node"]["label"][0] == "7 commas &amp; &lt;such&gt;"
    assert "carries one: AUC 0.93" in sankey["node"]["customdata"][0]["text"]
    assert len(sankey["node"]["label"][2]) < 35
    assert sankey["link"]["value"] == [120, 30]
    assert sankey["link"]["label"] == ["split", "split"]
    assert [key["name"] for key in keys] == ["pass-through", "drift", "split", "merge"]
    assert "without the source the target changes by -0.40" in sankey["link"]["customdata"][0]
    assert "without" not in sankey["link"]["customdata"][1]
    assert column(plot, "ablation") == [-0.4, None]
    assert "80 % of the edges are in both halves" in plot.about


def test_a_feature_without_label_is_named_by_what_it_carries() -> None:
    first = flow().nodes[0].updated(label=None, concepts={"number:subject = plural": 0.8, "tense = past": 0.9})
    plot = flow_plot(flow().updated(nodes=[first, *flow().nodes[1:]]))
    assert plot.figure["data"][0]["node"]["label"][:2] == ["7 [tense = past +1]", "1"]


def test_a_flow_without_edges_can_be_drawn() -> None:
    plot = flow_plot(flow().updated(nodes=[], edges=[], reproduced=None))
    assert plot.to_figure()
    assert plot.rows == []


def test_one_concept_in_two_models_by_relative_depth() -> None:
    half = concept("family:one").updated(dataset_digest="sha256:cd")
    other = full_report(model={"name": "/models/big"}, blocks=12, concepts=[half], name="second")
    plot = compare_plot([REPORT, other], "family:one")
    lines = [trace for trace in plot.figure["data"] if trace.get("mode") == "lines+markers"]
    assert [line["name"] for line in lines] == ["tiny (across conditions)", "big, second (across conditions)"]
    assert lines[0]["x"][-1] == 1.0
    assert lines[1]["x"][-1] == 0.5
    assert "Not all on the same items" in plot.about
    assert len(plot.rows) == 2 * len(LAYERS)
    assert plot.to_figure()


def test_two_reports_of_one_model_are_told_apart() -> None:
    plot = compare_plot([REPORT, full_report(name="again")], "none")
    names = {str(name) for name in column(plot, "report")}
    assert names == {"tiny, kept", "tiny, again"}
    assert "half depth not established" in plot.about


@pytest.mark.parametrize("reports", [[], [full_report(concepts=[])]], ids=["none", "without it"])
def test_a_comparison_needs_reports_with_the_concept(reports: list[TrackingReport]) -> None:
    with pytest.raises(InputError, match=r"No report was given|no concept 'family:one'"):
        compare_plot(reports, "family:one")


def test_a_report_with_nothing_has_no_plots() -> None:
    empty = full_report(concepts=[], similarity=None, between=None, trajectories=[], flow=None)
    assert report_plots(empty) == []
    with pytest.raises(InputError, match="Plots: none"):
        empty.plot()


def test_baselines_and_intervals_that_are_missing_leave_no_trace() -> None:
    result = concept(
        "family:one",
        baselines=Baselines(mean_of_embeddings=None, position_length=0.5),
        summary=summary(half_depth=Interval(value=1.0), emergence_interval=None),
    )
    (plot, *_) = concept_plots(full_report(concepts=[result]), "family:one")
    found = traces(plot)
    assert "random weights, across" not in found
    assert "position and length" in found
    assert "error_x" not in found["half depth"]
    assert found["emergence"]["x"] == [2.0]
    assert all(value == value for value in numbers(plot.figure))
