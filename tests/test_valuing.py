"""What each source adds. Catches: a flipped channel that is not named, or an honest one that is; values that hang on
another side than test rows; feedback that counts as its channel's examples; values that are computed twice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advised import verdicts
from conftest import LABELS
from headrace import valuing
from headrace.advising import advise_domain, advise_technical
from headrace.cli.value import value as value_verb
from headrace.data import channels, snapshot
from headrace.data.importing import import_rows
from headrace.errors import BadInput, WrongState
from headrace.feedback import labels as feedback_labels
from headrace.stats.ridge_probe import Points
from headrace.stats.valuation import Rows
from headrace.store import channels as channel_rows
from headrace.valuing import curves, frozen, sources
from headrace.valuing.sources import Material, Source
from headrace.workspace import Workspace, init
from planted import plant_answer, plant_correction, plant_version
from vectored import make_up_vectors, plant_rows, rows_of


def plant_feedback(ws: Workspace, channel: str, n: int) -> None:
    """Corrections of texts that name their label, all of them to another one."""
    version = plant_version(ws)
    with ws.store.read() as conn:
        found = next(one for one in channel_rows.listing(conn) if one.name == channel)
    for i in range(n):
        text = f"{LABELS[i % 3]} asked {i * 7919}"
        prediction, _ = plant_answer(ws, found, version, LABELS[i % 3], text=text)
        plant_correction(ws, prediction, LABELS[(i + 1) % 3], labeller=f"user {i}")
    feedback_labels.to_labels(ws, version.task)


@pytest.fixture
def ws(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    make_up_vectors(monkeypatch)
    return workspace


def test_a_flipped_channel_is_ranked_last_and_named(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 200, "b": 200, "c": 200, "bad": 200}, flipped={"bad": 1.0})
    found = valuing.value(ws)
    assert json.loads(json.dumps(found)) == found
    assert [one["rank"] for one in found["sources"]] == [1, 2, 3, 4]
    assert found["sources"][-1]["source"] == "bad"
    assert found["harmful"] == ["bad"]
    bad = found["sources"][-1]
    assert (bad["verdict"], bad["whom"]) == ("harms", "others")
    assert bad["for"]["others"]["points"]["high"] < 0
    assert bad["for"]["itself"]["points"]["low"] > 0  # it teaches its own, wrong, labels
    assert bad["agreement"]["high"] < 0.5 < found["sources"][0]["agreement"]["low"]
    n_test = sum(one["for"]["itself"]["n"] for one in found["sources"])
    assert n_test == found["n_test_rows"]


def test_honest_channels_are_not_named_and_values_are_kept(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rows(ws, tmp_path, {"a": 150, "b": 150, "c": 30})
    found = valuing.value(ws)
    assert found["harmful"] == []
    assert all(one["for"]["others"]["points"]["high"] >= 0 for one in found["sources"])
    monkeypatch.setattr(frozen, "by_source", None)  # would be called again
    assert valuing.value(ws) == found


def test_feedback_is_a_source_of_its_own(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 200, "b": 200})
    plant_feedback(ws, "b", 120)
    found = valuing.value(ws)
    assert {one["source"]: one["kind"] for one in found["sources"]} == {
        "a": "examples", "b": "examples", "b (feedback)": "feedback",
    }  # fmt: skip
    assert found["harmful"] == ["b (feedback)"]
    bad = found["sources"][-1]
    assert bad["source"] == "b (feedback)"
    assert bad["n_counted"] < bad["n_rows"]  # what is held back is valued too
    n_test = sum(row.side == "test" for row in snapshot.rows(ws, snapshot.freeze(ws)))
    assert found["n_test_rows"] == n_test
    assert all(row.origin == "import" for row in sources.sides_of(ws, "tone").test)


def test_one_source_alone_has_nothing_to_be_left_out_of(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 120})
    (one,) = valuing.value(ws)["sources"]
    assert one["verdict"] == "not known"
    assert one["for"] == {"itself": None, "others": None, "all": None}


def test_tasks_on_tokens_are_inconclusive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with init(tmp_path / "ws", task="who", task_type="token-classification", labels=("PER",)) as ws:
        channels.add(ws, "a")
        rows = [
            {"id": str(i), "text": f"Ada met {name}", "label": [[0, 3, "PER"]]}
            for i, name in enumerate(f"somebody {i * 7919}" for i in range(40))
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_rows(ws, "a", path)
        found = valuing.value(ws)
        assert "places in a text" in found["inconclusive"]
        assert found["sources"] == found["curves"] == []
        assert verdicts(advise_technical(ws, tries_methods=False)["sentences"], "more-labels") == ["not known"]
        assert verdicts(advise_domain(ws)["sentences"], "imbalance") == ["fine"]
    value_verb(where=tmp_path / "ws")
    assert "headrace value --retrain" in capsys.readouterr().out


@pytest.mark.parametrize("task_type", ["text-regression", "multi-label"])
def test_numbers_and_sets_of_labels_are_valued_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_type: str
) -> None:
    make_up_vectors(monkeypatch)
    labels = () if task_type == "text-regression" else LABELS
    with init(tmp_path / "ws", task="t", task_type=task_type, labels=labels) as ws:
        rng = np.random.default_rng(0)
        for channel in ("a", "b", "bad"):
            channels.add(ws, channel)
            rows = []
            for i in range(150):
                k = int(rng.integers(3))
                said = 2 - k if channel == "bad" else k
                label: Any = said + rng.random() / 2 if not labels else [LABELS[said]]
                text = f"{LABELS[k]} in {channel} {i * 7919}"
                rows.append({"id": str(i), "text": text, "label": label})
            path = tmp_path / f"{channel}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            import_rows(ws, channel, path)
        found = valuing.value(ws)
    assert found["sources"][-1]["source"] == "bad"
    assert found["harmful"] == ["bad"]


def test_the_verb_shows_sources_and_curves(ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant_rows(ws, tmp_path, {"a": 200, "bad": 200, "few": 12}, flipped={"bad": 1.0})
    value_verb(where=ws.root)
    said = capsys.readouterr().out
    for words in ("bad harms", "harms others", "for others", "points by 100 more labels", "a curve needs"):
        assert words in said, words


def test_a_wider_curve_holds_what_no_mistake_hides() -> None:
    wrong = np.zeros((5, 40))
    found = curves.described("a", 80, Points(np.array([5.0, 10, 20, 40, 80]), wrong))
    error = found["forecast"][0]["error"]
    assert error["low"] < 0.005
    assert 0.01 < error["high"] < 0.1  # none wrong of 40 is not none ever


def test_bad_starts_are_refused_at_once(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 60})
    with pytest.raises(BadInput, match="start from"):
        valuing.value(ws, retrain=True, start="nowhere")
    with pytest.raises(WrongState, match="in charge"):
        valuing.value(ws, retrain=True)


def test_one_of_many_that_harms_nobody_contradicts(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_up_vectors(monkeypatch, spread=0.4)  # so easy that the others make up for it
    honest = {f"c{i}": 90 for i in range(7)}
    plant_rows(ws, tmp_path, {**honest, "bad": 90}, flipped={"bad": 1.0})
    found = valuing.value(ws)
    bad = found["sources"][-1]
    assert (bad["source"], bad["verdict"]) == ("bad", "contradicts")
    assert bad["kappa"]["high"] < 0 < min(one["kappa"]["low"] for one in found["sources"][:-1])
    assert found["harmful"] == ["bad"]


def test_of_many_rows_a_part_of_each_source_is_used() -> None:
    chosen = sources._spread_by_source([*rows_of("large", 4000), *rows_of("small", 250), *rows_of("tiny", 9)], 1000)
    counts = Counter(row.channel for row in chosen)
    assert counts["large"] == round(1000 * 4000 / 4259)
    assert counts["small"] == 200  # more than its share
    assert counts["tiny"] == 9
    assert len({(row.channel, row.key) for row in chosen}) == len(chosen)


def test_many_classes_leave_fewer_rows_but_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_MOST_CELLS", 300)
    owners = np.array([0] * 399 + [1])
    rows = Rows(np.zeros((400, 3)), np.arange(400) % 5, owners)
    named = [Source("a", "examples"), Source("b", "examples")]
    thinned = frozen._thinned(Material(named, ["a", "b"], {}, rows, owners, rows, 5))
    assert 55 < len(thinned.targets) < 70
    assert set(thinned.owners.tolist()) == {0, 1}


@pytest.mark.parametrize("n", [14, 25, 40])
def test_a_handful_of_rows_is_no_fault(ws: Workspace, tmp_path: Path, n: int) -> None:
    plant_rows(ws, tmp_path, {"a": n, "b": 5, "c": 1})
    found = valuing.value(ws)
    json.dumps(found, allow_nan=False)  # as PostgreSQL keeps it
    assert all("reason" in one for one in found["curves"] if one["channel"])
    assert not found["harmful"]
    assert "act" not in verdicts(advise_technical(ws, tries_methods=False)["sentences"], "label-noise")
