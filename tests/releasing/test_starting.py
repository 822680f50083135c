"""What keeps a version from traffic, and how one starts all the same. Catches: a gate that is measured and not kept to,
a reason that does not reach the ledger, another way into traffic than a release."""

import ast
from pathlib import Path

import pytest

from headrace import loop
from headrace.errors import BadInput, NotFound, WrongState
from headrace.records import Decision, ModelVersion, SnapshotRow
from headrace.release import controls, ledger, releases
from headrace.releasing import gating, starting
from headrace.workspace import Workspace, open_workspace
from released import answer_with, fill, plant, right, sometimes_wrong, wrong

ROOT = Path(__file__).parents[2] / "headrace"


@pytest.fixture
def rows(workspace: Workspace, tmp_path: Path) -> list[SnapshotRow]:
    found = fill(workspace, tmp_path)
    plant(workspace)
    controls.ensure_control(workspace)
    return found


def failed(evidence: dict[str, object]) -> list[str]:
    return [gate["gate"] for gate in evidence["gates"] if not gate["passed"]]  # type: ignore[attr-defined]


def test_a_version_that_passes_its_gates_starts_with_them_in_the_ledger(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = answer_with(monkeypatch, workspace, rows, {1: sometimes_wrong(5), 2: right})
    plant(workspace)
    release = starting.start(workspace, candidate="2", actor="ann")
    line = ledger.history(workspace)[-1]
    assert (line.kind, line.release_id, line.actor) == ("start", release.id, "ann")
    assert [gate["gate"] for gate in line.evidence["gates"]] == [
        "no harm overall", "no harm in channel phone", "no harm in channel web", "no harm in a class",
        "agreement with the checkpoint", "size", "latency", "not rejected before",
    ]  # fmt: skip
    assert failed(line.evidence) == []
    assert "despite" not in line.evidence
    assert line.evidence["comparison"]["overall"]["n"] == len(rows)
    assert loaded == [1, 2]
    gating.gates_of(workspace, *versions(workspace), loop.silent)
    assert loaded == [1, 2]  # what was measured is kept


def versions(ws: Workspace) -> tuple[ModelVersion, ModelVersion]:
    return controls.find_version(ws, None, 1), controls.find_version(ws, None, 2)


def test_a_version_that_fails_a_gate_does_not_start(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: sometimes_wrong(1000, but_in="phone")})
    plant(workspace)
    with pytest.raises(WrongState, match="--despite") as refused:
        starting.start(workspace, candidate="tone/2")
    assert "no harm in channel phone" in str(refused.value)
    assert [line.kind for line in ledger.history(workspace)] == ["promote"]
    assert controls.serving(workspace).release is None


def test_a_reason_starts_it_and_stands_in_the_ledger(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: wrong})
    plant(workspace)
    with pytest.raises(BadInput, match="a reason must say something"):
        starting.start(workspace, candidate="2", despite="  ")
    starting.start(workspace, candidate="2", despite="the new labels are the right ones")
    line = ledger.history(workspace)[-1]
    assert line.evidence["despite"] == "the new labels are the right ones"
    assert "no harm overall" in failed(line.evidence)


def test_a_reason_that_was_not_needed_is_not_written_down(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: right})
    plant(workspace)
    starting.start(workspace, candidate="2", despite="to be sure")
    assert "despite" not in ledger.history(workspace)[-1].evidence


@pytest.mark.parametrize(
    ("settings", "gate"),
    [
        ({"release.max_size_times": 0.9}, "size"),
        ({"release.max_size_bytes": 1000}, "size in bytes"),
        ({"release.max_latency_times": 2.9}, "latency"),
        ({"release.min_agreement_share": 0.96}, "agreement with the checkpoint"),
    ],
)
def test_limits_come_from_the_settings(
    workspace: Workspace,
    rows: list[SnapshotRow],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, float],
    gate: str,
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: right}, times_as_slow=3)
    plant(workspace, agreement=0.95)
    wide = {"release.max_latency_times": 4, "release.min_agreement_share": 0.9}
    with open_workspace(workspace.root, overrides=wide | settings) as ws:
        judged, _ = gating.gates_of(ws, *versions(ws), loop.silent)
    assert failed({"gates": judged}) == [gate]


def test_what_traffic_rejected_needs_a_reason_to_be_tried_again(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Catches trying until it passes, which no error level holds against.
    answer_with(monkeypatch, workspace, rows, {1: right, 2: right})
    plant(workspace)
    release = starting.start(workspace, candidate="2")
    releases.decide(workspace, release, Decision("reject", "worse in phone"))
    with pytest.raises(WrongState, match=r"not rejected before: rejected on .*: worse in phone"):
        starting.start(workspace, candidate="2")
    starting.start(workspace, candidate="2", despite="the labels of that day were wrong")
    assert failed(ledger.history(workspace)[-1].evidence) == ["not rejected before"]


def test_a_rejection_in_one_channel_stands_for_that_channel(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: right})
    plant(workspace)
    starting.start(workspace, candidate="2", scope=["phone", "web"])
    releases.reject(workspace, channel="phone", reason="worse there")
    releases.stop(workspace)
    for scope in (["phone"], ["phone", "web"], []):
        with pytest.raises(WrongState, match="not rejected before"):
            starting.start(workspace, candidate="2", scope=scope)
    assert starting.start(workspace, candidate="2", scope=["web"]).scope == ("web",)


