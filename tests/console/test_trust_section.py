"""The report's part on sources. Catches: a source without its reason, a suspension that the report does not show."""

from crowds import Crowd
from headrace import trusting
from headrace.console import report
from headrace.feedback import suspensions
from headrace.workspace import Workspace


def test_sources_and_suspensions_are_shown(workspace: Workspace) -> None:
    crowd = Crowd(workspace)
    crowd.say("ann <b>", [(f"text {i}", "positive") for i in range(7)])
    assert "Whose feedback counts" not in report.write(crowd.ws).read_text("utf-8")  # corrections, and no labels yet
    trusting.collect(crowd.ws)
    held = suspensions.suspend(crowd.ws, "web", because="a test <b>")
    shown = report.write(crowd.ws).read_text("utf-8")
    assert "Whose feedback counts" in shown
    assert "web/ann &lt;b&gt;" in shown
    assert "7 of 7 labels are suspended" in shown
    assert held.id in shown
    assert "a test &lt;b&gt;" in shown
    suspensions.lift(crowd.ws, held.id, because="over")
    assert held.id not in report.write(crowd.ws).read_text("utf-8")
