"""`release plan`: from answers on held-out rows and the traffic of the log to requests, labels, days and cost."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from headrace.cli.standing import show_plan
from headrace.errors import BadInput, NotFound, WrongState
from headrace.ids import first_id
from headrace.records import SnapshotRow
from headrace.release import controls
from headrace.releasing import planning
from headrace.stats import planning as stats
from headrace.store import channels, schema
from headrace.workspace import Workspace, open_workspace
from planted import plant_answer
from released import answer_with, fill, hash_of, plant, right, sometimes_wrong, wrong


@pytest.fixture
def rows(workspace: Workspace, tmp_path: Path) -> list[SnapshotRow]:
    found = fill(workspace, tmp_path, 800)
    plant(workspace)
    controls.ensure_control(workspace)
    plant(workspace)
    return found


def plant_traffic(ws: Workspace, name: str, n: int, *, days: float) -> None:
    """`n` logged answers of a channel, spread evenly over the last days, each shadowed too."""
    with ws.store.read() as conn:
        channel = channels.find(conn, name)
    assert channel is not None
    control = controls.serving(ws).control
    table = schema.predictions
    for i in range(n):
        at = ws.clock() - timedelta(days=days * (n - i) / n)
        _, request = plant_answer(ws, channel, control, "neutral")
        plant_answer(ws, channel, control, "neutral", request_id=request, arm="shadow")
        with ws.store.write() as conn:
            for arm in ("control", "shadow"):
                named = first_id("prediction", at)[:-20] + f"{2 * i + (arm == 'shadow'):020x}"
                mine = (table.c.request_id == request, table.c.arm == arm)
                conn.execute(update(table).where(*mine).values(id=named, at=at))


def test_a_plan_rests_on_the_disagreements_of_held_out_rows(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(10)})
    found = planning.plan(workspace, "2", drop=2, price=0.5)
    n_wrong = sum(hash_of(row) % 10 == 0 for row in rows)
    assert found["all"]["n_rows"] == len(rows)
    assert found["all"]["n_disagreements"] == n_wrong
    share = round(n_wrong / len(rows), 3)
    expected = stats.paired(share, 0.02, 0.05, price_per_label=0.5)
    assert found["all"]["plan"] == vars(expected)
    assert expected.cost_median == expected.n_labels_median / 2
    assert set(found["channels"]) == {"web", "phone"}
    alone = found["channels"]["web"]
    assert alone["plan"]["n_labels_median"] > 0
    assert alone["n_rows"] < len(rows)


def test_channels_share_the_error_level(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where all disagree alike, a channel takes more requests of its own than all rows take together.
    answer_with(monkeypatch, workspace, rows, {1: right, 2: wrong})
    found = planning.plan(workspace, "2", drop=50)
    for part in found["channels"].values():
        assert part["plan"]["n_requests_median"] > found["all"]["plan"]["n_requests_median"]


def test_disagreements_on_which_neither_is_right_cost_labels(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_wrong(row: SnapshotRow) -> str:
        return next(label for label in ("negative", "neutral", "positive") if label not in (right(row), wrong(row)))

    def half(row: SnapshotRow) -> str:
        return wrong(row) if hash_of(row) % 2 else right(row)

    answer_with(
        monkeypatch, workspace, rows, {1: half, 2: lambda row: other_wrong(row) if hash_of(row) % 2 else wrong(row)}
    )
    plan = planning.plan(workspace, "2", drop=10)["all"]["plan"]
    plain = stats.paired(0.5, 0.1)
    assert plan["n_labels_median"] > 1.5 * plain.n_labels_median


def test_a_channel_with_few_disagreements_takes_those_of_all_rows(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: lambda r: wrong(r) if r.channel == "web" else right(r)})
    found = planning.plan(workspace, "2", drop=10)
    assert found["channels"]["web"]["taken_from"] == "its own rows"
    assert found["channels"]["phone"]["taken_from"].startswith("all rows")
    assert found["channels"]["phone"]["plan"] is not None


@pytest.mark.parametrize("drop", [2.0, -2.0])
def test_versions_that_hardly_differ_cannot_be_so_far_apart(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch, drop: float
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(80)})
    found = planning.plan(workspace, "2", drop=drop)
    assert found["all"]["plan"] is None
    assert "less than 2 points" in found["all"]["reason"]
    assert found["all"]["days_median"] is None


@pytest.mark.parametrize(
    ("policy", "shares"), [("ab", (0.8, 0.2)), ("canary", (0.05, 0.05)), ("bandit", (0.5, 0.5)), ("shadow", None)]
)
def test_a_plan_knows_what_its_policy_does_with_the_requests(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    shares: tuple[float, float] | None,
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: sometimes_wrong(10), 2: right})
    settings = {"release.candidate_share": 0.2, "release.ramp": [5, 25], "release.floor_share": 0.2}
    with open_workspace(workspace.root, overrides=settings) as ws:
        found = planning.plan(ws, "2", drop=8, policy=policy)
    assert found["shares"] == shares
    accuracy = round(1 - found["all"]["n_disagreements"] / found["all"]["n_rows"], 2)
    expected = {
        "ab": lambda: stats.unpaired(accuracy, 0.08, control_share=0.8, candidate_share=0.2),
        "canary": lambda: stats.ramped(accuracy, 0.08, stages=[stats.Stage(0.05, 4000), stats.Stage(0.25, 800)])[0],
        "bandit": lambda: stats.best_of_two(accuracy, 0.08, floor=0.2),
    }
    if policy in expected:
        assert found["all"]["plan"] == vars(expected[policy]())
    if policy == "bandit":
        assert found["channels"]["web"]["reason"] == "a bandit is planned for all channels together"


def test_of_a_canary_the_whole_ramp_is_planned(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 200 requests of each arm at 1, 5, 10, 25 and 50 %. Catches a plan of the last stage alone, a promotion that
    # forgets the clock or the labels, and a channel that is given the requests of all.
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(10)})
    found = planning.plan(workspace, "2", drop=2, policy="canary", price=0.5)
    few = planning.plan(workspace, "2", drop=2, policy="canary", label_share=0.01)
    promotion = found["promotion"]
    assert [one["n_requests"] for one in promotion["stages"]] == [20000, 4000, 2000, 800, 400]
    assert (promotion["n_requests"], promotion["n_labels"], promotion["cost"]) == (27200, 1000, 500.0)
    assert found["all"]["found_share"] < 0.3  # 2,000 labelled answers do not tell 2 points
    assert found["all"]["plan"]["n_requests_median"] > 27200
    of_half = found["channels"]["web"]["plan"]["n_requests_median"]
    n_labels = found["channels"]["web"]["plan"]["n_labels_median"]
    share = found["channels"]["web"]["n_rows"] / found["all"]["n_rows"]
    assert of_half == pytest.approx(27200 * share + n_labels - 2000 * share, rel=0.01)
    show_plan(found)
    words = " ".join(capsys.readouterr().out.split())
    assert "takes charge after 27,200 requests, 20,000 of them in the first stage" in words
    assert "find a drop of 2 points before that. To find more" in words
    assert few["promotion"]["n_requests"] == 27200 + (500 - 10) / 0.01 / 0.5
    plant_traffic(workspace, "web", 40, days=3.75)  # 600 s of so few are no requests
    slow = planning.plan(workspace, "2", drop=2, policy="canary")
    assert slow["promotion"]["days"] == pytest.approx(27200 * 3.75 / 40, rel=0.01)
    with open_workspace(workspace.root, overrides={"release.dwell_s": 30 * 86400}) as ws:
        waits = planning.plan(ws, "2", drop=2, policy="canary")["promotion"]["stages"]
    assert waits[-1]["days"] == pytest.approx(400 * 3.75 / 40, rel=0.01)  # longer than 30 days
    with open_workspace(workspace.root, overrides={"release.dwell_s": 60 * 86400, "release.margin": 0.01}) as ws:
        waits = planning.plan(ws, "2", drop=2, policy="canary")
    assert waits["promotion"]["stages"][-1]["days"] == 60
    show_plan(waits)
    assert "or as many as exclude a drop of 1 points" in " ".join(capsys.readouterr().out.split())


def test_a_margin_too_small_to_show_is_said(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(10)})
    with open_workspace(workspace.root, overrides={"release.margin": 1e-6}) as ws:
        found = planning.plan(ws, "2", drop=5)
    assert found["all"]["plan"] is not None
    assert found["all"]["no_worse"] is None
    show_plan(found)
    words = " ".join(capsys.readouterr().out.split())
    assert "will not be shown: so small a difference takes more than 1e+09 answers to find." in words


def test_with_a_margin_the_plan_says_what_it_takes_to_show_no_harm(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(10)})
    assert planning.plan(workspace, "2", drop=5)["all"]["no_worse"] is None
    with open_workspace(workspace.root, overrides={"release.margin": 0.02}) as ws:
        found = planning.plan(ws, "2", drop=5)
        assert planning.plan(ws, "2", drop=5, policy="ab")["all"]["no_worse"] is None
    assert found["all"]["no_worse"] == vars(stats.no_worse(round(found["all"]["disagreement_share"], 3), 0.02))
    one = found["channels"]["web"]["no_worse"]["n_requests_median"]
    assert one > found["all"]["no_worse"]["n_requests_median"] / 2
    show_plan(found)
    assert "is not worse by the margin:" in " ".join(capsys.readouterr().out.split())


def test_a_shadow_takes_labels_of_those_who_were_asked(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks about a quarter of the differences waits for four times the requests; where all count, nobody asks."""
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(5)})
    whole = planning.plan(workspace, "2", drop=5)
    show_plan(whole)
    assert "headrace review next" in " ".join(capsys.readouterr().out.split())
    with open_workspace(workspace.root, overrides={"release.ask_share": 0.25}) as ws:
        quarter = planning.plan(ws, "2", drop=5)["all"]["plan"]
    assert quarter["n_requests_median"] == pytest.approx(4 * whole["all"]["plan"]["n_requests_median"], rel=0.1)
    with open_workspace(workspace.root, overrides={"release.ask_share": 0.25, "release.labels": "all"}) as ws:
        found = planning.plan(ws, "2", drop=5)
    assert (found["labels"], found["all"]["plan"]) == ("all", whole["all"]["plan"])


