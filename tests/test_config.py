"""Settings: who wins, what is refused, what the hash says. Catches: a source that overrules a stronger one, a mistyped
key that is passed over, a hash that misses a value or sees more than values."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config import Settings
from headrace.config_sources import load
from headrace.errors import BadConfig

FULL = 'labels = ["a", "b"]\n'


def write(root: Path, text: str) -> Path:
    (root / "headrace.toml").write_text(text, "utf-8")
    return root


def source_of(shown: list[Any], key: str) -> tuple[object, str]:
    (found,) = [(one.value, one.source) for one in shown if one.key == key]
    return found


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    key, variable = "serve.port", {"HEADRACE_SERVE__PORT": "2"}
    assert source_of(load(tmp_path, environ={})[1], key) == (8000, "default")
    write(tmp_path, "[serve]\nport = 1\n")
    assert source_of(load(tmp_path, environ={})[1], key) == (1, "file")
    assert source_of(load(tmp_path, environ=variable)[1], key) == (2, "environment")
    found, shown = load(tmp_path, environ=variable, overrides={key: "3"})
    assert (found.serve.port, source_of(shown, key)) == (3, (3, "command line"))
    assert source_of(shown, "serve.host") == ("127.0.0.1", "default")


def test_an_option_that_was_not_given_overrules_nothing(tmp_path: Path) -> None:
    write(tmp_path, "[serve]\nport = 1\n")
    assert load(tmp_path, environ={}, overrides={"serve.port": None})[0].serve.port == 1


def test_the_own_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_FINETUNE__SEED", "7")
    assert load(tmp_path)[0].finetune.seed == 7


def test_every_setting_is_shown_once(tmp_path: Path) -> None:
    write(tmp_path, f'[tasks.tone]\n{FULL}[tasks.mood]\ntype = "text-regression"\n')
    keys = [one.key for one in load(tmp_path, environ={})[1]]
    assert len(keys) == len(set(keys))
    assert {"tasks.tone.labels", "tasks.mood.type", "store.url", "feedback.min_new_labels"} <= set(keys)


def test_variables_reach_a_task_whose_name_has_capitals(tmp_path: Path) -> None:
    write(tmp_path, f"[tasks.Tone_1]\n{FULL}")
    found, _ = load(tmp_path, environ={"HEADRACE_TASKS__TONE_1__MAX_TOKENS": "64"})
    assert {name: task.max_tokens for name, task in found.tasks.items()} == {"Tone_1": 64}


@pytest.mark.parametrize(
    ("text", "environ", "overrides", "says"),
    [
        ("[serve]\nprot = 1\n", {}, {}, r"unknown key in the file: serve\.prot\. Did you mean 'port'\?"),
        ("", {"HEADRACE_SERVE__PROT": "1"}, {}, r"in the environment: serve\.prot\. Did you mean 'port'\?"),
        ("", {}, {"serve.prot": "1"}, r"in the command line: serve\.prot\. Did you mean 'port'\?"),
        ("", {}, {"servce.port": "1"}, r"servce\. Did you mean 'serve'\?"),
        ("", {}, {"tasks.tone.labls": "1"}, r"tasks\.tone\.labls\. Did you mean 'labels'\?"),
        ("", {}, {"serve": "1"}, "unusable value for serve"),
        ("", {}, {"": "1"}, "unknown key"),
        ("", {}, {"serve.": "1"}, "unknown key"),
        ("", {}, {"serve..port": "1"}, "unknown key"),
        ("", {"HEADRACE_SERVE_PORT": "1"}, {}, "HEADRACE_SERVE__PORT"),
        ("serve = 1\n", {"HEADRACE_SERVE__PORT": "1"}, {}, "a value elsewhere, and a table in the environment"),
        ("[serve]\nport = 1\n", {}, {"serve.port.x": "1"}, "a value elsewhere, and a table in the command line"),
        ("[serve]\nport = true\n", {}, {}, "true and false are no value here: True"),
        ("[serve]\nport = 1.5\n", {}, {}, "unusable value for serve.port"),
        ("[finetune]\nepochs = inf\n", {}, {}, "unusable value for finetune.epochs"),
        ("[finetune]\nlearning_rate = nan\n", {}, {}, "unusable value for finetune.learning_rate"),
        ("[finetune]\nlearning_rate = -1\n", {}, {}, "unusable value for finetune.learning_rate"),
        ("[store]\nbusy_timeout_s = -1\n", {}, {}, "unusable value for store.busy_timeout_s"),
        ('[tasks."a.b"]\n', {}, {}, "a task's name"),
        ('[tasks."a/b"]\n', {}, {}, "a task's name"),
        ("[serve\n", {}, {}, "headrace.toml cannot be read"),
    ],
)
def test_what_cannot_be_is_told(
    text: str, environ: dict[str, str], overrides: dict[str, object], says: str, tmp_path: Path
) -> None:
    write(tmp_path, text)
    with pytest.raises(BadConfig, match=says):
        load(tmp_path, environ=environ, overrides=overrides)


def test_other_variables_are_let_be(tmp_path: Path) -> None:
    environ = {"HEADRACE_WORKSPACE": "/x", "HEADRACER__X": "1", "PATH": os.environ.get("PATH", "")}
    assert load(tmp_path, environ=environ)[0] == Settings()


# Valid values of every setting that is no table of tasks, drawn from its own schema.
_WORDS = st.text("abc XYZ'\"\\é\t", max_size=8)


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "boolean":
        return st.booleans()
    if "prefixItems" in schema:
        return st.tuples(*map(_values, schema["prefixItems"])).map(list)
    if schema.get("type") == "array":
        return st.lists(_values(schema["items"]), max_size=3)
    if "anyOf" in schema:
        return _values(next(one for one in schema["anyOf"] if one["type"] != "null"))
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1000 if schema["type"] == "integer" else 0.001))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1_000_000))
    if schema["type"] == "integer":
        return st.integers(low, high)
    if schema["type"] == "number":
        inside = math.nextafter(low, high) if "exclusiveMinimum" in schema else low
        return st.floats(inside, math.nextafter(high, low), allow_subnormal=False)
    return _WORDS


def _settings() -> st.SearchStrategy[dict[str, Any]]:
    schema = Settings.model_json_schema()
    keys: dict[str, st.SearchStrategy[Any]] = {}

    def add(prefix: str, properties: dict[str, Any]) -> None:
        for name, one in properties.items():
            if "$ref" in one:
                add(f"{prefix}{name}.", schema["$defs"][one["$ref"].rpartition("/")[2]]["properties"])
            elif "patternProperties" in one:  # a table of tables, by names of the user
                (inside,) = one["patternProperties"].values()
                add(f"{prefix}{name}.kept.", schema["$defs"][inside["$ref"].rpartition("/")[2]]["properties"])
            elif name != "tasks" and one.get("type") != "object":  # of names of the user, with values
                keys[f"{prefix}{name}"] = _values(one)

    add("", schema["properties"])
    return st.fixed_dictionaries({}, optional=keys)


def _as_text(value: object) -> str:
    """A value as variables and options write it."""
    return json.dumps(value) if isinstance(value, list) else str(value)


def _as_toml(value: object) -> str:
    if isinstance(value, str):
        plain = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in value)
        return f'"{plain}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=_settings())
def test_what_is_written_is_what_is_read_from_wherever_it_comes(tmp_path: Path, values: dict[str, Any]) -> None:
    """The same values from file, variables and command line give the same settings and the same hash."""
    write(tmp_path, "".join(f"{key} = {_as_toml(value)}\n" for key, value in values.items()))
    from_file, shown = load(tmp_path, environ={})
    write(tmp_path, "")
    environ = {f"HEADRACE_{k.upper().replace('.', '__')}": _as_text(v) for k, v in values.items()}
    from_environment, _ = load(tmp_path, environ=environ)
    from_command_line, _ = load(tmp_path, environ={}, overrides={k: _as_text(v) for k, v in values.items()})
    assert from_file == from_environment == from_command_line
    assert from_file.hash() == from_environment.hash() == from_command_line.hash()
    found = {one.key: one.value for one in shown}
    assert all(found[key] == value for key, value in values.items())
    assert {one.key for one in shown if one.source == "file"} == set(values)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=_settings(), data=st.data())
def test_the_hash_changes_with_a_value(tmp_path: Path, values: dict[str, Any], data: st.DataObject) -> None:
    write(tmp_path, "")
    before = load(tmp_path, environ={}, overrides=values)[0]
    changed = data.draw(_settings().filter(bool))
    after = load(tmp_path, environ={}, overrides=values | changed)[0]
    assert (before.hash() == after.hash()) == (before == after)


def test_the_hash_sees_values_only(tmp_path: Path) -> None:
    write(tmp_path, f"[serve]\nport = 9\n[finetune]\nseed = 2\n[tasks.tone]\n{FULL}")
    one = load(tmp_path, environ={})[0].hash()
    write(tmp_path, f"# note\n[tasks.tone]\n{FULL}[finetune]\nseed=2\nepochs = 3.0\n[serve]\nport = 9\n")
    assert load(tmp_path, environ={})[0].hash() == one
    assert len(one) == 16


def test_the_hash_sees_the_order_of_labels(tmp_path: Path) -> None:
    hashes = set()
    for labels in ('["a", "b"]', '["b", "a"]'):
        hashes.add(load(write(tmp_path, f"[tasks.tone]\nlabels = {labels}\n"), environ={})[0].hash())
    assert len(hashes) == 2


def entries(root: Path, *lines: str) -> Path:
    (root / "faq.jsonl").write_text("\n".join(lines), "utf-8")
    return write(root, '[tasks.faq]\ntype = "retrieval"\ncatalogue = "faq.jsonl"\n')


def test_a_catalogue_gives_labels_and_descriptions_in_its_order(tmp_path: Path) -> None:
    entries(tmp_path, '{"label": "b.two", "text": "Two", "at": 5}', "", '{"label": "a", "text": "One"}')
    found, shown = load(tmp_path, environ={})
    task = found.tasks["faq"]
    assert (task.labels, task.descriptions) == (("b.two", "a"), {"b.two": "Two", "a": "One"})
    assert source_of(shown, "tasks.faq.descriptions") == ({"b.two": "Two", "a": "One"}, "file")
    before = found.hash()
    entries(tmp_path, '{"label": "b.two", "text": "Two"}', '{"label": "a", "text": "Another"}')
    assert load(tmp_path, environ={})[0].hash() != before


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"label": "a", "text": "b"}', "no json"], "line 2"),
        (["[1]"], "line 1"),
        (['{"label": 1, "text": "b"}'], "line 1"),
        (['{"label": "a", "text": " "}'], "line 1"),
        (['{"label": "a"}'], "line 1"),
        (['{"label": "a", "text": "b"}', "", '{"label": "a", "text": "c"}'], "line 3.*earlier"),
        (["[" * 100_000], "line 1"),
    ],
)
def test_a_bad_catalogue_is_told_by_its_line(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        load(entries(tmp_path, *lines), environ={})


def test_a_catalogue_that_is_not_there_or_not_alone_is_told(tmp_path: Path) -> None:
    write(tmp_path, '[tasks.faq]\ncatalogue = "none.jsonl"\n')
    with pytest.raises(BadConfig, match=r"none\.jsonl"):
        load(tmp_path, environ={})
    entries(tmp_path, '{"label": "a", "text": "b"}')
    with pytest.raises(BadConfig, match="beside its catalogue"):
        load(tmp_path, environ={"HEADRACE_TASKS__FAQ__LABELS": '["x"]'})


def test_lists_and_tables_are_json_in_variables_and_options(tmp_path: Path) -> None:
    write(tmp_path, f"[tasks.tone]\n{FULL}")
    variables = {"HEADRACE_TASKS__TONE__LABELS": '["x", "y"]', "HEADRACE_SEARCH__EPOCHS": "[1, 2]"}
    given = {"finetune.augment.kinds": '["swap"]', "tasks.tone.descriptions": ' {"x": "[1]"}'}
    given["search.learning_rate"] = "[1e-5, 1e-4]"
    found = load(tmp_path, environ=variables, overrides=given)[0]
    assert (found.tasks["tone"].labels, found.tasks["tone"].descriptions) == (("x", "y"), {"x": "[1]"})
    assert (found.search.epochs, found.search.learning_rate) == ((1, 2), (1e-5, 1e-4))
    assert found.finetune.augment.kinds == ("swap",)


def test_text_that_looks_like_json_stays_text_where_text_is_wanted(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"HEADRACE_STORE__URL": "[x"})[0].store.url == "[x"


@pytest.mark.parametrize("raw", ["[1", '{"a": }', "[" * 100_000])
def test_broken_json_names_its_setting(tmp_path: Path, raw: str) -> None:
    with pytest.raises(BadConfig, match=r"search\.epochs is not JSON"):
        load(tmp_path, environ={}, overrides={"search.epochs": raw})


def test_descriptions_may_be_of_labels_with_dots(tmp_path: Path) -> None:
    write(tmp_path, f'[tasks.tone]\n{FULL}[tasks.tone.descriptions]\n"a.b" = "x"\nc = "y"\n')
    assert load(tmp_path, environ={})[0].tasks["tone"].descriptions == {"a.b": "x", "c": "y"}
