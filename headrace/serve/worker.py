"""`python -m headrace.serve.worker`: the process that holds the models and answers inputs.

    pool -> worker   load {id, digest, folder} | unload {digest} | drop {id}
                     load_adapter {id, digest, adapter, folder} | unload_adapter {digest, adapter}
                     predict {id, digest, adapter, inputs, background, channel, timeout_ms}
    worker -> pool   ready | alive {batches} | {id, error} | {id, digest}
                     {id, digest, adapter, rows: [{output} | {error}], queue_s, n_tokens, busy_s, [batches]}

Messages are frames (see frames.py) over stdin and stdout, an input is a text or a list of two; whatever a library
prints goes to stderr. `timeout_ms` is what is left of the time that the answer may take: no row is begun after it, and
the pool drops the request then. `digest` is that of an artifact, `adapter` that of the weights of a channel's adapter
on it or null; in answers, of what lies in memory. `n_tokens` and `busy_s` are of the rows that were answered. `batches`
has the figures of those that ended since the last message that had them. The process ends when its stdin does, so it
never outlives the server.
"""

import argparse
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace import isolation
from headrace.artifacts import verify
from headrace.errors import Damaged, HeadraceError, NotFound
from headrace.export.artifact import load
from headrace.records import Input
from headrace.serve import frames, heaps, logs
from headrace.serve.batcher import Batcher, Row, estimate_tokens
from headrace.serve.frames import Message
from headrace.tasks import TASK_TYPES, Adapter, Bank, Calibration, Outputs, Predictor, TaskType

_log = logging.getLogger("headrace.worker")

_HUNG_AFTER = 6  # times `alive_every_s` in one batch, about the server's patience with an answer
_ALIVE_EVERY_S = 0.5  # a long request says nothing else until it is done; a silent worker is taken for hung


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded artifact. `digest` is that of the bytes these weights were read from."""

    digest: str
    predictor: Predictor
    task_type: TaskType
    calibration: Calibration
    max_tokens: int
    turns: threading.Semaphore = field(default_factory=threading.Semaphore)
    """As many as there are calls that the predictor works on side by side."""


def load_model(folder: Path, digest: str, *, n_threads: int) -> Model:
    """Load an artifact folder, and check that what was loaded is what `digest` names.

    Raises:
        Damaged: the bytes are not those of the digest.
    """
    predictor, facts = load(folder, n_threads=n_threads)
    verify(folder, digest)
    task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
    turns = threading.Semaphore(n_at_once(predictor))
    return Model(digest, predictor, task_type, facts.calibration, facts.task.max_tokens, turns)


def n_at_once(predictor: Predictor) -> int:
    """How many calls a predictor works on side by side; one where it does not say."""
    return int(getattr(predictor, "n_at_once", 1))


@dataclass(slots=True)
class Spent:
    """Seconds that a batch took, by stage."""

    encode_s: float = 0.0
    """0 where the backend does not tell it from the model's."""
    model_s: float = 0.0
    decode_s: float = 0.0


def answer(
    model: Model, inputs: Sequence[Input], adapters: Sequence[Adapter | None] = (), spent: Spent | None = None
) -> list[Message]:
    """One `{"output"}` or `{"error"}` per input, in order. A batch that fails is halved until the bad one is alone.

    Args:
        adapters: of each input; none: the model alone.
        spent: what the work took is added to it.
    """
    spent = spent or Spent()
    try:
        return [{"output": output} for output in _decoded(model, inputs, adapters, spent)]
    except Exception as error:  # the border of a batch: its neighbours go on
        if len(inputs) == 1:
            _log.warning("an input could not be answered by %s", model.digest, exc_info=True)
            return [{"error": _error_of(error)}]
    half = len(inputs) // 2
    first, second = (answer(model, inputs[part], adapters[part], spent) for part in (slice(half), slice(half, None)))
    return first + second


def _decoded(
    model: Model, inputs: Sequence[Input], adapters: Sequence[Adapter | None], spent: Spent
) -> list[dict[str, object]]:
    began_at = time.perf_counter()
    is_plain = not any(adapters)
    outputs = model.predictor.logits(inputs) if is_plain else _bank(model).logits(inputs, adapters)
    ended_at = time.perf_counter()
    encode_s = getattr(model.predictor, "encode_s", 0.0)
    spent.encode_s += encode_s
    spent.model_s += ended_at - began_at - encode_s
    n_outputs = model.task_type.n_outputs
    if outputs.dtype == object:  # a task on tokens: one element per input
        _check_logits(outputs, (len(inputs),))
        for one in outputs:
            _check_logits(one.logits, (len(one.spans), n_outputs))
    else:
        _check_logits(outputs, (len(inputs), n_outputs))
    decoded = model.task_type.decode(outputs, model.calibration)
    spent.decode_s += time.perf_counter() - ended_at
    return decoded


