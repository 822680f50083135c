"""The report: whole, self-contained, harmless whatever the data says, and there for any workspace."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from headrace.console import report
from headrace.console.markup import Html, element, join, table
from headrace.errors import BadInput, NotFound, Unusable
from headrace.records import Channel, Decision, Evidence, Outcome, Release, Traffic
from headrace.release import controls, releases
from headrace.release.policies.shadow import Shadow
from headrace.store import traffic
from headrace.workspace import Workspace, open_workspace
from planted import (
    NOON,
    plant_answer,
    plant_channel,
    plant_correction,
    plant_evaluation,
    plant_import,
    plant_version,
    results_of,
)

LABELS = ["negative", "neutral", "positive"]
COUNTS = [[20, 3, 1], [4, 18, 2], [0, 5, 30]]
SCRIPT = "<script>alert(1)</script>"
HISTORY = [
    {"step": 5, "epoch": 0.5, "loss": 1.0},
    {"step": 10, "epoch": 1.0, "eval_loss": 0.8, "eval_macro_f1": 0.5},
    {"step": 20, "epoch": 2.0, "loss": 0.6, "eval_loss": 0.7, "eval_macro_f1": 0.6},
]


class Page(HTMLParser):
    """Tags, ids, attributes and text of a page; complains about tags that do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [value or "" for name, value in attrs if name in ("href", "xlink:href", "src", "action")]
        assert not [name for name in given if name.startswith("on")]
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text("utf-8")
    return text, Page(text)


def fill(ws: Workspace, *, labels: list[str] = LABELS, word: str = "fine") -> None:
    """A workspace in the middle of its second release."""
    channel = plant_channel(ws, word)
    plant_import(ws, channel, source=f"{word}.csv")
    first = plant_version(ws, history=HISTORY)
    controls.ensure_control(ws, actor=word)
    second = plant_version(ws, history=HISTORY)
    by_channel = {word: COUNTS, "other": COUNTS}
    part = {"difference": {"estimate": 0.02, "low": -0.01, "high": 0.05}}
    plant_evaluation(ws, first, results_of(by_channel, labels))
    against = {"overall": part, "channels": {word: part}}
    plant_evaluation(ws, second, results_of(by_channel, labels))
    plant_evaluation(
        ws, second, results_of(by_channel, labels, comparison=against, control="tone/1"), predictor="control"
    )
    for predictor in ("majority", "centroid"):
        plant_evaluation(ws, second, results_of(by_channel, labels), predictor=predictor)
    release = releases.start(ws, candidate=second)
    outcomes = [Outcome(word, False, True)] * 4 + [Outcome("other", True, False)]
    decision = Shadow.decide(Evidence(outcomes, n_requests=90), release.options)
    releases.decide(ws, release, Decision("hold", f"{decision.reason} {word}", decision.evidence), actor=word)
    plant_correction(ws, plant_answer(ws, channel, first, "x", text=None)[0], labels[0])


def test_an_empty_workspace_has_a_report(workspace: Workspace) -> None:
    path = report.write(workspace)
    assert path == workspace.root / "report.html"
    _, page = read(path)
    assert "nobody yet" in page.text
    assert "Nothing has been imported yet" in page.text


def test_a_full_workspace_shows_every_part(workspace: Workspace) -> None:
    fill(workspace)
    _, page = read(report.write(workspace))
    for words in (
        "Candidate against control", "macro-F1 per channel", "Against the version in charge then",
        "What is taken for what", "Can its confidence be trusted", "Learning curve", "Imports", "Snapshots", "Ledger",
        "Not decided yet", "nearest class centroid",
        "most frequent class", "cannot become labels", "tone/1 (in charge)", "these rows cannot tell which is better",
        "release started", "put in charge",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == page.tags.count("figure") == 6


def test_the_page_asks_for_nothing_and_its_ids_are_unique(workspace: Workspace) -> None:
    # Several SVGs of one library share ids unless they are told apart; then clips of one figure cut another.
    fill(workspace)
    (workspace.root / "headrace.toml").write_text(
        (workspace.root / "headrace.toml").read_text() + '[tasks.stars]\ntype = "text-regression"\n'
    )
    with open_workspace(workspace.root) as two_tasks:
        text, page = read(report.write(two_tasks))
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links), page.links
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import|@font-face", text)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert "default-src 'none'" in unescape(text)


def test_every_figure_says_what_it_shows(workspace: Workspace) -> None:
    fill(workspace)
    text, page = read(report.write(workspace))
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', text)) == page.tags.count("svg")
    assert page.tags.count("figcaption") == page.tags.count("figure")


