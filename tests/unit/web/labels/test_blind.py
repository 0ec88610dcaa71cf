"""Blind tasks: what a reviewer sees and does not, what is written down, and what the answers come to."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.interpretation.labels import Author, Judgement, Label, Verdict, stamp
from neuronmap.interpretation.labels.blind import BlindTask, draw_tasks, judged_labels, people_score, verdict_of
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.interpretation.labels.people import PEOPLE

BLIND = "/sae/first/-/labels/blind"
ADA = Author(kind="person", name="Ada")
SECRETIVE = Author(kind="person", name="Zebedee the author")
MODEL = Author(kind="model", name="an-unlikely-model-name")


@pytest.fixture
def store() -> Any:
    with open_analysis(SAEModelHub().get("first")) as opened:
        yield opened


def labelled(store: FeatureStore) -> list[Label]:
    """Labels by a person and a model of some alive features, in the book."""
    sae = str(SAEModelHub().get("first").weights_digest)
    made = [
        Label(sae=sae, feature=feature, author=author, at=stamp(), text=f"words like {word} {feature}", method=method)
        for feature in range(store.num_features)
        if store.alive[feature]
        for author, word, method in ((SECRETIVE, "river", "by hand"), (MODEL, "winter", "a-method@1"))
    ][:24]
    with LabelBook.open() as book:
        book.add(made)
    return made


def tasks_of(store: FeatureStore, seed: int = 0) -> list[BlindTask]:
    with LabelBook.open() as book:
        return draw_tasks(book, store, str(SAEModelHub().get("first").weights_digest), seed=seed)


def test_the_questions_are_balanced_the_same_for_all_labels_and_follow_from_the_seed(
    client: TestClient, store: FeatureStore
) -> None:
    labelled(store)
    tasks = tasks_of(store)
    assert tasks
    assert [one.place for one in tasks_of(store)] == [one.place for one in tasks]
    assert [one.place for one in tasks_of(store, 1)] != [one.place for one in tasks]
    assert sum(one.shown.active for one in tasks) * 2 == len(tasks)
    assert len({(*one.place, one.group) for one in tasks}) == len(tasks)
    passages: dict[int, dict[str, set[tuple[int, int]]]] = {}
    shuffled = 0
    for one in tasks:
        if one.group.startswith("shuffled-"):
            shuffled += 1
            assert int(one.group.split("-")[1]) != one.label.feature
        else:
            passages.setdefault(one.label.feature, {}).setdefault(one.label.id, set()).add(one.shown.place)
            record = [
                kept for kept in store.examples(one.label.feature) if (kept.sequence, kept.position) == one.shown.place
            ]
            assert record, "a passage is one of the feature's stored examples"
    for by_label in passages.values():
        assert len(by_label) == 2  # the person's label and the model's
        assert len(set(map(frozenset, by_label.values()))) == 1
    assert shuffled * 3 == len(tasks)
    negatives = {one.group for one in tasks if not one.shown.active and not one.group.startswith("shuffled")}
    assert negatives <= {"random", "hard-token"}


def test_a_question_tells_neither_the_author_nor_the_truth(client: TestClient, store: FeatureStore) -> None:
    labels = labelled(store)
    client.post("/labels/name", data={"name": "Ada", "next": "/"})
    hidden = [SECRETIVE.name, MODEL.name, "a-method@1", "by hand", *(one.id for one in labels)]
    truth_words = ["truth", "quantile", "hard", "random", "shuffled", "group", "active"]
    by_text = {}
    for task in tasks_of(store):
        by_text.setdefault((task.label.text, task.shown.text), set()).add(task.shown.active)
    for _ in range(6):
        data = client.get(f"{BLIND}.json").json()
        html = client.get(BLIND).text
        api = client.get("/api/sae/labels/task?sae=first").json()
        assert api["question"] == data["question"]
        assert set(data["question"]) == {"task", "label", "passage"}
        assert (data["question"]["label"], data["question"]["passage"]) in by_text
        shown = html[html.index('<section id="task"') : html.index("</section>")]
        for word in hidden:
            assert word not in json.dumps(data) + html, word
        for word in truth_words:
            assert word not in json.dumps(data["question"]).replace(data["question"]["passage"], "") + re.sub(
                r"<blockquote.*?</blockquote>", "", shown, flags=re.S
            ), word
        assert not re.search(r'class="t a\d', shown), "no shading"
        client.post(BLIND, data={"task": data["question"]["task"], "said": "yes"})


def test_nobody_is_asked_about_labels_of_their_own(client: TestClient, store: FeatureStore) -> None:
    labelled(store)
    everybody = client.get(f"{BLIND}.json").json()["total"]
    client.post("/labels/name", data={"name": SECRETIVE.name, "next": "/"})
    theirs = [one for one in tasks_of(store) if one.label.author == SECRETIVE]
    assert theirs
    assert client.get(f"{BLIND}.json").json()["total"] == everybody - len(theirs)


def answer(client: TestClient, judge: Any, seed: int = 0, most: int = 10_000) -> int:
    """Answer questions as ``judge`` says, until there are none."""
    count = 0
    while count < most:
        page = client.get(f"{BLIND}.json?seed={seed}").json()
        if page["question"] is None:
            return count
        said = judge(page["question"])
        done = client.post(BLIND, data={"task": page["question"]["task"], "said": said, "seed": seed})
        assert done.status_code == 303, done.text
        count += 1
    return count


def test_answers_become_scores_beside_shuffled_labels_and_agreement(
    client: TestClient, bob: TestClient, store: FeatureStore
) -> None:
    labels = labelled(store)
    client.post("/labels/name", data={"name": "Ada", "next": "/"})
    tasks = tasks_of(store)
    truth = {}
    for one in tasks:
        truth.setdefault((one.label.text, one.shown.text), one.shown.active)

    def right(question: dict[str, str]) -> str:
        return "yes" if truth[question["label"], question["passage"]] else "no"

    assert "0 of" in client.get(BLIND).text
    assert answer(client, right, most=3) == 3
    assert f"3 of {len(tasks)} answered" in client.get(BLIND).text
    assert client.get("/api/sae/labels?sae=first").json()["labels"][0]["scores"] == []
    assert answer(client, right) == len(tasks) - 3
    assert "That was all" in client.get(BLIND).text
    asked = {one.label.id for one in tasks if not one.group.startswith("shuffled")}
    found = client.get("/api/sae/labels/results?sae=first").json()
    assert {one["label"]["id"] for one in found["labels"]} == asked
    assert {one["author_kind"] for one in found["labels"]} == {"person", "model"}
    assert all(one["value"] is None or one["value"] > 0.95 for one in found["labels"])
    assert found["shuffled"]["positives"] > 0
    assert (found["alpha"], found["reviewers"], found["answers"]) == (None, ["Ada"], len(tasks))
    scored = [one for one in labels if one.id in asked]
    label = client.get(f"/api/sae/labels/feature?sae=first&feature={scored[0].feature}").json()["labels"][0]
    (score,) = label["scores"]
    assert (score["protocol"], score["by"]) == ("people@2", PEOPLE.name)
    assert score["figures"]["reviewers"] == ["Ada"]
    assert "shuffled" in score["figures"]["baselines"]
    act = client.get(f"/api/sae/labels/act?id={score['id']}").json()["act"]
    assert len(act["judgements"]) == score["figures"]["positives"] + score["figures"]["negatives"]

    answer(bob, lambda question: "yes")
    found = client.get("/api/sae/labels/results?sae=first").json()
    assert found["reviewers"] == ["Ada", "Bob"]
    assert found["compared"] == len(tasks)
    assert found["alpha"] is not None
    assert found["alpha_low"] <= found["alpha"] <= found["alpha_high"] < 0.6
    html = client.get("/sae/first/-/labels/results").text
    assert "shuffled" in html
    assert SECRETIVE.name in html
    assert MODEL.name in html
    (again,) = client.get(f"/api/sae/labels/feature?sae=first&feature={scored[0].feature}").json()["labels"][0][
        "scores"
    ]
    assert again["figures"]["reviewers"] == ["Ada", "Bob"], "the newer score takes the older one's place"


def test_an_answer_counts_once_and_a_made_up_question_not_at_all(
    client: TestClient, bob: TestClient, store: FeatureStore
) -> None:
    labelled(store)
    client.post("/labels/name", data={"name": "Ada", "next": "/"})
    question = client.get(f"{BLIND}.json").json()["question"]
    body = {"sae": "first", "task": question["task"], "said": None}
    assert client.post("/api/sae/labels/answer", json=body).json()["done"] == 1
    assert client.post("/api/sae/labels/answer", json=body).status_code == 409
    assert client.post(BLIND, data={"task": "0" * 24, "said": "yes"}).status_code == 409
    assert client.post(BLIND, data={"task": question["task"], "said": "maybe"}).status_code == 422
    assert bob.post("/api/sae/labels/answer", json={**body, "said": True}).json()["done"] == 1
    done = client.post(
        BLIND,
        data={"task": client.get(f"{BLIND}.json").json()["question"]["task"], "said": "no"},
        headers={"hx-request": "true"},
    )
    assert done.text.startswith('<section id="task"')
    with LabelBook.open() as book:
        kept = [one.judgement.said for one in book.acts(kinds=("verdict",)) if isinstance(one, Verdict)]
    assert kept == [None, True, False]


def test_figures_of_people_count_a_passage_once_and_shuffled_labels_apart() -> None:
    labels = [
        Label(sae="sha256:" + "a" * 64, feature=at, author=MODEL, at=stamp(), text="x", method="m") for at in (1, 2)
    ]
    verdicts = []

    def judged(
        name: str, position: int, truth: bool, said: bool | None, group: str = "top", label: Label = labels[0]
    ) -> None:
        judgement = Judgement(sequence=0, position=position, group=group, truth=truth, said=said)
        verdicts.append(
            Verdict(sae=label.sae, feature=label.feature, author=Author(kind="person", name=name), at=stamp(), label=label.id,
                    analysis=label.sae, judgement=judgement)
        )  # fmt: skip

    for position in range(4):
        for name in ("Ada", "Bob", "Cleo"):
            judged(name, position, True, name != "Cleo")
            judged(name, 10 + position, False, position == 0 and name != "Cleo", "hard-token")
        judged("Ada", 20 + position, True, False, "shuffled-9-top")
        judged("Ada", 30 + position, False, False, "shuffled-9-random")
    judged("Ada", 0, True, False)  # changed their mind
    judged("Ada", 40, True, None)
    results = judged_labels(verdicts)
    (one,) = results.labels
    assert (one.figures.details["positives"], one.figures.details["negatives"], one.figures.details["unread"]) == (
        4,
        4,
        1,
    )
    # position 0: Ada no (changed), Bob yes, Cleo no: a miss; the others: found. Negatives: one false alarm of four.
    assert one.figures.value == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert one.figures.details["false_positives"]["hard-token"]["share"] == pytest.approx(0.25)
    assert results.shuffled is not None
    assert results.shuffled.value == pytest.approx(0.5)
    score = people_score(one, labels[0].sae, results.shuffled)
    assert (score.value, score.figures["baselines"]["shuffled"]["value"]) == (one.figures.value, results.shuffled.value)
    assert len(score.judgements) == 25


def test_a_passage_that_reviewers_are_split_on_is_half_right() -> None:
    label = Label(sae="sha256:" + "a" * 64, feature=1, author=MODEL, at=stamp(), text="x", method="m")

    def judged(name: str, position: int, truth: bool, said: bool | None) -> Verdict:
        judgement = Judgement(sequence=0, position=position, group="top" if truth else "random", truth=truth, said=said)
        return Verdict(sae=label.sae, feature=1, author=Author(kind="person", name=name), at=stamp(), label=label.id,
                       analysis=label.sae, judgement=judgement)  # fmt: skip

    verdicts = []
    for position in range(
        8
    ):  # four with firing, four silent; on half of each they agree and are right, on half they are split
        truth, together = position < 4, position % 2 == 0
        verdicts += [
            judged("Ada", position, truth, truth),
            judged("Bob", position, truth, truth if together else not truth),
        ]
    verdicts += [judged("Ada", 9, True, None), judged("Bob", 9, True, None)]
    verdicts += [judged("Ada", 10, True, True), judged("Bob", 10, True, None)]
    (one,) = judged_labels(verdicts).labels
    details = one.figures.details
    assert (details["positives"], details["negatives"], details["tied"], details["unread"]) == (5, 4, 4, 1)
    assert one.figures.value == pytest.approx(((3 + 2 * 0.5) / 5 + (2 + 2 * 0.5) / 4) / 2)
    assert one.figures.low is not None
    assert one.figures.low < one.figures.value
    assert details["false_positives"]["random"]["share"] == pytest.approx(0.25)
    assert people_score(one, label.sae).protocol == "people@2"


def test_a_verdict_holds_the_truth_that_was_hidden(client: TestClient, store: FeatureStore) -> None:
    labelled(store)
    for task in tasks_of(store)[:10]:
        made = verdict_of(task, ADA, True, store.key)
        assert made.judgement.truth == task.shown.active
        assert (made.label, made.feature, made.analysis) == (task.label.id, task.label.feature, store.key)
