"""`trust` and `known` through the real command line. Catches: a verb that loses an option, a source without its reason,
a suspension that people cannot see, an error without the way on."""

import json
from pathlib import Path

import pytest

from conftest import LABELS, Say
from crowds import Crowd
from headrace import trusting
from headrace.workspace import init


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path) -> None:
    """One with feedback."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        crowd = Crowd(ws)
        crowd.say("ann", [(f"text {i}", "positive") for i in range(9)])
        trusting.collect(crowd.ws)


def test_a_source_is_seen_suspended_and_taken_back_in(say: Say) -> None:
    status, shown, _ = say("trust", "list")
    assert status == 0
    assert "web/ann" in shown
    assert "not asked" in shown
    made = json.loads(say("trust", "suspend", "web", "--labeller", "ann", "--because", "a bot", "--json")[1])
    listed = json.loads(say("trust", "list", "--json")[1])
    (ann,) = [one for one in listed["sources"] if one["labeller"] == "ann"]
    assert (ann["channel"], ann["n_labels"], ann["n_suspended"], ann["accuracy"]) == ("web", 9, 9, None)
    assert [one["id"] for one in listed["suspensions"]] == [made["id"]]
    assert made["id"] in say("trust", "list")[1]
    assert say("trust", "lift", made["id"], "--because", "it was me", "--by", "eva")[0] == 0
    listed = json.loads(say("trust", "list", "--json")[1])
    assert [one["lifted_by"] for one in listed["suspensions"]] == ["eva"]
    assert {one["n_suspended"] for one in listed["sources"]} == {0}


def test_an_export_for_a_channel_that_is_not_there_leaves_the_old_file(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("labelled by hand")
    status, _, told = say("label", "export", str(file), "--channel", "wob")
    assert status != 0
    assert "no such channel: wob. Did you mean 'web'?" in told
    assert file.read_text() == "labelled by hand"


def test_known_answers_are_added_listed_and_retired(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text('{"text": "text 1", "label": "positive"}\n{"text": "else", "label": "neutral"}\n')
    assert json.loads(say("known", "add", str(path), "--json")[1]) == {"n_added": 2, "n_changed": 0, "n_known": 0}
    listed = json.loads(say("known", "list", "--json")[1])
    assert [(one["known"]["text"], one["n_asked"], one["n_right"]) for one in listed] == [
        ("text 1", 1, 1),
        ("else", 0, 0),
    ]
    assert say("known", "retire", listed[0]["known"]["id"])[0] == 0
    assert "text 1" not in say("known", "list")[1]
    assert "text 1" in say("known", "list", "--retired")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trust", "suspend", "wob", "--because", "x"), "no such channel: wob. Did you mean 'web'?"),
        (("trust", "suspend", "web", "--labeller", "anne", "--because", "x"), "web: anne. Did you mean 'ann'?"),
        (("review", "next", "--channel", "wob"), "no such channel: wob. Did you mean 'web'?"),
        (("feedback", "list", "--kind", "corection"), "corection. Did you mean 'correction'?"),
        (("trust", "suspend", "web", "--because", " "), "--because"),
        (("trust", "suspend", "web", "--because", "x", "--since", "2026-03-02", "--until", "2026-03-01"), "--until"),
        (("trust", "lift", "sus_1", "--because", "x"), "headrace trust list"),
        (("known", "add"), "--agreed"),
        (("known", "add", "--agreed", "0"), "1 or more"),
        (("known", "add", "--agreed", "5"), "headrace known add FILE"),
        (("known", "add", "no-such-file.csv"), "no-such-file.csv"),
        (("known", "retire", "kno_1"), "headrace known list"),
    ],
)
def test_errors_say_what_to_do(say: Say, words: tuple[str, ...], told: str) -> None:
    status, _, error = say(*words)
    assert status == 2
    assert told in error
