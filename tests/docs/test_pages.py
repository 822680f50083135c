"""README and docs/ against the code. Catches: a link to nowhere, a stale table, a name that nobody documented, a banned
word in a public name, a changelog behind the version, a path of somebody's machine in a file."""

import re
import subprocess
from pathlib import Path

import bench_table
import docs_tables
import pytest
import typer

import headrace
from docs.pages import PAGES, ROOT, anchors, links, name_of
from headrace import config, errors
from headrace.cli.main import app
from headrace.data.sources import SOURCES
from headrace.export import BACKENDS
from headrace.finetune.base_models import PACKAGED
from headrace.finetune.compressing import WAYS
from headrace.finetune.methods import METHODS
from headrace.registry import Registry
from headrace.release.policies import POLICIES
from headrace.server.app import create_app
from headrace.server.plane import ControlPlane
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace

REGISTRIES = (SOURCES, TASK_TYPES, METHODS, WAYS, BACKENDS, POLICIES)
BANNED = ("dataset version", "variant", "inference", "experiment", "deployment", "manager")
DOCS = "\n".join(page.read_text("utf-8") for page in PAGES)
_HOME = re.compile(r"(?<![\w.{$])/(?:home|root|Users|work|tmp/w)/\w")
_REGISTRY_HOST = re.compile(
    r"\b(?:files\.pythonhosted|test\.pypi|pypi|registry\.npmjs|proxy\.golang|download\.pytorch)\.org"
)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
    assert set(PAGES) <= seen


def test_generated_tables_are_as_the_scripts_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs_tables.main(["--check"]) == 0, f"run: python scripts/docs_tables.py\n{capsys.readouterr().out}"


def test_the_bench_table_shows_each_result_once(tmp_path: Path) -> None:
    assert bench_table.markdown(tmp_path) == bench_table.NONE_YET
    from bench.reporting import Measured, write

    rows = [
        Measured("a | b", 1234.5, "rows/s", "the loop", 8.25, 1200, 1300),
        Measured("small", 0.00012, "share"),
        Measured("bytes", 5.5, "", "target"),
    ]
    write("toy", rows, [1, 2], folder=tmp_path)
    shown = bench_table.markdown(tmp_path)
    assert "### toy" in shown
    assert "| a \\| b | 1,234 rows/s | 1,200 to 1,300 | 8.25 x the loop |" in shown
    assert "| small | 0.000120 share |  |  |" in shown
    assert "| bytes | 5.5 |  | target |" in shown
    assert "seeds 1, 2." in shown


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_registered_name_is_documented(registry: Registry) -> None:
    for name in registry.names():
        assert f"`{name}`" in DOCS, name
    assert f"headrace.{registry.kind}" in DOCS


def test_every_task_type_has_a_page() -> None:
    for name in TASK_TYPES.names():
        assert (ROOT / "docs" / "tasks" / f"{name}.md").exists()


def test_every_base_model_and_public_name_is_documented() -> None:
    for name in [*PACKAGED, *headrace._PUBLIC]:
        assert name in DOCS, name


def test_every_verb_has_its_help_in_the_reference() -> None:
    reference = (ROOT / "docs" / "cli.md").read_text("utf-8")
    verbs = [" ".join(path) for path, _ in docs_tables._verbs(typer.main.get_command(app), ["headrace"])]
    assert len(verbs) > 20
    for verb in verbs:
        assert f"### {verb}\n" in reference


def test_every_setting_says_what_it_means() -> None:
    meanings = docs_tables._meanings()
    tables = [table for field in config.Settings.model_fields.values() if (table := config.table_of(field))]
    for table in tables:  # which grows by the tables inside
        for key, field in table.model_fields.items():
            if inner := config.table_of(field):
                tables.append(inner)
            else:
                assert meanings.get((table.__name__, key)), f"{table.__name__}.{key}"


def test_every_error_code_has_advice_and_is_drawn_in_the_tree() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    advice = page.partition("## What to do")[2]
    for kind in docs_tables._kinds(errors.HeadraceError):
        assert f"| `{kind.code}` |" in advice
        assert kind.__name__ in str(errors.__doc__)


def test_every_route_is_documented(workspace: Workspace) -> None:
    page = (ROOT / "docs" / "http.md").read_text("utf-8")
    schema = create_app(ControlPlane(workspace)).openapi()
    assert len(schema["paths"]) >= 6
    for path, methods in schema["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page


def test_every_metric_is_documented(workspace: Workspace) -> None:
    page = (ROOT / "docs" / "http.md").read_text("utf-8")
    text = ControlPlane(workspace).metrics.text().decode()
    names = re.findall(r"^# TYPE (headrace_\w+) (?!gauge.*_created)", text, re.M)
    for name in names:
        assert name.endswith("_created") or f"`{name}`" in page, name


def test_every_reason_of_quarantine_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "headrace" / "data").rglob("*.py"))
    pattern = r'(?:error=|_RefusedError\(\s*|raw\[:1000\], |raw, |row\.line, |return |else )"([a-z_]+)"(?:, )'
    reasons = set(re.findall(pattern, source))
    assert reasons >= {
        "missing_text",
        "unknown_label",
        "wrong_encoding",
        "nul",
        "too_long",
        "unreadable",
        "duplicate_id",
    }
    for reason in reasons:
        assert f"| `{reason}` |" in page, reason


def test_public_names_use_no_banned_word() -> None:
    verbs = [w for path, _ in docs_tables._verbs(typer.main.get_command(app), []) for w in path]
    keys = [key for table in (config.Settings, config.TaskTable) for key in table.model_fields]
    keys += [key for f in config.Settings.model_fields.values() for key in getattr(type(f.default), "model_fields", [])]
    names = [*headrace.__all__, *verbs, *keys, *(name for registry in REGISTRIES for name in registry.names())]
    for name in names:
        plain = re.sub(r"(?<!^)(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").lower()
        assert not [word for word in BANNED if word in plain], name


def test_the_glossary_holds_the_words_of_the_records() -> None:
    words = set(re.findall(r"^\| ([a-z ]+) \|", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.M))
    assert words >= {
        "task", "task type", "channel", "example", "label", "target", "snapshot", "base model", "method", "adapter",
        "run", "job", "checkpoint", "artifact", "model version", "evaluation", "gate", "release", "arm", "policy",
        "unit", "assignment", "prediction", "feedback", "outcome", "ledger", "trigger", "drift",
    }  # fmt: skip


def test_changelog_and_version_agree() -> None:
    found = re.search(r"^## \[([^\]]+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert found is not None
    assert found[1] == headrace.__version__


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text("utf-8", errors="replace")
        for pattern in (_HOME, _REGISTRY_HOST):
            found = pattern.search(text)
            assert found is None, f"{name}: {found[0]}"
