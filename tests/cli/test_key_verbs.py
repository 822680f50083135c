"""`key` through the real command line. Catches: a key that is shown twice, a verb that loses an option, a whole key
that is said again in an error."""

import json
from pathlib import Path

import pytest

from conftest import LABELS, Say
from headrace.access.keyring import Keyring
from headrace.data import channels
from headrace.workspace import init, open_workspace


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path) -> None:
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        channels.add(ws, "web")


def test_a_key_is_made_shown_once_rotated_and_revoked(say: Say, tmp_path: Path) -> None:
    options = ("--scope", "predict", "--scope", "feedback", "--channel", "web", "--expires", "2099-01-01")
    limits = ("--requests-per-s", "5", "--rows-per-day", "100", "--test")
    made = json.loads(say("key", "create", "app", *options, *limits, "--json")[1])
    assert made["id"].startswith("hr_test_")
    assert (made["scopes"], made["channels"], made["requests_per_s"]) == (["predict", "feedback"], ["web"], 5)
    assert (made["rows_per_day"], made["expires_at"][:4]) == (100, "2099")
    with open_workspace(tmp_path / "ws") as ws:
        assert Keyring(ws).caller(made["key"]).channels == {"web"}
    status, shown, _ = say("key", "create", "other", "--scope", "predict")
    assert status == 0
    assert "HEADRACE_KEY" in shown
    rotated = json.loads(say("key", "rotate", made["id"], "--overlap-hours", "0", "--json")[1])
    assert rotated["replaces"] == made["id"]
    assert json.loads(say("key", "revoke", rotated["id"], "--json")[1])["revoked_at"]
    listed = json.loads(say("key", "list", "--json")[1])
    assert {one["id"]: one["standing"] for one in listed if one["name"] == "app"} == {
        made["id"]: "expired", rotated["id"]: "revoked",
    }  # fmt: skip
    table = say("key", "list")[1]
    for one in (made, rotated):
        assert one["id"] in table
        assert one["key"].split("_")[3] not in table + json.dumps(listed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "x", "--scope", "everything"), "Known: "),
        (("create", "x", "--scope", "predict", "--channel", "wep"), "'web'"),
        (("create", "x", "--scope", "predict", "--expires", "2001-01-01"), "another time"),
        (("create", "x", "--scope", "predict", "--expires", "9999-12-31T23:59:59-12:00"), "no day or instant"),
        *((("rotate", "x", "--overlap-hours", hours), "number of hours") for hours in ("inf", "nan", "99999999999")),
        (("revoke", "hr_live_000000000000"), "key list"),
    ],
)
def test_what_cannot_be_is_told(say: Say, words: tuple[str, ...], said: str) -> None:
    status, _, shown = say("key", *words)
    assert status == 2
    assert said in shown


def test_a_whole_key_is_not_said_again(say: Say) -> None:
    key = json.loads(say("key", "create", "x", "--scope", "predict", "--json")[1])["key"]
    status, shown, errors = say("key", "revoke", key)
    assert status == 2
    assert key.split("_")[3] not in shown + errors
    assert say("key", "revoke", key.rsplit("_", 2)[0])[0] == 0
