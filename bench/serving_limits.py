"""What bounds a server's rows a second: the engine without a server, and the machine's int8 products without an engine.

`engine`: the exported model in as many processes, with as many threads each, as the server has, on the same texts.
`products`: the matrix products of the model's linear layers alone, one after the other on int8 numbers, by OpenVINO (a
graph of nothing else) and by torch._int_mm. Both are measured, and the faster is the machine's limit: what an engine
that spends no time on attention, norms, activations and tokens would answer.

`processes.run` has each in processes of their own.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from bench import processes
from bench.serving_material import material

N_LAYERS, WIDTH, INNER = 6, 384, 1536  # of MiniLM-L6
_LOADS_S = 8  # what a process takes until it can begin
_N_TOKENS = 2048  # of a product: what a busy worker's batch has


def engine_rows_per_s(n_workers: int, n_threads: int, seconds: float, n_rows: int) -> float:
    """Of all processes together, `n_rows` in a call."""
    return _together({"kind": "engine", "n_threads": n_threads, "n_rows": n_rows, "seconds": seconds}, n_workers)


def products_tokens_per_s(kind: str, n_threads: int, seconds: float) -> float:
    return _together({"kind": kind, "n_threads": n_threads, "seconds": seconds}, 1)


def _together(job: dict[str, Any], n_processes: int) -> float:
    """Sum of what several processes say that begin at about the same moment."""
    with ThreadPoolExecutor(n_processes) as pool:
        given = [{**job, "begins_at": time.time() + _LOADS_S} for _ in range(n_processes)]
        found = list(pool.map(lambda one: processes.run("bench.serving_limits", one), given))
    for one in found:
        if "error" in one:
            raise RuntimeError(one["error"])
    return float(sum(one["per_s"] for one in found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=json.loads, required=True)
    job = parser.parse_args().job
    work, n_units = _KINDS[job["kind"]](job)
    for _ in range(3):
        work()
    time.sleep(max(0.0, job["begins_at"] - time.time()))
    n_calls, began_at = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_at) < job["seconds"]:
        work()
        n_calls += 1
    processes.give(job, {"per_s": n_calls * n_units / elapsed_s})


def _engine(job: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    from headrace.export import load

    given = material()
    predictor, _ = load(given.artifact, n_threads=job["n_threads"])
    texts, n_rows = [row.text for row in given.asked], job["n_rows"]
    calls = _for_ever([texts[i : i + n_rows] for i in range(0, len(texts) - n_rows + 1, n_rows)])
    predictor.logits(texts)
    return lambda: predictor.logits(next(calls)), n_rows


def _for_ever(calls: list[list[str]]) -> Iterator[list[str]]:
    while True:
        yield from calls


def _widths() -> list[int]:
    """Of the numbers between the products: query, key, value and output, then up and down, in each layer."""
    return [WIDTH, *([WIDTH] * 4 + [INNER, WIDTH]) * N_LAYERS]


def _openvino(job: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    """A chain of products whose inputs and weights are int8, as NNCF writes them."""
    import openvino as ov
    from openvino import opset13 as ops

    rng = np.random.default_rng(1)
    given = x = ops.parameter([_N_TOKENS, WIDTH], np.float32)
    low, high = (ops.constant(np.float32(end)) for end in (-4.0, 4.0 * 127 / 128))
    for width_in, width_out in pairwise(_widths()):
        steps = ops.fake_quantize(x, low, high, low, high, 256)
        weights = ops.convert(ops.constant(rng.integers(-127, 128, (width_out, width_in), dtype=np.int8)), np.float32)
        scaled = ops.multiply(weights, ops.constant(np.full((width_out, 1), 1 / 64 / np.sqrt(width_in), np.float32)))
        x = ops.matmul(steps, scaled, False, True)
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(
        ov.Model([x], [given]), "CPU", {**options, "INFERENCE_NUM_THREADS": job["n_threads"]}
    )
    _check_int8(compiled)
    requests = ov.AsyncInferQueue(compiled)
    tokens = rng.normal(size=(_N_TOKENS, WIDTH)).astype(np.float32)

    def work() -> None:
        for _ in range(len(requests)):
            requests.start_async({0: tokens}, share_inputs=True)
        requests.wait_all()

    return work, _N_TOKENS * len(requests)


def _check_int8(compiled: Any) -> None:
    """That the products are int8 indeed; else this would be no limit of what is.

    Raises:
        RuntimeError: one is not.
    """
    for operation in compiled.get_runtime_model().get_ops():
        facts = operation.get_rt_info()
        kind = facts["layerType"].astype(str)
        if kind in ("FullyConnected", "MatMul") and facts["runtimePrecision"].astype(str) not in ("i8", "u8"):
            raise RuntimeError(f"{operation.get_friendly_name()} runs in {facts['runtimePrecision'].astype(str)}")


def _torch(job: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    import torch

    torch.set_num_threads(job["n_threads"])
    torch.manual_seed(1)
    tokens = {width: torch.randint(-127, 128, (_N_TOKENS, width), dtype=torch.int8) for width in (WIDTH, INNER)}
    weights = [torch.randint(-127, 128, shape, dtype=torch.int8) for shape in pairwise(_widths())]

    def work() -> None:
        for weight in weights:
            torch._int_mm(tokens[len(weight)], weight)

    return work, _N_TOKENS


_KINDS = {"engine": _engine, "openvino": _openvino, "torch": _torch}


if __name__ == "__main__":
    main()