def test_figures_follow_the_page_colours(workspace: Workspace) -> None:
    # A colour left as drawn would vanish in dark mode.
    fill(workspace)
    text, _ = read(report.write(workspace))
    inside = "".join(re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): ?(#\w+)", inside)) == set()
    assert "DejaVu" not in inside


@pytest.mark.parametrize(
    "word", [SCRIPT, '"><img src=x onerror=alert(1)>', "a & b </svg></style>", "$x^2$ 日本語 🙂", "&lt;"]
)
def test_nothing_that_data_says_becomes_markup(workspace: Workspace, word: str) -> None:
    # Labels, channel names, sources, reasons and actors, in tables, captions, alt texts and figures alike.
    fill(workspace, labels=[word, "b", f"c{word}"], word=word)
    text, page = read(report.write(workspace))
    assert not {"script", "img"} & set(page.tags)
    assert text.count("</style>") == 1
    assert page.text.count(word) > 10
    assert page.tags.count("svg") == 6


def test_the_same_facts_give_the_same_page(workspace: Workspace) -> None:
    fill(workspace)

    def body() -> str:
        return re.sub(r"headrace report of [^<]*", "", report.write(workspace).read_text("utf-8"))

    assert body() == body()


def test_a_regression_task_has_a_report(workspace: Workspace) -> None:
    figures = {
        "n": 40,
        "pearson": 0.5,
        "spearman": None,
        "mae": 0.3,
        "intervals": {"pearson": {"low": -0.2, "high": 0.8}},
    }
    results = {"main_metric": "pearson", "overall": figures, "channels": {"a": {**figures, "pearson": None}}}
    plant_evaluation(workspace, plant_version(workspace), results)
    controls.ensure_control(workspace)
    _, page = read(report.write(workspace))
    assert "Pearson's r per channel" in page.text
    assert "0.500 (-0.200 to 0.800)" in page.text


def test_of_very_many_classes_the_most_mixed_up_are_drawn(workspace: Workspace) -> None:
    # Catches a figure nobody can read, which also took half a minute to draw.
    n = 60
    labels = [f"class number {i:02} with a long name" for i in range(n)]
    counts = [[50 if i == j else int(i >= 45 and j == 0) * i for j in range(n)] for i in range(n)]
    plant_evaluation(workspace, plant_version(workspace), results_of({"a": counts}, labels))
    controls.ensure_control(workspace)
    text, page = read(report.write(workspace))
    assert "Shown are the 20 of 60 classes with most mistakes" in page.text
    assert "class number 59 with a long name answered as class number 00 with a long name, 59 times" in page.text
    svg = text[text.index("Confusion matrix") :].split("</svg>")[0]
    assert svg.count("class number") == 40  # both axes


def test_overwhelming_evidence_can_be_drawn(workspace: Workspace) -> None:
    # E of 5,000 straight wins is beyond any axis.
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace))
    outcomes = [Outcome("a", False, True)] * 5000
    decision = Shadow.decide(Evidence(outcomes, n_requests=9000), {"alpha": 0.001})
    releases.decide(workspace, release, decision)
    _, page = read(report.write(workspace))
    assert "tone/2: put in charge" in page.text


def test_a_first_decision_without_evidence_from_traffic_is_no_comparison(workspace: Workspace) -> None:
    version = plant_version(workspace)
    controls.ensure_control(workspace)
    gate = {"gate": "drop", "passed": False, "figure": 0, "limit": 0, "reason": "fell"}
    releases.rejected_at_gate(workspace, version, [gate])
    _, page = read(report.write(workspace))
    assert "Candidate against control" not in page.text
    assert "failed before traffic. drop: fell" in page.text


