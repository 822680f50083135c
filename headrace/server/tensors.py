"""Tensors as the Open Inference Protocol sends them: in JSON, or behind the JSON as bytes.

The protocol: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md. Bytes behind JSON:
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md, which tritonclient sends by default;
little-endian, texts each behind their length in four bytes.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import Field, StrictBool, StrictInt, ValidationError

from headrace.errors import BadInput
from headrace.server.bodies import Closed, Text, storable
from headrace.server.strictness import loads

JSON_LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and bytes begin."""
_LENGTH = struct.Struct("<I")


class _InputParameters(Closed):
    binary_data_size: StrictInt | None = Field(default=None, ge=0)


class _InputTensor(Closed):
    name: Text
    shape: list[StrictInt]
    datatype: str
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | None = None


class _OutputParameters(Closed):
    binary_data: StrictBool | None = None


class _RequestedOutput(Closed):
    name: Text
    parameters: _OutputParameters = _OutputParameters()


class Parameters(Closed):
    """What may be said about a whole request."""

    channel: Text | None = None
    unit: Text | None = None
    timeout: StrictInt | None = Field(default=None, gt=0)
    """Microseconds, as tritonclient counts them."""
    binary_data_output: StrictBool = False


class TensorRequest(Closed):
    """The JSON of a request."""

    id: Text | None = None
    parameters: Parameters = Parameters()
    inputs: list[_InputTensor]
    outputs: list[_RequestedOutput] | None = None

    def is_binary(self, name: str) -> bool:
        """Whether an output is to come as bytes."""
        asked = next((output.parameters.binary_data for output in self.outputs or () if output.name == name), None)
        return self.parameters.binary_data_output if asked is None else asked


@dataclass(frozen=True)
class Tensor:
    """Texts (BYTES) or numbers (FP32), row by row."""

    name: str
    datatype: str
    shape: list[int]
    values: Sequence[Any]


def parse(body: bytes, json_length: str | None) -> tuple[TensorRequest, dict[str, list[str]]]:
    """(request, input name to its N texts).

    Args:
        json_length: the header JSON_LENGTH; without it, the whole body is JSON.

    Raises:
        RequestValidationError: the JSON has another shape.
        BadInput: it is no JSON; a tensor has no texts, another shape or size than it says, or one name comes twice.
    """
    end = _json_end(json_length, len(body))
    try:
        request = TensorRequest.model_validate(loads(body[:end]))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None
    except (ValueError, RecursionError) as error:
        problem = "lists and objects too deep within each other" if isinstance(error, RecursionError) else error
        raise BadInput(
            f"the body cannot be read as JSON: {problem}", next_step=f"Bytes behind the JSON need {JSON_LENGTH}"
        ) from None
    rest, texts = body[end:], {}
    for tensor in request.inputs:
        if tensor.name in texts:
            raise BadInput("an input comes twice", value=tensor.name, next_step="Send each once")
        size = tensor.parameters.binary_data_size
        if size is None:
            given = _from_json(tensor)
        else:
            given, rest = _from_bytes(tensor, rest[:size]), rest[size:]
        texts[tensor.name] = _checked(tensor, given)
    if rest:
        raise BadInput(
            "bytes behind the inputs that belong to none",
            value=f"{len(rest)} bytes",
            next_step="Give each input its binary_data_size",
        )
    return request, texts


def render(head: Mapping[str, Any], tensors: Sequence[Tensor], request: TensorRequest) -> tuple[bytes, int | None]:
    """(body of an answer, length of its JSON if bytes follow); each output in the form that the request wants."""
    outputs, behind = [], []
    for tensor in tensors:
        facts: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if request.is_binary(tensor.name):
            packed = _packed(tensor)
            behind.append(packed)
            outputs.append(facts | {"parameters": {"binary_data_size": len(packed)}})
        else:
            outputs.append(facts | {"data": tensor.values})
    written = json.dumps({**head, "outputs": outputs}, ensure_ascii=False, allow_nan=False).encode()
    return b"".join([written, *behind]), len(written) if behind else None


def _json_end(json_length: str | None, n_bytes: int) -> int:
    if json_length is None:
        return n_bytes
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 12 and int(json_length) <= n_bytes):
        raise BadInput(
            f"{JSON_LENGTH} is not a length within the body",
            value=json_length,
            next_step="Send the length of the JSON in bytes",
        )
    return int(json_length)


def _from_json(tensor: _InputTensor) -> list[Any]:
    if tensor.data is None:
        raise BadInput("an input has no data", value=tensor.name, next_step="Send data, or bytes and binary_data_size")
    flat = [one for row in tensor.data for one in (row if isinstance(row, list) else [row])]
    for place, text in enumerate(flat):
        if not isinstance(text, str):
            raise BadInput(f"{tensor.name}[{place}] is not a text", value=text, next_step="Send texts")
    return flat


def _from_bytes(tensor: _InputTensor, raw: bytes) -> list[str]:
    if tensor.data is not None or len(raw) != tensor.parameters.binary_data_size:
        raise BadInput(
            "an input has both data and binary_data_size, or fewer bytes than that",
            value=tensor.name,
            next_step="Send data in the JSON, or all bytes behind it",
        )
    try:
        return [str(element, "utf-8") for element in _elements(raw)]
    except (struct.error, IndexError):
        problem, next_step = "ends within a text", "Put the length of each text before it, in four bytes"
    except UnicodeDecodeError:
        problem, next_step = "is not UTF-8", "Encode texts as UTF-8"
    raise BadInput(f"the data of an input {problem}", value=tensor.name, next_step=next_step)


def _elements(raw: bytes) -> Iterator[bytes]:
    """The texts of `raw`. Raises struct.error or IndexError where it ends within one."""
    at = 0
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size + length
        if at > len(raw):
            raise IndexError(at)
        yield raw[at - length : at]


def _checked(tensor: _InputTensor, texts: list[str]) -> list[str]:
    """`texts`, if they are what the tensor says of them."""
    if tensor.datatype != "BYTES":
        raise BadInput(f"the input {tensor.name} is text", value=tensor.datatype, next_step="Its datatype is BYTES")
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise BadInput(
            f"the input {tensor.name} has {len(texts)} texts",
            value=f"shape {tensor.shape}",
            next_step=f"Its shape is [{len(texts)}] or [{len(texts)}, 1]",
        )
    for place, text in enumerate(texts):
        try:
            storable(text)
        except ValueError as error:
            raise BadInput(f"{tensor.name}[{place}]: {error}", value=text, next_step="Take it out") from None
    return texts


def _packed(tensor: Tensor) -> bytes:
    if tensor.datatype == "FP32":
        return struct.pack(f"<{len(tensor.values)}f", *tensor.values)
    encoded = [value.encode() for value in tensor.values]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))
