"""List the `except` bodies of headrace/ that no test executes, from what coverage.py saw.

    python -m pip install coverage
    python -m coverage run --parallel-mode -m pytest && python -m coverage combine && python -m coverage json
    python scripts/except_bodies.py coverage.json           # status 1 where there is one

A handler that nobody ever ran is where the second fault of an incident sits. A body that only passes an error on under
another name (raises) counts like all others.
"""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Body:
    """Of one `except`."""

    path: str
    line: int
    catches: str
    is_executed: bool


def main(arguments: list[str]) -> int:
    (report,) = arguments
    files = json.loads(Path(report).read_text("utf-8"))["files"]
    executed = {str(Path(name).resolve()): set(facts["executed_lines"]) for name, facts in files.items()}
    found = list(bodies(executed))
    missing = [one for one in found if not one.is_executed]
    for one in missing:
        print(f"{one.path}:{one.line}: except {one.catches}")
    print(f"{len(found) - len(missing)} of {len(found)} except bodies were executed")
    return 1 if missing else 0


def bodies(executed: dict[str, set[int]]) -> Iterator[Body]:
    """Every `except` of the files that coverage looked at.

    Args:
        executed: path to the numbers of the lines that ran.
    """
    for path in sorted((ROOT / "headrace").rglob("*.py")):
        lines = executed.get(str(path.resolve()))
        if lines is None:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                catches = "" if node.type is None else ast.unparse(node.type)
                # `pass` and `continue` have lines of their own; a body runs from its first line or not at all
                first = node.body[0]
                ran = bool(lines & set(range(first.lineno, (first.end_lineno or first.lineno) + 1)))
                yield Body(str(path.relative_to(ROOT)), node.lineno, catches, ran)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
