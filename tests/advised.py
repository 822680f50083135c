"""What every sentence of a mentor must have."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import typer

from headrace.advising.sentences import Sentence
from headrace.cli.main import app


def check(sentences: Sequence[Any], about: str) -> list[Any]:
    """The sentences about one thing, of which each must have all that it promises."""
    plain = [one.as_json() if isinstance(one, Sentence) else one for one in sentences]
    assert json.loads(json.dumps(plain)) == plain
    for one in plain:
        assert one["verdict"] in ("act", "fine", "not known")
        assert "{" not in one["text"]
        assert one["text"].endswith(".")
        words = [word for word in shlex.split(one["command"])[1:] if not word.startswith("-")]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command.name != "headrace", one["command"]
        assert not hasattr(command, "commands"), one["command"]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in shlex.split(one["command"]) if word.startswith("-")} <= options, one["command"]
        if one["number"] is None:
            assert one["verdict"] == "not known"
        else:
            assert one["low"] <= one["number"] <= one["high"]
            assert "[" in one["text"]
    return [one for one in plain if one["about"] == about]


def verdicts(sentences: Sequence[Any], about: str) -> list[str]:
    return [one["verdict"] for one in check(sentences, about)]