def test_a_version_in_charge_elsewhere_passes_the_gates_of_a_channel_with_another(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: wrong, 2: right})
    plant(workspace)
    starting.promote(workspace, "2", channel="web", reason="agreed")
    with pytest.raises(WrongState, match="no harm overall"):
        starting.start(workspace, candidate="1", scope=["web"])


def test_what_cannot_start_says_so_before_anything_is_measured(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = answer_with(monkeypatch, workspace, rows, {})
    with pytest.raises(WrongState, match="already in charge"):
        starting.start(workspace, candidate="1")
    with pytest.raises(NotFound, match="no such model version"):
        starting.start(workspace, candidate="7")
    plant(workspace)
    with pytest.raises(NotFound, match="policies: shadwo"):
        starting.start(workspace, candidate="2", policy="shadwo")
    assert loaded == []


def test_only_releases_write_who_is_in_charge() -> None:
    # A new way into traffic would have to write the ledger.
    writers = set()
    for path in ROOT.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        named = [f for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)]
        if any((f.value.id, f.attr) == ("ledger", "append") for f in named):
            writers.add(path.relative_to(ROOT).parts[0])
    assert writers == {"release"}


def test_a_promotion_by_hand_needs_a_reason_and_says_what_the_gates_said(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: right, 2: wrong, 3: right})
    plant(workspace)
    for nothing in (None, "", " "):
        with pytest.raises(BadInput, match="promotion by hand needs a reason"):
            starting.promote(workspace, "2", reason=nothing)
    starting.promote(workspace, "2", reason="asked for by Ann")
    line = ledger.history(workspace)[-1]
    assert (line.kind, line.reason) == ("promote", "asked for by Ann")
    assert line.evidence == {"by_hand": True, "gates": "were not asked"}
    plant(workspace)
    starting.start(workspace, candidate="3")
    line = starting.promote(workspace, reason="the labels come too slowly")
    assert line.version_id == controls.find_version(workspace, None, 3).id
    assert {gate["passed"] for gate in line.evidence["gates"]} == {True}


def test_a_first_version_needs_no_reason(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    plant(workspace)
    assert starting.promote(workspace, "1").reason == controls.FIRST


def test_a_release_about_channels_is_gated_on_their_rows(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = answer_with(
        monkeypatch, workspace, rows, {1: sometimes_wrong(9), 2: sometimes_wrong(1000, but_in="phone")}
    )
    plant(workspace)
    with pytest.raises(WrongState, match="try it where it does: --channel web, or give a reason"):
        starting.start(workspace, candidate="2")
    release = starting.start(workspace, candidate="2", scope=["web"])
    line = ledger.history(workspace)[-1]
    assert (release.scope, list(line.evidence["comparison"]["channels"])) == (("web",), ["web"])
    assert line.evidence["comparison"]["overall"]["n"] == sum(row.channel == "web" for row in rows)
    assert loaded == [1, 2, 1, 2]  # what was measured on all rows does not stand for these


def test_improve_leaves_out_the_channels_that_a_candidate_would_harm(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(
        monkeypatch, workspace, rows, {1: sometimes_wrong(9), 2: sometimes_wrong(1000, but_in="phone"), 3: wrong}
    )
    plant(workspace)
    control, candidate = versions(workspace)
    scope, judged, _ = starting.gates_where_it_fits(workspace, control, candidate)
    assert (scope, bool(starting.failing(judged))) == ([], True)  # releases are about the whole task
    with open_workspace(workspace.root, overrides={"release.scope": "channels"}) as each:
        step = loop._try(each, control, candidate, loop.silent)
        assert (step["step"], step["scope"]) == ("shadow", ("web",))
        releases.stop(each)
        worse = plant(each)
        step = loop._try(each, control, worse, loop.silent)
        assert step["step"] == "gate"
        assert loop._try(each, control, worse, loop.silent)["step"] == "waiting"


def test_every_candidate_of_a_bandit_passes_its_gates(
    workspace: Workspace, rows: list[SnapshotRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, workspace, rows, {1: sometimes_wrong(5), 2: right, 3: wrong, 4: right})
    for _ in range(3):
        plant(workspace)
    with pytest.raises(WrongState, match="tone/3 fails before traffic"):
        starting.start(workspace, candidate="2", others=["3"], policy="bandit")
    release = starting.start(workspace, candidate="2", others=["4"], policy="bandit")
    assert len(release.others) == 1
    assert set(ledger.history(workspace)[-1].evidence["others"]) == {"tone/4"}