def test_days_come_from_the_traffic_of_the_log(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(5)})
    assert planning.plan(workspace, "2", drop=5)["all"]["requests_per_day"] == 0
    plant_traffic(workspace, "web", 60, days=3)
    plant_traffic(workspace, "phone", 8, days=30)  # the last lies within the week, 3.75 days ago
    found = planning.plan(workspace, "2", drop=5)
    assert found["channels"]["web"]["requests_per_day"] == 60 / 3.75
    assert found["all"]["requests_per_day"] == pytest.approx(61 / 3.75, abs=0.1)
    days = found["all"]["plan"]["n_requests_median"] / found["all"]["requests_per_day"]
    assert found["all"]["days_median"] == pytest.approx(days, rel=0.02)
    assert found["all"]["days_p90"] > found["all"]["days_median"]


def test_a_plan_changes_nothing_and_is_shown_in_words(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(5)})
    show_plan(planning.plan(workspace, "2"))
    said = " ".join(capsys.readouterr().out.split())
    assert "tone/2 beside tone/1 (shadow): to find a drop of 2 points" in said
    assert "add --price" in said
    assert "no traffic in the last week" in said
    show_plan(planning.plan(workspace, "2", drop=-30, price=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "a gain of 30 points" in said
    assert "all: no plan, since" in said
    assert controls.serving(workspace).release is None


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"candidate": "2", "drop": 0}, BadInput, "in points, up to 100 and not 0: 0"),
        ({"candidate": "2", "drop": 101}, BadInput, "in points"),
        ({"candidate": "2", "price": -1}, BadInput, "a price is a number of 0 or more: -1"),
        ({"candidate": "2", "price": math.nan}, BadInput, "a price is a number of 0 or more: nan"),
        ({"candidate": "2", "price": math.inf}, BadInput, "a price is a number of 0 or more: inf"),
        ({"candidate": "2", "drop": math.nan}, BadInput, "in points"),
        ({"candidate": "2", "label_share": 0}, BadInput, "share of labels"),
        ({"candidate": "2", "policy": "shadwo"}, NotFound, "policies: shadwo"),
        ({"candidate": "1"}, WrongState, "already in charge"),
        ({"candidate": "9"}, NotFound, "no such model version"),
    ],
)
def test_what_cannot_be_planned(
    workspace: Workspace, rows: list[SnapshotRow], asked: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        planning.plan(workspace, **asked)  # type: ignore[arg-type]