def hold_adapter(model: Model, weights: str, folder: Path) -> Adapter:
    """Load an adapter on a model, and check that what lies in memory is what the digest `weights` names.

    Raises:
        Damaged: it is not, cannot be read or does not fit.
        NotFound: the model has no room for adapters.
    """
    bank = _bank(model)
    found = bank.add_adapter(folder)
    if found != weights:
        bank.remove_adapter(found)
        raise Damaged(
            "an adapter's weights are not those that were trained",
            value=found,
            next_step="Train the channel again, or restore the workspace from a backup",
        )
    return bank.adapter(found)


def _bank(model: Model) -> Bank:
    """The predictor of a model that can hold adapters.

    Raises:
        NotFound: it cannot.
    """
    if not isinstance(model.predictor, Bank):
        raise NotFound(
            "the artifact has no room for channel adapters",
            value=model.digest,
            next_step="Train with --per-channel, and export to openvino",
        )
    return model.predictor


def _check_logits(logits: Outputs, shape: tuple[int, ...]) -> None:
    if logits.shape != shape:
        raise ValueError(f"the model gave outputs of shape {logits.shape}, not {shape}")
    if logits.dtype != object and not np.isfinite(logits).all():
        raise ValueError("the model gave logits that are not finite")


def _error_of(error: Exception) -> object:
    if not isinstance(error, HeadraceError):
        error = HeadraceError(
            f"the model failed on this input: {type(error).__name__}: {error}", next_step="The server's log has more"
        )
    return error.envelope()["error"]


@dataclass
class _Request:
    """A request under way: its rows come back in any order, out of any number of batches."""

    digest: str
    adapter: str | None
    rows: list[Message | None]
    queue_s: float = 0.0
    """The longest that one of its rows waited."""
    n_tokens: int = 0
    busy_s: float = 0.0
    """Of what its batches took, the share of its answered rows by tokens."""
    n_missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_missing = len(self.rows)


