"""Formats a checkpoint can be exported to. One file each, with `write` and `load`.

To add one: copy hf.py; keep heavy imports inside this folder; add its line to BACKENDS. `load` must need no torch if
the backend is to serve. The conformance tests find it through the table.
"""

from headrace.registry import Registry

BACKENDS = Registry(
    "backends",
    {
        "openvino": "headrace.export.backends.openvino:OpenVINO",
        "hf": "headrace.export.backends.hf:HuggingFace",
    },
)
