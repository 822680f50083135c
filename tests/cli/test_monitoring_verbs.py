"""`accuracy` and `drift` through the real command line. Catches: a figure without its interval, volunteers without
their bias, an option that is lost, JSON that is none, a look that is not taken or not kept."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from audited import Answer, plant_log
from conftest import LABELS, Say
from headrace import watching
from headrace.release import controls
from headrace.workspace import init
from planted import plant_channel, plant_version

RIGHT, WRONG = Answer("neutral", truth="neutral"), Answer("neutral", truth="positive")


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten days of traffic whose last answers are not like the first."""
    monkeypatch.setattr(watching, "find_spec", lambda _: None)  # a real base model would take ten seconds
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        start = ws.clock() - timedelta(days=10)
        web, version = plant_channel(ws, "web"), plant_version(ws)
        plant_channel(ws, "phone")
        controls.ensure_control(replace(ws, clock=lambda: start))
        told = Answer("neutral", told="positive")
        plant_log(ws, web, version, [RIGHT] * 90 + [WRONG] * 10 + [told] * 30 + [Answer("neutral")] * 900, start=start)
        plant_log(ws, web, version, [Answer("positive")] * 200, start=start + timedelta(hours=1))


def test_accuracy_in_words_and_as_json(say: Say) -> None:
    status, shown, _ = say("accuracy")
    assert status == 0
    assert "90.0% [82." in shown
    assert "not a sample" in " ".join(shown.split())
    found = json.loads(say("accuracy", "--json")[1])
    assert found["channels"]["web"]["accuracy"]["estimate"] == pytest.approx(0.9)
    assert found["channels"]["web"]["volunteered"]["n"] == 30
    later = json.loads(say("accuracy", "--since", "2999-01-01", "--json")[1])
    assert later["overall"]["n_requests"] == 0
    assert "no figure" in say("accuracy", "--since", "2999-01-01")[1]
    assert say("accuracy", "--channel", "wep")[0] == 2


def test_drift_looks_says_and_accepts(say: Say) -> None:
    status, shown, _ = say("drift")
    assert status == 0
    assert "ALARM all channels since" in shown
    assert "positive 0.0% -> 100.0%" in " ".join(shown.split())
    assert "Not watched: embeddings" in shown
    assert len(json.loads(say("drift", "--json")[1])["alarms"]) == 1
    found = json.loads(say("drift", "--accept", "--json")[1])
    assert found["alarms"] == []
    assert len(found["ended"]) == 1
    assert "No change is known" in say("drift")[1]