def test_wrong_places_and_names_are_refused_and_leave_nothing(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such task"):
        report.write(workspace, task="ton")
    with pytest.raises(BadInput, match="is a folder"):
        report.write(workspace, path=tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unusable, match="cannot be written"):
        report.write(workspace, path=tmp_path / "file" / "report.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "ws"]
    assert report.write(workspace, path=tmp_path / "new" / "r.html").exists()


def test_without_matplotlib_the_extra_is_named(workspace: Workspace) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from headrace.console import report; from headrace.workspace import open_workspace\n"
        "report.write(open_workspace(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.root)], capture_output=True, text=True, check=False
    )
    assert "MissingExtra" in done.stderr
    assert "pip install 'headrace[train]'" in done.stderr


def test_markup_escapes_text_and_attributes() -> None:
    assert (
        element("p", "<b>", None, Html("<i></i>"), 3, class_='"x"').text
        == '<p class="&quot;x&quot;">&lt;b&gt;<i></i>3</p>'
    )
    assert join("a&b", None).text == "a&amp;b"
    assert "<script" not in table([SCRIPT], [[SCRIPT]], caption=SCRIPT).text


def test_smaller_versions_are_drawn_and_listed(workspace: Workspace) -> None:
    fill(workspace)
    version = plant_version(workspace)

    def candidate(name: str, times: float, points: float | None, *, within: bool) -> dict[str, object]:
        ends = {"low": None, "high": None} if points is None else {"low": points - 1, "high": points + 1}
        part = {"overall": {"n": 90, "points": points, **ends}}
        sides = {"validation": part, "test": part}
        return {"name": name, "points": sides, "speed_times": times, "n_bytes": 9e6, "within": within}

    found = {
        "version": version.name,
        "compressed_from": "tone/1",
        "chosen": "layers=0.5",
        "main_metric": "macro_f1",
        "max_drop": 0.5,
        "candidates": [
            {"name": "uncompressed", "points": {}, "speed_times": 1.0, "n_bytes": 2e7, "within": True},
            candidate("layers=0.5", 1.9, -0.31, within=True),
            candidate("heads=0.25", 1.3, -2.4, within=False),
            candidate("vocabulary=1", 1.0, None, within=True),
        ],
    }
    results = results_of({"fine": COUNTS}, LABELS, compression=found, uncompressed="tone/1")
    plant_evaluation(workspace, version, results, predictor="uncompressed")
    _, page = read(report.write(workspace))
    for words in (
        "Smaller versions",
        "layers=0.5",
        "-0.31",
        "1.90",
        "not known",
        "budget of 0.5 points",
        f"now {version.name}",
    ):
        assert words in page.text, words


def plant_pairs(ws: Workspace, release: Release, channel: Channel, n_won: int, n_lost: int) -> None:
    """Inputs of a shadow release on which just one of the two was right."""
    serving = controls.serving(ws)
    assert serving.candidate is not None
    for i in range(n_won + n_lost):
        control, candidate = ("negative", "positive") if i < n_won else ("positive", "negative")
        prediction, request = plant_answer(ws, channel, serving.control, control)
        plant_answer(ws, channel, serving.candidate, candidate, arm="shadow", request_id=request, release_id=release.id)
        plant_correction(ws, prediction, "positive")


def test_the_evidence_of_an_open_release_is_drawn_over_time_and_said_per_channel(workspace: Workspace) -> None:
    channels = [plant_channel(workspace, name) for name in ("web", "phone", SCRIPT)]
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace), options={"labels": "all"})
    plant_pairs(workspace, release, channels[0], 15, 1)
    plant_pairs(workspace, release, channels[1], 0, 3)
    text, page = read(report.write(workspace))
    for words in (
        "The open release", "Collecting: hold.", "tone/2 (shadow)", "inconclusive", "more labels would decide",
        "no request has come yet", "needed to decide", "after each label",
    ):  # fmt: skip
        assert words in page.text, words
    svg = text[text.index("Evidence for better and for worse by the number of labels") :].split("</svg>")[0]
    assert "web" in svg
    assert "phone" in svg
    assert svg.count('id="') == len(set(re.findall(r'id="([^"]+)"', svg)))
    assert not {"script"} & set(page.tags)
    releases.stop(workspace)
    _, page = read(report.write(workspace))
    assert "The last release, stopped" in page.text
    assert "Collecting" not in page.text


def test_of_many_channels_those_with_most_labels_are_drawn(workspace: Workspace) -> None:
    channels = [plant_channel(workspace, f"channel-{i:02}") for i in range(50)]
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace), options={"labels": "all"})
    for i, channel in enumerate(channels):
        plant_pairs(workspace, release, channel, 1 + (i >= 40), 0)
    text, page = read(report.write(workspace))
    assert "42 channels with fewer labels are not drawn." in page.text
    assert "10 channels with fewer labels are not shown." in page.text
    svg = text[text.index("by the number of labels, per channel") :].split("</svg>")[0]
    assert "channel-41" in svg
    assert "channel-01" not in svg


def test_a_canary_shows_its_guardrails(workspace: Workspace) -> None:
    channel = plant_channel(workspace, "web")
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace), policy="canary")
    with workspace.store.write() as conn:
        for arm in ("candidate", "baseline"):
            counts = Traffic(n_requests=90, n_units=90, n_errors=40 if arm == "candidate" else 0)
            traffic.put(conn, release.id, {(arm, channel.id, 0): counts}, source="s", now=NOON)
    _, page = read(report.write(workspace))
    for words in ("Guardrail fired: reject.", "40 of 90", "0 of 90", "fired", "quiet", "is tried (canary) since"):
        assert words in page.text, words


def test_values_are_shown_with_their_curves(workspace: Workspace) -> None:
    ends = {"estimate": 0.2, "low": 0.1, "high": 0.3, "level": 0.9}
    forecast = [{"n_rows": n, "error": ends} for n in (300, 600, 1200)]
    seen = [{"n_rows": n, "error": 0.3} for n in (75, 150, 300)]
    curve = {"n_rows": 300, "n_more": 100, "gain_points": ends, "seen": seen, "forecast": forecast}
    points = {"points": {**ends, "estimate": -3.25}}
    sources = [
        {"source": "<bad>", "n_rows": 300, "for": {"itself": None, "others": points, "all": points},
         "agreement": ends, "verdict": "harms", "whom": "others"},
    ]  # fmt: skip
    results = {
        "n_test_rows": 80, "harmful": ["<bad>"], "sources": sources,
        "curves": [{**curve, "channel": None}, {**curve, "channel": "web"}, {"channel": "few", "reason": "too few"}],
    }  # fmt: skip
    version = plant_version(workspace)
    plant_evaluation(workspace, version, results, predictor="value")
    text, page = read(report.write(workspace))
    for words in ("What each channel adds", "<bad> harms", "-3.25 (+0.10 to +0.30)", "harms others", "most to web"):
        assert words in page.text, words
    assert "all channels" in text.partition("Learning curves: share of wrong answers")[2]
