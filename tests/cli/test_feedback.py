"""Feedback through the real command line. Catches: an id that is taken for a verb, an option before it that is lost, a
file whose bad lines end it or pass without an exit status, a view that leaves out what it was asked for."""

import json
from pathlib import Path

import pytest

from conftest import LABELS, Say
from headrace.workspace import init
from planted import plant_answer, plant_channel, plant_version

DECLARED = '[feedback.metrics.kept]\n[feedback.events]\naccepted = "right"\n'


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three answers in channel `web`, one in `app`."""
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path / "ws"))
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        with (ws.root / "headrace.toml").open("a") as file:
            file.write(DECLARED)
        version = plant_version(ws)
        web, app = plant_channel(ws, "web"), plant_channel(ws, "app")
        return [plant_answer(ws, channel, version, "positive")[0] for channel in (web, web, web, app)]


def test_the_word_give_may_be_left_out(say: Say, names: list[str]) -> None:
    for words in (
        ("feedback", names[0], "--correction", "neutral"),
        ("feedback", "--event", "accepted", "--channel", "web", names[0]),
        ("feedback", "give", names[0], "--metric", "kept", "--value", "TRUE", "--key", "k"),
        ("feedback", names[0], "--comment", "x", "--labeller", "ann"),
    ):
        status, out, err = say(*words)
        assert (status, out[:11], err) == (0, "Recorded fb", "")
    status, _, err = say("feedback", names[3], "--event", "shown", "--channel", "web")
    assert (status, "no such prediction" in err) == (2, True)
    status, _, err = say("feedback", names[0], "--metric", "kept", "--value", "yes")
    assert (status, "a number, true or false" in err) == (2, True)


def test_a_file_is_taken_and_its_bad_lines_are_told(say: Say, names: list[str], tmp_path: Path) -> None:
    said = [
        {"prediction_id": names[0], "metric": "kept", "value": True, "labeller": "ann"},
        {"prediction_id": names[1], "metric": "keept", "value": True},
        {"prediction_id": names[1], "event": "accepted"},
    ]
    path = tmp_path / "said.jsonl"
    path.write_text("\n".join(map(json.dumps, said)))
    status, out, err = say("feedback", "batch", str(path))
    assert (status, out) == (2, "2 recorded, 1 refused\n")
    assert err.startswith("Line 2: no such metric: keept. Did you mean 'kept'?")
    path.write_text(json.dumps(said[0]))
    status, out, _ = say("feedback", "batch", str(path), "--json")
    assert (status, json.loads(out)) == (0, {"n_taken": 1, "n_refused": 0, "refused": []})
    status, out, _ = say("feedback", "list", "--labeller", "ann", "--json")
    assert [one["is_replaced"] for one in json.loads(out)] == [False, True]
    status, out, _ = say("feedback", "list")
    assert "kept = 1" in out
    assert "metric (replaced)" in out
    status, out, _ = say("feedback", "summary", "--json")
    (events, kept) = json.loads(out)
    assert (events["name"], events["counts"], events["mean"]["estimate"]) == ("events", {"accepted": 1}, 1.0)
    assert (kept["name"], kept["channel"], kept["version"], kept["n_answers"]) == ("kept", "web", "tone/1", 1)
    assert "no sample" not in out
    assert "not a sample" in say("feedback", "summary")[1]
    assert say("feedback", "summary", "--channel", "ap")[0] == 2
