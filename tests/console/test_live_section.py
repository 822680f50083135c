"""The report's part about live answers. Catches: volunteers beside audits without their bias, an alarm that is not
there, a section about nothing, a name that becomes markup."""

from dataclasses import replace
from datetime import timedelta

from audited import Answer, plant_log
from headrace.console import report
from headrace.feedback import drift
from headrace.release import controls
from headrace.workspace import Workspace
from planted import NOON, plant_channel, plant_version

RIGHT, WRONG = Answer("neutral", truth="neutral"), Answer("neutral", truth="positive")
ANGRY = Answer("neutral", told="positive")


def test_audits_volunteers_and_alarms_are_shown(workspace: Workspace) -> None:
    version, web = plant_version(workspace), plant_channel(workspace, "<web>")
    controls.ensure_control(replace(workspace, clock=lambda: NOON))
    assert "Live answers" not in report.write(workspace).read_text("utf-8")
    plant_log(workspace, web, version, [RIGHT] * 90 + [WRONG] * 10 + [ANGRY] * 30 + [Answer("neutral")] * 900)
    plant_log(workspace, web, version, [Answer("positive")] * 200, start=NOON + timedelta(hours=1))
    later = replace(workspace, clock=lambda: NOON + timedelta(days=20))
    drift.watch(later)
    text = report.write(later).read_text("utf-8")
    assert "90.0% (82.5% to 94.5%)" in text
    assert "not a sample" in text
    assert "Something has changed" in text
    assert "positive 0.0% -&gt; 100.0%" in text
    assert "<web>" not in text
