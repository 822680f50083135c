"""`headrace report`: one HTML file that says how a workspace stands, readable without network, scripts or headrace."""

import os
import uuid
from contextlib import suppress
from pathlib import Path

from headrace.console.facts import gather
from headrace.console.markup import Html, element, join
from headrace.console.style import CSS
from headrace.errors import BadInput, Unusable
from headrace.registry import resolve
from headrace.version import VERSION
from headrace.workspace import Workspace

FILE_NAME = "report.html"
# The page may load nothing and run nothing, whatever a label or a comment says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write(ws: Workspace, *, task: str | None = None, path: Path | str | None = None) -> Path:
    """Write the report of a workspace, of one task or of all; an earlier report there is replaced.

    Args:
        path: the file to write; `report.html` in the workspace when None.

    Raises:
        NotFound: no such task.
        MissingExtra: matplotlib is not installed.
        BadInput, Unusable: the path is a folder, or cannot be written.
    """
    task_page = resolve("headrace.console.sections:task_page", purpose="the report")
    names = sorted(ws.settings.tasks) if task is None else [ws.task_name(task)]
    sections = [task_page(gather(ws, name), f"task{i + 1}") for i, name in enumerate(names)]
    place = ws.root / FILE_NAME if path is None else Path(path).absolute()
    _replace(place, f"<!doctype html>\n{_page(ws, names, sections).text}\n")
    return place


def _page(ws: Workspace, names: list[str], sections: list[Html]) -> Html:
    title = f"{ws.root.name}: headrace report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Html(CSS)),
    )
    now = ws.clock()
    links = [element("li", element("a", name, href=f"#task{i + 1}")) for i, name in enumerate(names)]
    body = element(
        "body",
        element("h1", ws.root.name),
        element("p", f"headrace report of {now.day} {now:%B %Y, %H:%M} UTC", class_="quiet"),
        element("nav", element("ul", *links), aria_label="Tasks") if len(names) > 1 else None,
        element("main", *sections) if sections else element("p", "headrace.toml has no task yet."),
        element("footer", f"headrace {VERSION}, settings {ws.config_hash}", class_="quiet"),
    )
    return element("html", join(head, body), lang="en")


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    if path.is_dir():
        raise BadInput("the report's path is a folder", value=str(path), next_step=f"Name a file: {path / FILE_NAME}")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8")
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise Unusable(
            f"the report cannot be written: {error.strerror}", value=str(path), next_step="Choose another path"
        ) from None
