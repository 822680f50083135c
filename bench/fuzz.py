"""Parsers of files and bodies that others send, on bytes that libFuzzer makes up from what they cover (atheris).

    pip install atheris && python -m bench.fuzz --seconds 120        # each target for so long
    python -m bench.fuzz --only csv onnx --keep FOLDER               # inputs that failed are kept there

A target fails on an exception that is none of headrace's, on an input that takes more than 10 s, and on more than 2 GB
of memory. Needs atheris (CPython 3.11 on Linux), which is no part of headrace.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from bench.reporting import Measured, write

SECONDS = 60
SLOW_S, MEMORY_MB = 10, 2048
_COVERED = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+).*?exec/s: (\d+)")

Target = Callable[[bytes], object]
SEEDS = {
    "csv": b'text,label\n"a ""b""",x\n',
    "jsonl": b'{"text":"a","label":"x","labels":[{"labeller":"l","label":"x"}]}\n',
    "conll": b"#id 1\nJohn B-PER\nruns O\n\n",
    "label-studio": b'[{"id":1,"data":{"text":"a"},"annotations":[{"completed_by":1,"result":[{"from_name":"l",'
    b'"type":"choices","value":{"choices":["x"]}}]}]}]',
    "squad": b'{"data":[{"paragraphs":[{"context":"a b","qas":[{"id":"1","question":"q","answers":'
    b'[{"text":"a","answer_start":0}]}]}]}]}',
    "parquet": b"PAR1\x15\x00\x00\x00\x00PAR1",
    "safetensors": b'\x3c\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}       \0\0\0\0\0\0\0\0',
    "onnx": b"\x08\x08:\x0a*\x08\x08\x02\x10\x01J\x02ab",
    "openvino": b'<?xml version="1.0"?><net name="m" version="11"><layers><data offset="0" size="4"/></layers></net>',
    "body": b'{"task":"t","channel":"c","inputs":[{"text":"a"}],"n":1.5e3}',
    "signature": b'{"dsseEnvelope":{"payload":"e30=","signatures":[{"sig":"e30="}]}}',
}


def target_of(name: str, place: Path) -> Target:
    """What is done with each input; `place` is a file for it."""
    from headrace import signing
    from headrace.data.sources import SOURCES, Options
    from headrace.files import onnx_file, openvino_file, safetensors_file
    from headrace.server import strictness

    checks: dict[str, Callable[[Path], object]] = {
        "safetensors": safetensors_file.check,
        "onnx": onnx_file.check,
        "openvino": lambda path: openvino_file.check(path, path),
    }

    source: Any = SOURCES.get(name) if name in SOURCES.names() else None  # imported here, where imports are watched

    def read(content: bytes) -> object:
        place.write_bytes(content)
        if source is None:
            return checks[name](place)
        return list(islice(source.read(str(place), Options()), 1000))

    def in_memory(content: bytes) -> object:
        try:
            return strictness.loads(content) if name == "body" else signing._opened(content, [])
        except (ValueError, RecursionError, KeyError, TypeError, IndexError):  # what their callers turn into errors
            return None

    return in_memory if name in ("body", "signature") else read


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Never returns: libFuzzer ends the process. Called in a process of its own."""
    import atheris

    with atheris.instrument_imports(include=["headrace"]):
        target = target_of(name, folder / "input")
        from headrace.errors import HeadraceError

    def once(content: bytes) -> None:
        with suppress(HeadraceError):
            target(content)

    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEEDS[name])
    options = [f"-max_total_time={seconds}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MB}", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/failed-", "-seed=1", str(corpus)], once)
    atheris.Fuzz()


def run(name: str, seconds: int, keep: Path | None) -> tuple[int, int, list[str]]:
    """Inputs tried, branches covered, and what failed first."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "bench.fuzz", "--worker", name, "--seconds", str(seconds), "--keep", made]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 300)
        failed = sorted(Path(made).glob("failed-*"))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in failed:
                (keep / f"{name}-{path.name}").write_bytes(path.read_bytes())
        last = _COVERED.findall(done.stderr)
        if not last and not failed:
            raise SystemExit(f"{name} did not run:\n{done.stderr[-2000:]}")
        n_tried, n_covered = (int(last[-1][0]), int(last[-1][1])) if last else (0, 0)
        problems = [line for line in done.stderr.splitlines() if line.startswith(("  File", "ERROR"))][-3:]
        return n_tried, n_covered, problems if failed else []


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--only", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("Run: pip install atheris")
    if args.worker:
        fuzz(args.worker, args.seconds, args.keep)
    rows, n_failures = [], 0
    for name in args.only:
        n_tried, n_covered, problems = run(name, args.seconds, args.keep)
        n_failures += bool(problems)
        print(name, n_tried, n_covered, json.dumps(problems), flush=True)
        rows += [
            Measured(f"{name}: inputs tried", n_tried, ""),
            Measured(f"{name}: branches covered", n_covered, ""),
            Measured(f"{name}: targets that failed", float(bool(problems)), "", "none", 0.0),
        ]
    write("fuzz", rows, [1])
    return 1 if n_failures else 0


if __name__ == "__main__":
    sys.exit(main())
