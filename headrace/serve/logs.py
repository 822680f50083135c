"""Logs of server and workers: lines of text or of JSON, never with what a request said.

The message of an exception that nobody foresaw may quote an input, so only its type and where it was raised are kept.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]


def set_up(log_format: LogFormat, *, process: str) -> None:
    """Have this process log to stderr.

    Args:
        process: what the lines say they come from.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(process) if log_format == "json" else _Text(process))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("headrace").setLevel(logging.INFO)


class _Text(logging.Formatter):
    """`process: message`, and below it where an exception came from."""

    def __init__(self, process: str) -> None:
        super().__init__(f"{process}: %(message)s")

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's own name
        return "\n".join(f"  {line}" for line in where(ei[1]))


class _Json(logging.Formatter):
    """One object a line; what `extra={"facts": {...}}` holds is part of it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["where"] = where(record.exc_info[1])
        return json.dumps(line, default=str)


def where(error: BaseException) -> list[str]:
    """Type and place of an exception and of what caused it, the cause first, without their messages."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return [*(where(cause) if cause is not None else ()), *frames, type(error).__name__]
