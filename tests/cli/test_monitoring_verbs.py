"""`accuracy` and `drift` through the real command line. Catches: a figure without its interval, volunteers without
their bias, an option that is lost, JSON that is none, a look that is not taken or not kept."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from audited import Answer, plant_log
from conftest import LABELS
from headrace import watching
from headrace.cli.main import main
from headrace.release import controls
from headrace.workspace import init
from planted import plant_channel, plant_version

Say = Callable[..., tuple[int, str]]
RIGHT, WRONG = Answer("neutral", truth="neutral"), Answer("neutral", truth="positive")


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run a command line in this process, on ten days of traffic whose last answers are not like the first."""
    monkeypatch.setattr(watching, "find_spec", lambda _: None)  # a real base model would take ten seconds
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path / "ws"))
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        start = ws.clock() - timedelta(days=10)
        web, version = plant_channel(ws, "web"), plant_version(ws)
        plant_channel(ws, "phone")
        controls.ensure_control(replace(ws, clock=lambda: start))
        told = Answer("neutral", told="positive")
        plant_log(ws, web, version, [RIGHT] * 90 + [WRONG] * 10 + [told] * 30 + [Answer("neutral")] * 900, start=start)
        plant_log(ws, web, version, [Answer("positive")] * 200, start=start + timedelta(hours=1))

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["headrace", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    return run


def test_accuracy_in_words_and_as_json(say: Say) -> None:
    status, shown = say("accuracy")
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
    status, shown = say("drift")
    assert status == 0
    assert "ALARM all channels since" in shown
    assert "positive 0.0% -> 100.0%" in " ".join(shown.split())
    assert "Not watched: embeddings" in shown
    assert len(json.loads(say("drift", "--json")[1])["alarms"]) == 1
    found = json.loads(say("drift", "--accept", "--json")[1])
    assert found["alarms"] == []
    assert len(found["ended"]) == 1
    assert "No change is known" in say("drift")[1]
