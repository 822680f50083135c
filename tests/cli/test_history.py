"""`history` and the verbs that write its lines, through the real command line. Catches: a verb that loses its channel,
an answer without its proof, a check that says nothing by its exit status.
"""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from conftest import LABELS, Say
from headrace.release import controls, releases
from headrace.workspace import init, open_workspace
from planted import plant_channel, plant_version


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> Path:
    """Channels `app` and `web`, three versions, the first in charge."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        for name in ("app", "web"):
            plant_channel(ws, name)
        plant_version(ws)
        controls.ensure_control(ws, "tone", actor="serve")
        for _ in range(2):
            plant_version(ws)
    return tmp_path / "ws"


def test_promoted_and_taken_back_in_one_channel(say: Say) -> None:
    assert say("release", "promote", "2", "--channel", "web", "--reason", "web asked") == (
        0,
        "tone/2 is in charge of channel web: web asked\n",
        "",
    )
    status, text, _ = say("release", "rollback", "--channel", "web", "--json")
    line = json.loads(text)
    assert (status, line["kind"], line["channel"], line["seq"]) == (0, "rollback", "web", 3)
    _, text, _ = say("history", "--channel", "app", "--json")
    assert [one["seq"] for one in json.loads(text)] == [1]
    lines = [line.split() for line in say("history")[1].splitlines()]
    assert [line[3:7] for line in lines if line and line[0] in "123"] == [  # after number, day and time
        ["all", "promote", "tone/1", "serve"],
        ["web", "promote", "tone/2", "cli"],
        ["web", "rollback", "tone/1", "cli"],
    ]


def test_who_answered_comes_with_its_line(say: Say, root: Path) -> None:
    say("release", "promote", "2", "--channel", "web", "--reason", "web asked")
    with open_workspace(root) as ws:
        at = ws.clock().isoformat()
    status, text, _ = say("history", "--at", at, "--channel", "web", "--json")
    served = json.loads(text)
    assert (status, served["version"], served["rule"], served["tried"]) == (0, "tone/2", "by hand", None)
    assert served["line"]["reason"] == "web asked"
    assert served["line"]["hash"].startswith("sha256:")
    assert served["since"] == served["line"]["at"]
    _, text, _ = say("history", "--at", at, "--channel", "app")
    assert "tone/1 was in charge of channel app" in text
    assert "by serve" in text


def test_the_check_ends_with_one_where_a_line_was_changed(say: Say, root: Path) -> None:
    status, text, _ = say("history", "--verify")
    assert (status, text.startswith("1 lines, as they were written. Newest hash: sha256:")) == (0, True)
    with open_workspace(root) as ws, ws.store.write() as conn:
        conn.execute(sa.text("DROP TRIGGER ledger_no_UPDATE"))
        conn.execute(sa.text("UPDATE ledger SET reason = 'better'"))
    assert say("history", "--verify") == (1, "Line 1 is missing or not as it was written, of 1 lines.\n", "")
    status, text, _ = say("history", "--verify", "--json")
    assert (status, json.loads(text)["first_broken"]) == (1, 1)


def test_a_release_in_channels_is_ended_by_hand(say: Say, root: Path) -> None:
    with open_workspace(root) as ws:
        release = releases.start(ws, candidate="3", scope=["app", "web"])
    assert say("release", "reject", "--channel", "app", "--reason", "rude") == (0, f"Rejected {release.id}: rude\n", "")
    assert say("release", "stop", "--channel", "web") == (0, f"Stopped {release.id}: by hand\n", "")
    with open_workspace(root) as ws:
        assert controls.serving(ws).release is None
