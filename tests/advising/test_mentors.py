"""The technical and the business mentor. Catches: a planted fault that no sentence names, a clean case that is blamed,
prices that are multiplied where they should be divided."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advised import check, verdicts
from headrace.advising import advise_technical, business, domain, technical
from headrace.advising.case import Case
from headrace.config import AdviseTable
from headrace.release import controls
from headrace.workspace import Workspace, open_workspace
from planted import plant_version
from vectored import make_up_vectors, plant_rows, rows_of


@pytest.fixture
def ws(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    make_up_vectors(monkeypatch)
    return workspace


def test_label_noise_is_told_from_clean_labels(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 300, "b": 300}, flipped={"a": 0.3, "b": 0.3})
    said = advise_technical(ws, tries_methods=False)["sentences"]
    (noise,) = check(said, "label-noise")
    assert noise["verdict"] == "act"
    assert noise["low"] > 0.15
    assert {one["verdict"] for one in check(said, "capacity") + check(said, "too-few-rows")} == {"fine"}


def test_clean_labels_are_not_blamed(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 300, "b": 300})
    said = advise_technical(ws, tries_methods=False)["sentences"]
    assert verdicts(said, "label-noise") == ["fine"]
    assert len(check(said, "more-labels")) == 2
    assert json.loads(json.dumps(said)) == said


def test_where_to_label_comes_from_the_curve_that_falls(workspace: Workspace) -> None:
    def curve(name: str, gain: float, low: float) -> dict[str, Any]:
        ends = {"estimate": gain, "low": low, "high": 2 * gain, "level": 0.9}
        return {"channel": name, "n_rows": 200, "n_more": 100, "gain_points": ends}

    case = Case(workspace, "tone")
    whole = {**curve("x", 1, 0.5), "channel": None}
    short = {"channel": "short", "n_rows": 3, "reason": "too few"}
    bad = {"source": "bad (feedback)", "channel": "bad"}
    reproach = {"sources": [bad], "harmful": ["bad (feedback)"]}
    values = {
        "inconclusive": None,
        "sources": [],
        "harmful": [],
        "curves": [whole, curve("flat", 0.01, 0.0), curve("steep", 1.4, 0.6), short],
    }
    steep, flat = check(technical.more_labels(case, values), "more-labels")
    assert (steep["verdict"], steep["facts"]["channel"]) == ("act", "steep")
    assert (flat["verdict"], flat["facts"]["channel"]) == ("fine", "flat")
    assert verdicts(technical.more_labels(case, {**values, "curves": [short]}), "more-labels") == ["not known"]
    blamed = {**values, **reproach, "curves": [curve("bad", 9, 5), curve("steep", 1.4, 0.6)]}
    steep, bad = check(technical.more_labels(case, blamed), "more-labels")
    assert (steep["verdict"], steep["facts"]["channel"]) == ("act", "steep")
    assert "look at those it has first" in bad["text"]
    assert check(business.labels(case, blamed), "labels")[0]["facts"]["channel"] == "steep"
    first, _ = check(business.labels(case, values), "labels")
    assert first["facts"]["channel"] == "steep"
    assert first["number"] == pytest.approx(1.4 / (100 * 0.05))


def test_a_class_that_int8_hurts_is_named(workspace: Workspace) -> None:
    case = Case(workspace, "tone")
    hurt = {"negative": {"n": 200, "wins": 1, "losses": 18}, "neutral": {"n": 200, "wins": 4, "losses": 5}}
    (one,) = check(technical.precision(case, hurt, 400, "int8"), "precision")
    assert (one["verdict"], one["facts"]["label"]) == ("act", "negative")
    assert one["number"] == pytest.approx(8.5)
    fine = {"neutral": {"n": 200, "wins": 4, "losses": 5}}
    assert verdicts(technical.precision(case, fine, 400, "int8"), "precision") == ["fine"]
    assert verdicts(technical.precision(case, {}, 400, "int8"), "precision") == ["fine"]


@pytest.mark.parametrize(
    ("suspect", "train", "test", "most"),
    [(0.1, 0.11, 0.13, "label-noise"), (0.01, 0.0, 0.2, "too-few-rows"), (0.01, 0.3, 0.32, "capacity"),
     (0.0, 0.0, 0.004, None)],
)  # fmt: skip
def test_what_there_is_most_of_stands_in_the_way(
    workspace: Workspace, suspect: float, train: float, test: float, most: str | None
) -> None:
    flags = [np.arange(1000) < 1000 * share for share in (suspect, train, test)]
    said = technical.in_the_way(Case(workspace, "tone"), *flags, {}, who="tone/1")
    check(said, most or "")
    assert [one.about for one in said if one.verdict == "act"] == ([most] if most else [])


def test_costs_are_those_of_the_prices(workspace: Workspace) -> None:
    prices = AdviseTable(machine_hour=0.36, price_per_call=0.002, label_price=0.05)  # 0.0001 a second
    said = business.costs(Case(workspace, "tone"), [0.001, 0.0011, 0.0009, 0.001], 1000, prices)
    (cost,) = check(said, "cost")
    assert cost["number"] == pytest.approx(1000 * 0.001 * 0.0001)
    (pays,) = check(said, "break-even")
    assert pays["facts"]["answers_per_hour"] == pytest.approx(180)
    assert pays["number"] == pytest.approx(180 * 0.001 / 3600)
    (repaid,) = check(said, "repaid")
    assert repaid["number"] == pytest.approx(1000 * 0.05 / (0.002 - 1e-7))
    dear = AdviseTable(machine_hour=100, price_per_call=1e-6)
    said = business.costs(Case(workspace, "tone"), [0.001, 0.0011, 0.0009, 0.001], 1000, dear)
    assert verdicts(said, "cost") == ["act"]
    assert verdicts(said, "break-even") == ["act"]
    assert verdicts(said, "repaid") == ["not known"]
    free = AdviseTable(price_per_call=0)
    assert [one.about for one in business.costs(Case(workspace, "tone"), [0.1, 0.1], 9, free)] == ["cost"]


@pytest.mark.parametrize(
    ("points", "verdict"), [((0.2, -0.9, 1.3), "act"), ((4, -2, 9), "not known"), ((12, 8, 15), "fine"),
                            ((-3, -5, -1), "act"), ((0.6, 0.3, 0.9), "act")]
)  # fmt: skip
def test_training_within_the_noise_of_zero_shot_is_advised_against(
    workspace: Workspace, points: tuple[float, float, float], verdict: str
) -> None:
    plant_version(workspace)
    controls.ensure_control(workspace)
    gain = dict(zip(("estimate", "low", "high"), (one / 100 for one in points), strict=True)) | {"level": 0.95}
    (one,) = check(business.training(Case(workspace, "tone"), gain), "training")
    assert one["verdict"] == verdict
    assert one["command"] == "headrace advise business --json"  # evaluate shows no zero-shot figure
    assert one["number"] == pytest.approx(points[0])
    assert ("Do not fine-tune" in one["text"]) == (verdict == "act")


def test_before_there_is_a_version_the_ways_of_advise_method_tell(workspace: Workspace) -> None:
    case = Case(workspace, "tone")
    ends = {"low": 0.6, "high": 0.8, "level": 0.95}
    measured = {"zero-shot": {"estimate": 0.71, **ends}, "frozen": {"estimate": 0.715, **ends}}
    (one,) = check(business.training_by_method(case, "zero-shot", measured), "training")
    assert (one["verdict"], one["number"]) == ("act", 0.71)
    (one,) = check(business.training_by_method(case, None, measured), "training")
    assert (one["verdict"], one["number"]) == ("fine", 0.715)
    measured["majority"] = {"estimate": 0.61, **ends}
    assert verdicts(business.training_by_method(case, None, measured), "training") == ["not known"]
    assert verdicts(business.training_by_method(case, None, {}), "training") == ["not known"]


def test_where_there_are_several_tasks_commands_name_theirs(workspace: Workspace) -> None:
    with (workspace.root / "headrace.toml").open("a") as file:
        file.write('[tasks.other]\nlabels = ["x", "y"]\n')
    with open_workspace(workspace.root) as ws:
        plant_version(ws)
        controls.ensure_control(ws, "tone")
        case, flags = Case(ws, "tone"), np.arange(300) < 30
        said = [
            *technical.more_labels(case, {"inconclusive": "no vectors"}),
            *technical.in_the_way(case, flags, flags, flags, {}, who="tone/1"),
            *technical.precision(case, {}, 300, "int8"),
            *domain.drift_of(case, [], 0),
            *domain.drift_of(case, [], 3),
            *domain.personal_data(case, rows_of("a", 9)),
            *domain.doubt(case, np.linspace(0, 1, 300), ~flags, 0.2),
            *business.costs(case, [0.1, 0.2], 9, AdviseTable()),
            *business.training(case, {"estimate": 0.1, "low": 0.0, "high": 0.2, "level": 0.95}),
            *business.training_by_method(case, None, {}),
        ]
        assert check(said, "cost")
        assert {"--task tone" in one.command for one in said} == {True}
