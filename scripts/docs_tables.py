"""Write the tables of docs/ that are taken from the code, between their `generated` marks.

    python scripts/docs_tables.py            # rewrite them
    python scripts/docs_tables.py --check    # status 1 and the names of the pages that are not as they would be written

A mark is `<!-- generated: NAME -->`, its end `<!-- end -->`; what stands between them is not edited by hand.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from bench_table import markdown as benchmarks
from bench_table import promises
from pydantic.fields import FieldInfo

import headrace
from headrace import config, errors
from headrace.access.scopes import ANY, OPEN, ROUTES, SCOPES
from headrace.cli.main import app
from headrace.finetune.compressing import WAYS
from headrace.finetune.methods import METHODS

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    check_only = arguments == ["--check"]
    stale = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        old = page.read_text("utf-8")
        new = _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", old)
        if new != old:
            stale.append(page)
            if not check_only:
                page.write_text(new, "utf-8")
    for page in stale:
        print(f"{'stale' if check_only else 'written'}: {page.relative_to(ROOT)}")
    return 1 if check_only and stale else 0


def settings() -> str:
    """Every key of headrace.toml with its default and meaning, a table per section."""
    parts = []
    for name, field in config.Settings.model_fields.items():
        parts += _section(*_inside(name, field))
    return "\n".join(parts)


def _section(name: str, table: type[config.Table]) -> list[str]:
    """Lines of a table of headrace.toml, and of the tables inside it."""
    meanings, rows, inside = _meanings(), [], []
    for key, field in table.model_fields.items():
        if config.table_of(field) is not None:
            inside += _section(*_inside(f"{name}.{key}", field))
        else:
            value = field.get_default(call_default_factory=True, validated_data={})
            default = "none" if value is None else _toml(value)
            rows.append((f"`{key}`", f"`{default}`", meanings[table.__name__, key]))
    return [f"### [{name}]", "", _table(("key", "default", "meaning"), rows), "", *inside]


def _inside(name: str, field: FieldInfo) -> tuple[str, type[config.Table]]:
    """Heading and keys of a table."""
    table = config.table_of(field)
    assert table is not None
    return f"{name}.NAME" if config.has_names(field) else name, table


def methods() -> str:
    """Every fine-tuning method: what it does, for which problems, and what it asks for."""
    rows = []
    for name, target in METHODS.targets().items():
        module = inspect.getdoc(import_module(target.partition(":")[0])) or ""
        says, _, rest = module.partition("\n")
        needs = " ".join(rest.split())
        method = METHODS.get(name)
        rate = f"{method.learning_rate:g}" if method.trains else ""
        rows.append((f"`{name}`", says.partition(": ")[2] or says, needs, rate))
    return _table(("method", "what it does", "requirements, cost, source", "learning rate"), rows) + "\n"


def ways() -> str:
    """Every way to compress: what is cut out, and how much of it stays by default."""
    rows = []
    for name, target in WAYS.targets().items():
        module = inspect.getdoc(import_module(target.partition(":")[0])) or ""
        says, _, rest = module.partition("\n")
        rows.append((f"`{name}`", says.partition(": ")[2], " ".join(rest.split()), f"{WAYS.get(name).share:g}"))
    return _table(("way", "what goes", "how, and source", "share that stays"), rows) + "\n"


def commands() -> str:
    """Every verb with its arguments and options."""
    parts = []
    for path, command in _verbs(typer.main.get_command(app), ["headrace"]):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([*path, *(_argument(p) for p in arguments), "[OPTIONS]"])
        parts += [f"### {' '.join(path)}", "", command.help, "", f"    {usage}", ""]
        rows = [(f"`{p.name.upper()}`", _meaning(p), _default(p)) for p in arguments]
        rows += [(_flags(p), _meaning(p), _default(p)) for p in options]
        parts += [_table(("", "meaning", "default"), rows), ""]
    return "\n".join(parts)


def scopes() -> str:
    """What a key can allow, with the routes that ask for it."""
    routes: dict[str, list[str]] = {}
    for (method, path), scope in ROUTES.items():
        if method != "HEAD":
            routes.setdefault(scope, []).append(f"`{method} {path}`")
    rows = [(f"`{scope}`", meaning, ", ".join(routes.get(scope, ()))) for scope, meaning in SCOPES.items()]
    rows += [("any key", "read about the interface", ", ".join(routes[ANY]))]
    rows += [("no key", "ask whether it is there", ", ".join(routes[OPEN]))]
    return _table(("scope", "with it one can", "routes"), rows) + "\n"


def error_codes() -> str:
    """Every error of the tree."""
    rows = []
    for kind in _kinds(errors.HeadraceError):
        if "code" in vars(kind):
            status = 2 if issubclass(kind, errors.UserError) else 1
            rows.append((f"`{kind.code}`", f"`{kind.__name__}`", kind.http_status, status, _yes(kind.retryable)))
    return _table(("code", "in Python", "HTTP", "exit status", "retryable"), rows) + "\n"


def python() -> str:
    """Every public name with the first line of its docstring."""
    rows = []
    for name, target in headrace._PUBLIC.items():
        says = inspect.getdoc(getattr(headrace, name)) or ""
        rows.append((f"`headrace.{name}`", says.partition("\n")[0], f"`{target}`"))
    return _table(("name", "", "where"), rows) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "commands": commands,
    "scopes": scopes,
    "errors": error_codes,
    "python": python,
    "methods": methods,
    "ways": ways,
    "benchmarks": benchmarks,
    "promises": promises,
}


def _meanings() -> dict[tuple[str, str], str]:
    """(table, key) to the string below the key in headrace/config/."""
    found = {}
    sources = [path.read_text("utf-8") for path in sorted(Path(config.__file__).parent.glob("*.py"))]
    for node in [node for source in sources for node in ast.parse(source).body]:
        if not isinstance(node, ast.ClassDef):
            continue
        for key, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(key, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(key.target, ast.Name):
                found[node.name, key.target.id] = ast.literal_eval(below.value)
    return found


def _verbs(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None or command.invoke_without_command:
        yield path, command
    if inner is None:
        return
    for name in inner:
        yield from _verbs(inner[name], [*path, name])


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))


def _meaning(parameter: Any) -> str:
    variable = f" Or `{parameter.envvar}` in the environment." if parameter.envvar else ""
    return f"{parameter.help or ''}{variable}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    if parameter.default is None or parameter.default == "":
        return ""
    if parameter.secondary_opts:
        return f"`{(parameter.opts if parameter.default else parameter.secondary_opts)[0]}`"
    return "" if parameter.default is False else f"`{parameter.default}`"


def _kinds(kind: type[errors.HeadraceError]) -> Iterator[type[errors.HeadraceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def _toml(value: object) -> str:
    if isinstance(value, bool | str | tuple | dict):
        return json.dumps(value)
    return str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _table(headings: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
