"""What a browser runs of the pages that are written here: nothing (S13). Catches: a name, label or text that becomes a
script in the report or in a model card, in a real browser."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from headrace.console import report
from headrace.evaluate import model_card
from headrace.records import Run
from headrace.release import controls
from headrace.store import runs, snapshots
from headrace.workspace import Workspace
from planted import plant_answer, plant_channel, plant_correction, plant_evaluation, plant_version, results_of

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OWNED = "document.title='owned'"
PAYLOADS = [
    f"<script>{OWNED}</script>",
    f'"><img src=x onerror="{OWNED}">',
    f"'><svg onload={OWNED}>",
    f"</title></style><script>{OWNED}</script>",
    f"<iframe srcdoc='<script>parent.{OWNED}</script>'>",
    f"]]><body onload={OWNED}>",
    f'<details open ontoggle="{OWNED}">',
    f"[x](javascript:{OWNED})",
]


def _title(page: Path) -> str:
    """The title that a browser shows when all scripts have run."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    return unescape(found[1]) if found else ""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_no_script_runs_in_report_or_model_card(workspace: Workspace, tmp_path: Path) -> None:
    confusion = [[20, 3], [4, 18]]
    for place, payload in enumerate(PAYLOADS):
        channel = plant_channel(workspace, payload)
        version = plant_version(workspace)
        labels = [payload, f"other {place}"]
        plant_evaluation(workspace, version, results_of({payload: confusion}, labels))
    controls.ensure_control(workspace, "tone", actor=PAYLOADS[0])
    row, _ = plant_answer(workspace, channel, version, PAYLOADS[2], text=PAYLOADS[1])
    plant_correction(workspace, row, PAYLOADS[3])
    page = report.write(workspace, path=tmp_path / "report.html")
    text = page.read_text("utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src 'none'" in unescape(policy[1])
    assert "script" not in policy[1].replace("script-src 'none'", "")
    assert "owned" in text
    assert _title(page) == "ws: headrace report"

    with workspace.store.read() as conn:
        run, snapshot = runs.find(conn, version.run_id), snapshots.find(conn, version.snapshot_id)
    assert isinstance(run, Run)
    assert snapshot is not None
    evaluations = {"version": results_of({PAYLOADS[1]: confusion}, PAYLOADS[:2])}
    del evaluations["version"]["overall"]["per_class"]  # which needs intervals; names are written as the channels' are
    card = model_card.render(version, run, snapshot, evaluations, library="transformers")
    shown = tmp_path / "card.html"
    shown.write_text(f"<title>card</title>{card}", "utf-8")  # as if whoever shows it let all HTML in it through
    assert _title(shown) == "card"

    shown.write_text(f"<title>card</title>{PAYLOADS[1]}", "utf-8")
    assert _title(shown) == "owned"  # or the above would show nothing
