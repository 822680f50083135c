"""Formats a checkpoint can be exported to. One file each, with `write` and `load`.

To add one: copy hf.py; keep heavy imports inside this folder; add its line to BACKENDS. `load` must need no torch if
the backend is to serve. The conformance tests find it through the table.
"""

import sys

from headrace.registry import Registry

# `import openvino` and nncf report to Google Analytics without asking, from a fork of the process. Such a fork of one
# with threads can hang, with the serving worker's pipes open. Both libraries do without the package that reports.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

BACKENDS = Registry(
    "backends",
    {
        "openvino": "headrace.export.backends.openvino:OpenVINO",
        "hf": "headrace.export.backends.hf:HuggingFace",
    },
)
