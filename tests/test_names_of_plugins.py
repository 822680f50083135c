"""Names to implementations. Catches: a request that looks through all installed packages, which takes milliseconds; a
plug-in that takes a built-in name, or is not seen because somebody asked before it was installed."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from headrace import registry
from headrace.errors import AlreadyExists, NotFound
from headrace.registry import Registry


def test_installed_packages_are_looked_through_once_for_each_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[EntryPoint] = []
    asked: list[str] = []

    def entry_points(*, group: str) -> Any:
        asked.append(group)
        return installed

    monkeypatch.setattr(registry, "entry_points", entry_points)
    table = Registry("things", {"a": "math:pi"})
    assert {table.get("a") for _ in range(3)} == {table.get("a")}
    assert asked == ["headrace.things"]
    with pytest.raises(NotFound, match="'a'"):
        table.get("aa")
    installed.append(EntryPoint("b", "math:e", "headrace.things"))
    assert table.get("b") > 2.7
    assert table.names() == ["a", "b"]
    installed.append(EntryPoint("a", "math:e", "headrace.things"))
    with pytest.raises(AlreadyExists, match="redefine"):
        table.names()
