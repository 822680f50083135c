"""What each source adds. Catches: a flipped channel that is not named, or an honest one that is; values that hang on
another side than test rows; feedback that counts as its channel's examples; values that are computed twice."""

import json
from pathlib import Path

import pytest

from headrace import valuing
from headrace.valuing import frozen
from headrace.workspace import Workspace
from vectored import make_up_vectors, plant_rows


@pytest.fixture
def ws(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    make_up_vectors(monkeypatch)
    return workspace


def test_a_flipped_channel_is_ranked_last_and_named(ws: Workspace, tmp_path: Path) -> None:
    plant_rows(ws, tmp_path, {"a": 200, "b": 200, "c": 200, "bad": 200}, flipped={"bad": 1.0})
    found = valuing.value(ws)
    assert json.loads(json.dumps(found)) == found
    assert [one["rank"] for one in found["sources"]] == [1, 2, 3, 4]
    assert found["sources"][-1]["source"] == "bad"
    assert found["harmful"] == ["bad"]
    bad = found["sources"][-1]
    assert (bad["verdict"], bad["whom"]) == ("harms", "others")
    assert bad["for"]["others"]["points"]["high"] < 0
    assert bad["for"]["itself"]["points"]["low"] > 0  # it teaches its own, wrong, labels
    assert bad["agreement"]["high"] < 0.5 < found["sources"][0]["agreement"]["low"]
    n_test = sum(one["for"]["itself"]["n"] for one in found["sources"])
    assert n_test == found["n_test_rows"]


def test_honest_channels_are_not_named_and_values_are_kept(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rows(ws, tmp_path, {"a": 150, "b": 150, "c": 30})
    found = valuing.value(ws)
    assert found["harmful"] == []
    assert all(one["for"]["others"]["points"]["high"] >= 0 for one in found["sources"])
    monkeypatch.setattr(frozen, "by_source", None)  # would be called again
    assert valuing.value(ws) == found
