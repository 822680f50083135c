"""Handlers of errors. Catches: a handler of every error that does not say why it may, and one that no test runs but the
script that looks for those does not see."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "headrace").rglob("*.py"))


def test_a_handler_of_every_error_says_why_it_may() -> None:
    """Beside it: which border it is, or what the library does."""
    silent = []
    for path in FILES:
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node):
                near = lines[node.lineno - 1 : node.body[0].lineno]
                raises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
                if not raises and not any(re.search(r"# \w", line) for line in near):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")


@pytest.mark.parametrize(("executed", "status", "said"), [([3, 4, 5], 0, "1 of 1"), ([3, 4], 1, "except ValueError")])
def test_the_script_tells_bodies_that_never_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executed: list[int], status: int, said: str
) -> None:
    (tmp_path / "headrace").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "headrace" / "one.py").write_text("try:\n    int('x')\nexcept ValueError:\n    # why\n    x = 1\n")
    script = tmp_path / "scripts" / "except_bodies.py"
    script.write_text((ROOT / "scripts" / "except_bodies.py").read_text())
    report = f'{{"files": {{"{tmp_path}/headrace/one.py": {{"executed_lines": {executed}}}}}}}'
    (tmp_path / "coverage.json").write_text(report)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "coverage.json")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stdout) == (status, True)