class Worker:
    """The models, the rows that wait, and the stream that answers go to."""

    def __init__(self, out: BinaryIO, *, batch_tokens: int, n_threads: int, alive_every_s: float) -> None:
        self._out, self._n_threads, self._alive_every_s = out, n_threads, alive_every_s
        self._batcher = Batcher(batch_tokens)
        self._models: dict[str, Model] = {}
        self._requests: dict[int, _Request] = {}
        self._batches: list[Message] = []
        """Figures of batches that no message has carried yet."""
        self._ending = threading.Lock()  # of requests and figures, which several batches may end at once
        self._out_lock = threading.Lock()
        self._sent_at = 0.0
        self._loops: list[threading.Thread] = []
        """Beside that of `work`."""
        self._begun: dict[int, float] = {}
        """When each thread began the batch that it is at."""

    def listen(self, stream: BinaryIO) -> None:
        """Take messages until the pool closes the stream, then end the process, whatever it is doing."""
        self._send({"kind": "ready"})
        while (message := frames.receive(stream)) is not None:
            self._take(message)
        sys.stderr.flush()
        os._exit(0)

    def work(self) -> None:
        """Answer batch after batch, for ever, and say so also when there is none."""
        while True:
            self._end_if_hung()
            batch = self._batcher.take(self._alive_every_s)
            if not batch:
                self._send({"kind": "alive", "batches": self._handed_over()})
                continue
            with batch[0].model.turns:
                self._answer(batch)
            if time.monotonic() - self._sent_at > _ALIVE_EVERY_S:
                self._send({"kind": "alive", "batches": self._handed_over()})

    def _answer(self, batch: Sequence[Row]) -> None:
        began_at, spent = time.monotonic(), Spent()
        self._begun[threading.get_ident()] = began_at
        results = answer(batch[0].model, [row.input for row in batch], [row.adapter for row in batch], spent)
        del self._begun[threading.get_ident()]
        n_tokens = sum(row.n_tokens for row in batch)
        took_s = time.monotonic() - began_at
        self._batcher.note(n_tokens, took_s)
        n_late_rows = sum(row.deadline < began_at for row in batch)
        with self._ending:
            self._batches.append(
                {"n_rows": len(batch), "n_tokens": n_tokens, "n_late_rows": n_late_rows, **asdict(spent)}
            )
            token_s = took_s / n_tokens
            ended = [self._finish(row, result, began_at, token_s) for row, result in zip(batch, results, strict=True)]
        if answers := [said for said in ended if said is not None]:
            answers[0]["batches"] = self._handed_over()
            self._send(*answers)

    def _end_if_hung(self) -> None:
        """The pool replaces a silent worker; one that speaks while a batch of its hangs has to go by itself."""
        if time.monotonic() - min(self._begun.copy().values(), default=math.inf) > _HUNG_AFTER * self._alive_every_s:
            _log.error("a batch hangs; the worker ends")
            sys.stderr.flush()
            os._exit(1)

    def _take(self, message: Message) -> None:
        match message["kind"]:
            case "load" | "load_adapter":  # in a thread of its own: the models that serve go on serving
                threading.Thread(target=self._load, args=(message,), daemon=True).start()
            case "unload_adapter":
                if model := self._models.get(message["digest"]):
                    _bank(model).remove_adapter(message["adapter"])
            case "unload":
                self._models.pop(message["digest"], None)
            case "predict":
                self._predict(message)
            case "drop":
                self._batcher.drop(message["id"])
                self._requests.pop(message["id"], None)

    def _load(self, message: Message) -> None:
        digest = message["digest"]
        try:
            if message["kind"] == "load":
                model = load_model(Path(message["folder"]), digest, n_threads=self._n_threads)
                self._models[digest] = model
                self._be_at_least(n_at_once(model.predictor))
                heaps.give_back()  # loading takes more than the model keeps, and others were unloaded before
            else:
                hold_adapter(self._model(digest), message["adapter"], Path(message["folder"]))
        except Exception as error:  # the border of a load: the pool decides what a failure means
            _log.warning("artifact %s could not be loaded", digest, exc_info=True)
            self._send({"id": message["id"], "error": _error_of(error)})
            return
        self._send({"id": message["id"], "digest": digest})

    def _be_at_least(self, n_loops: int) -> None:
        """Have so many threads answer batches, so that one is prepared while another is worked on."""
        with self._ending:
            while len(self._loops) + 1 < n_loops:
                self._loops.append(threading.Thread(target=self.work, daemon=True))
                self._loops[-1].start()

    def _model(self, digest: str) -> Model:
        if (model := self._models.get(digest)) is None:
            raise NotFound("the worker has no such model", value=digest)
        return model

    def _predict(self, message: Message) -> None:
        number = message["id"]
        inputs: list[Input] = [(one[0], one[1]) if isinstance(one, list) else one for one in message["inputs"]]
        try:
            model, named = self._model(message["digest"]), message["adapter"]
            adapter = None if named is None else _bank(model).adapter(named)
        except NotFound as missing:
            self._send({"id": number, "error": _error_of(missing)})
            return
        digest = None if adapter is None else adapter.digest
        self._requests[number] = _Request(model.digest, digest, [None] * len(inputs))
        now = time.monotonic()
        self._batcher.put(
            [
                Row(
                    request=number,
                    place=place,
                    input=given,
                    n_tokens=estimate_tokens(given, model.max_tokens),
                    model=model,
                    background=message["background"],
                    channel=message["channel"],
                    arrived_at=now,
                    deadline=now + message["timeout_ms"] / 1000,
                    adapter=adapter,
                    is_packed=getattr(model.predictor, "is_packed", False),
                )
                for place, given in enumerate(inputs)
            ]
        )

    def _finish(self, row: Row, result: Message, began_at: float, token_s: float) -> Message | None:
        """Put a row's result to its request; the answer if that was the last one missing. Called with `_ending`.

        Args:
            token_s: what a token of its batch took.
        """
        request = self._requests.get(row.request)
        if request is None:  # dropped meanwhile
            return None
        request.rows[row.place] = result
        request.queue_s = max(request.queue_s, began_at - row.arrived_at)
        if "output" in result:
            request.n_tokens += row.n_tokens
            request.busy_s += row.n_tokens * token_s
        request.n_missing -= 1
        if request.n_missing:
            return None
        self._requests.pop(row.request, None)
        said = {"digest": request.digest, "adapter": request.adapter, "rows": request.rows}
        spent = {"queue_s": request.queue_s, "n_tokens": request.n_tokens, "busy_s": request.busy_s}
        return {"id": row.request, **said, **spent}

    def _handed_over(self) -> list[Message]:
        with self._ending:
            batches, self._batches = self._batches, []
        return batches

    def _send(self, *messages: Message) -> None:
        with self._out_lock:
            frames.send(self._out, *messages)
            self._sent_at = time.monotonic()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="headrace.serve.worker")
    parser.add_argument("--batch-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--alive-every-s", type=float, required=True)
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--cores", type=_numbers, default=[])
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--log-format", default="text")
    parser.add_argument("--network", choices=("denied", "allowed"), default="denied")
    args = parser.parse_args(argv)
    logs.set_up(args.log_format, process="headrace worker")
    if args.network == "denied":
        isolation.leave_network()
    if args.nice:
        os.nice(args.nice)
    if args.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (args.memory_bytes, args.memory_bytes))
    if args.cores:
        os.sched_setaffinity(0, args.cores)
    for number in (signal.SIGINT, signal.SIGTERM):  # a server that drains still needs its worker; stdin ends it
        signal.signal(number, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker(out, batch_tokens=args.batch_tokens, n_threads=args.threads, alive_every_s=args.alive_every_s)
    threading.Thread(target=worker.listen, args=(sys.stdin.buffer,), daemon=True).start()
    worker.work()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
