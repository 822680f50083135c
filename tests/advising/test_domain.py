"""The domain mentor. Catches: personal data, a rare class, a group or a far text that nobody names, a promise about
errors that new rows break; and each of them said of a clean workspace."""

from pathlib import Path

import numpy as np
import pytest

from advised import check, verdicts
from conftest import LABELS, write_jsonl
from headrace.advising import advise_domain, domain
from headrace.advising.case import Case
from headrace.data.importing import import_rows
from headrace.errors import BadConfig
from headrace.feedback import drift
from headrace.feedback.alarms import Alarm
from headrace.stats import abstention
from headrace.store import channels
from headrace.workspace import Workspace
from planted import NOON, plant_answer, plant_version
from vectored import make_up_vectors, plant_rows


@pytest.fixture
def ws(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    make_up_vectors(monkeypatch)
    return workspace


def test_a_clean_workspace_has_nothing_to_act_on(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 150, "b": 100})
    said = advise_domain(ws)["sentences"]
    assert [one["about"] for one in said if one["verdict"] == "act"] == []
    for about, verdict in [
        ("personal-data", "fine"), ("imbalance", "fine"), ("drift", "not known"), ("fairness", "not known"),
        ("abstention", "not known"), ("scope", "not known"),
    ]:  # fmt: skip
        assert verdicts(said, about) == [verdict], about


def test_planted_personal_data_is_found_and_not_shown(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 80})
    told = {"id": "pii", "text": f"{LABELS[0]} write to jane@mail.example.com", "label": LABELS[0]}
    import_rows(ws, "a", write_jsonl(tmp_path / "pii.jsonl", [told]))
    (one,) = check(advise_domain(ws)["sentences"], "personal-data")
    assert one["verdict"] == "act"
    assert one["facts"]["kind"] == "e-mail"
    assert one["facts"]["channels"] == {"a": 1}
    assert len(one["facts"]["examples"]) == 1
    assert "jane" not in str(one)


def test_a_rare_class_is_named(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 200})
    more = [{"id": f"m{i}", "text": f"{LABELS[0]} more {i * 7919}", "label": LABELS[0]} for i in range(3000)]
    import_rows(ws, "a", write_jsonl(tmp_path / "more.jsonl", more))
    rare = check(domain.imbalance(Case(ws, "tone")), "imbalance")
    assert {one["facts"]["label"] for one in rare} == {LABELS[1], LABELS[2]}
    assert all(one["verdict"] == "act" and one["high"] < 1 / 12 for one in rare)


def test_a_group_that_is_answered_worse_is_named(ws: Workspace) -> None:
    case = Case(ws, "tone")
    rng = np.random.default_rng(0)
    mine = np.arange(9000) < 3000
    even, worse = rng.random(9000) < 0.8, rng.random(9000) < np.where(mine, 0.6, 0.85)
    other = rng.random(9000) < 0.5
    assert verdicts(domain.fairness(case, {"g": mine, "h": other}, even), "fairness") == ["fine", "fine"]
    said = check(domain.fairness(case, {"g": mine, "h": other}, worse), "fairness")
    assert [(one["facts"]["group"], one["verdict"]) for one in said] == [("g", "act"), ("h", "fine")]
    assert said[0]["level"] == pytest.approx(0.975)
    for n in (5, 20, 100):  # too few to compare, and too few to tell
        few = {"few": np.arange(9000) < n}
        assert verdicts(domain.fairness(case, few, even), "fairness") == ["not known"]


def test_groups_are_channels_or_patterns(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 60, "b": 60})
    rows = Case(ws, "tone").sides.train
    is_one = domain.members_of(["a", "b"], "g", ("a", "text:(?i)POSITIVE", "key:^b-1"))
    assert [is_one(row) for row in rows] == [
        row.channel == "a" or "positive" in row.text or row.key.startswith("b-1") for row in rows
    ]
    for rules in (("nobody",), ("text:(",), ("words:x",)):
        with pytest.raises(BadConfig):
            domain.members_of(["a", "b"], "g", rules)


def test_an_alarm_is_said_unless_accuracy_is_known_to_hold(ws: Workspace) -> None:
    ends = {"estimate": 0.4, "low": 0.3, "high": 0.5, "level": 0.95}
    for accuracy, verdict in (("affected", "act"), ("not known", "act"), ("not affected", "fine")):
        effect = {"accuracy": accuracy, "now": None, "before": None, "n_more": 50}
        changes = [{"what": "negative", "before": 0.2, "now": ends}]
        evidence = {"since": "2026-03-01T12:00:00+00:00", "n_answers": 90, "changes": changes, "effect": effect}
        alarm = Alarm("alm_1", "tone", "a", "ver_1", "classes", evidence, NOON)
        (one,) = check(domain.drift_of(Case(ws, "tone"), [alarm], 0), "drift")
        assert (one["verdict"], one["number"]) == (verdict, 0.4)


def test_no_alarm_is_fine_only_where_something_is_watched(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 150})
    case = Case(ws, "tone")
    assert verdicts(domain.drift_of(case, [], 2), "drift") == ["fine"]
    assert domain.n_watched(drift.standing(ws, "tone")) == 0  # nobody is in charge
    assert verdicts(advise_domain(ws)["sentences"], "drift") == ["not known"]
    seen = {"classes": {"is_watched": True}, "confidence": {"is_watched": False}}
    assert domain.n_watched({"watched": [{"streams": seen}, {"streams": {}}, {"streams": seen}]}) == 2


def test_a_threshold_keeps_its_promise_on_new_rows(ws: Workspace) -> None:
    rng = np.random.default_rng(0)
    broken, n_found, n_worlds = 0, 0, 200
    for _ in range(n_worlds):
        confidence = rng.uniform(0.4, 1, 4000)
        right = rng.random(4000) < confidence
        found = abstention.threshold(confidence[:2000], right[:2000], max_wrong_share=0.1)
        if found is not None:
            low = max(0.4, found.confidence)
            broken += 1 - (low + 1) / 2 > 0.1  # what is wrong of all answers that such a world would give
            n_found += 1
    assert n_found > 150
    assert broken / n_worlds <= 0.1  # of a level of .05, with room for chance
    case = Case(ws, "tone")
    sure = domain.doubt(case, confidence, right, 0.1)
    assert check(sure, "abstention")[0]["facts"]["threshold"] > 0.5
    assert verdicts(domain.doubt(case, confidence, np.ones(4000, dtype=bool), 0.1), "abstention") == ["fine"]
    hopeless = domain.doubt(case, confidence, rng.random(4000) < 0.5, 0.01)
    assert check(hopeless, "abstention")[0]["number"] == pytest.approx(0.5, abs=0.05)


def test_far_texts_are_out_of_scope(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 400})
    version = plant_version(ws)
    with ws.store.read() as conn:
        channel = channels.listing(conn)[0]
    for i in range(60):
        plant_answer(ws, channel, version, LABELS[0], text=f"{LABELS[i % 3]} like the rows {i}")
    (near,) = check(advise_domain(ws)["sentences"], "scope")
    assert near["verdict"] == "fine"
    for i in range(60):
        plant_answer(ws, channel, version, LABELS[0], text=f"something else {i}")
    (far,) = check(advise_domain(ws)["sentences"], "scope")
    assert far["verdict"] == "act"
    assert far["low"] > 0.2
