"""Reads the pages of README and docs/: their code blocks, links and headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = ("bash", "python")
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.S | re.M
)
_CONTINUES = re.compile(r"<!-- continues: (\S+) -->")
_SHOWS = re.compile(r"<!-- shows the error: (\w+) -->")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    line: int
    reason: str | None
    """Why it is not run."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(found["language"], found["body"], text.count("\n", 0, found.start("body")), found["reason"])
        for found in _FENCE.finditer(text)
    ]


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in RUNNABLE and block.reason is None]


def continues(page: Path) -> Path | None:
    """The page whose blocks come before this one's, in the same terminal."""
    found = _CONTINUES.search(page.read_text("utf-8"))
    return (page.parent / found[1]).resolve() if found else None


def refusals(page: Path) -> list[str]:
    """Codes of the errors that a page means to show."""
    return _SHOWS.findall(page.read_text("utf-8"))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
