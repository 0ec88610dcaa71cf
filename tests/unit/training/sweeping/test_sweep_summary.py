"""The table and the plot of a sweep, and what is read while another process writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from neuronmap.training import SAEConfig, SweepRun
from neuronmap.training.history import last_line
from neuronmap.training.sweeping.drawing import Point, pareto_svg
from neuronmap.training.sweeping.summary import draw_sweep, sweep_rows


def made(folder: Path, figures: dict[str, tuple[int, float, float]]) -> SweepRun:
    """A sweep whose members are finished, with these layers, L0 and explained variance."""
    configs = [SAEConfig(name=name, layer=layer, architecture="topk", k=4) for name, (layer, _, _) in figures.items()]
    sweep = SweepRun.create(configs, None, folder)
    for member, (_, l0, explained) in zip(sweep.members(), figures.values(), strict=True):
        member.run.folder.mkdir()
        member.run._write({"status": "finished", "step": 9, "steps": 9, "plan": {"d_sae": 256, "peak_rate": 0.001}})
        sweep.set_member(member.number, metrics={"l0": l0, "explained_variance": explained})
    return sweep


def test_the_front_is_what_no_other_of_the_hook_beats(tmp_path):
    sweep = made(
        tmp_path,
        {"a": (1, 4, 0.7), "b": (1, 5, 0.7), "c": (1, 5, 0.8), "d": (1, 4, 0.6), "e": (2, 9, 0.1), "f": (1, 4, 0.7)},
    )
    rows = sweep_rows(sweep.members())
    assert [row.name for row in rows if row.front] == [
        "a",
        "c",
        "e",
        "f",
    ]  # equal ones share it; another hook has its own
    assert (rows[0].features, rows[0].learning_rate, rows[0].hook) == (256, 0.001, "residual of layer 1")


def test_the_plot_has_a_panel_for_each_hook_and_a_mark_for_each_sae(tmp_path):
    sweep = made(tmp_path, {"a<b>": (1, 4, 0.7), "c": (2, 5, 0.8)})
    file = draw_sweep(sweep)
    assert file is not None
    drawn = ET.parse(file).getroot()
    space = "{http://www.w3.org/2000/svg}"
    titles = [one.text for one in drawn.iter(f"{space}title")]
    assert titles == ["a<b>: L0 4.0, explained variance 0.7000", "c: L0 5.0, explained variance 0.8000"]
    words = [one.text for one in drawn.iter(f"{space}text")]
    assert {"residual of layer 1", "residual of layer 2", "topk, 256 features"} <= set(words)


def test_points_stand_where_their_figures_are():
    """More L0 is further right, more explained variance is higher; a line joins those of one series in order of L0."""
    points = [Point("s", 8, 0.9, "high", True), Point("s", 2, 0.5, "low", False), Point("s", 4, 0.8, "middle", True)]
    drawn = ET.fromstring(pareto_svg({"hook": points}))
    space = "{http://www.w3.org/2000/svg}"
    place = {
        str(one[0].text).split(":")[0]: (float(one.attrib["cx"]), float(one.attrib["cy"]), one.attrib["fill"])
        for one in drawn.iter(f"{space}circle")
    }
    assert place["low"][0] < place["middle"][0] < place["high"][0]
    assert place["low"][1] > place["middle"][1] > place["high"][1]
    assert place["low"][2] == "none" != place["high"][2]
    corners = next(drawn.iter(f"{space}polyline")).attrib["points"].split()
    assert corners == [f"{place[name][0]},{place[name][1]}" for name in ("low", "middle", "high")]


def test_a_sweep_without_a_finished_member_draws_nothing(tmp_path):
    sweep = SweepRun.create([SAEConfig(name="a")], None, tmp_path / "sweep")
    assert draw_sweep(sweep) is None
    assert [(one.status, one.step, one.figures) for one in sweep.members()] == [("waiting", 0, {})]


def test_the_newest_whole_line_is_read_from_the_end(tmp_path):
    file = tmp_path / "history.jsonl"
    assert last_line(file) == {}
    file.write_text("".join(f'{{"step": {step}, "loss": 0.5}}\n' for step in range(2000)) + '{"step": 2000, "lo')
    assert last_line(file) == {"step": 1999, "loss": 0.5}
    file.write_text('{"st')
    assert last_line(file) == {}
