"""OpenVINO IR: an XML file that is IR and nothing else, whose constants lie in the file of weights beside it.

OpenVINO picks the reader by what a file looks like, so a file of another format under this name would go to another
reader, such as that of ONNX, which follows paths.
"""

from pathlib import Path
from typing import Any
from xml.parsers import expat

from headrace.errors import Damaged

_MAX_XML_BYTES = 256 * 2**20
_MAX_DEPTH = 200
_STARTS = (b"<?xml", b"<net")


def check(xml: Path, weights: Path) -> None:
    """Check that two files are an IR model.

    Raises:
        Damaged: they are not; the message says why.
    """
    try:
        if xml.is_symlink() or weights.is_symlink():
            raise ValueError("it is a link")
        if xml.stat().st_size > _MAX_XML_BYTES:
            raise ValueError("more XML than a model has")
        with xml.open("rb") as file:
            if not file.read(5).startswith(_STARTS):
                raise ValueError("it does not begin as IR does")
            file.seek(0)
            _Graph(weights.stat().st_size).read(file)
    except (OSError, ValueError, expat.ExpatError) as error:
        raise Damaged(
            f"not an OpenVINO model that can be used: {error}", value=str(xml), next_step="Export the version again"
        ) from None


class _Graph:
    """Reads IR element by element, and remembers only where it is."""

    def __init__(self, n_weight_bytes: int) -> None:
        self._n_weight_bytes, self._n_open = n_weight_bytes, 0
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse
        self._parser.EntityDeclHandler = _refuse
        self._parser.ProcessingInstructionHandler = _refuse

    def read(self, file: Any) -> None:
        self._parser.ParseFile(file)

    def _begin(self, tag: str, given: dict[str, str]) -> None:
        if self._n_open == 0 and tag != "net":
            raise ValueError(f"its root is {tag[:100]!r}")
        self._n_open += 1
        if self._n_open > _MAX_DEPTH:
            raise ValueError("elements inside elements without end")
        if tag == "data" and "offset" in given:
            place, n_bytes = _number(given["offset"]), _number(given.get("size", ""))
            if place + n_bytes > self._n_weight_bytes:
                raise ValueError("a constant lies outside of the weights")

    def _end(self, _tag: str) -> None:
        self._n_open -= 1


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"a place that is no number: {text[:100]!r}")
    return int(text)


def _refuse(*_: object) -> None:
    raise ValueError("declarations, which IR has none of")
