"""Formats a checkpoint can be exported to. One file each, with `write` and `load`.

To add one: copy onnx_runtime.py; keep heavy imports inside this folder; add its line to BACKENDS. `load` must need no
torch if the backend is to serve. The conformance tests find it through the table.
"""

import os
import sys

from headrace.registry import Registry

# onnxruntime reports to its maker from Linux too, since 1.29 (its Privacy.md), unless told not to before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# `import openvino` and nncf report to Google Analytics without asking, from a fork of the process. Such a fork of one
# with threads can hang, with the serving worker's pipes open. Both libraries do without the package that reports.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

BACKENDS = Registry(
    "backends",
    {
        "openvino": "headrace.export.backends.openvino:OpenVINO",
        "onnxruntime": "headrace.export.backends.onnx_runtime:ONNXRuntime",
        "hf": "headrace.export.backends.hf:HuggingFace",
    },
)
