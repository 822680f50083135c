"""Be the demo's users: send each channel's unseen sentences to the server, and answer with one real rater's score.

Usage: traffic.py WORKSPACE DATA_FOLDER --part first|further [--share 0.6] [--seed 1]
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import Progress

from headrace import Client
from prepare import CHANNELS, label_of

N_ROWS = 8  # sentences in a request
N_USERS = 8  # requests at a time


def unseen(folder: Path, *, part: str, share: float, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """(channel, row) in random order: the first `share` of the kept-back rows, or those after it."""
    rows = []
    for channel in CHANNELS:
        with (folder / f"{channel}.traffic.jsonl").open() as file:
            rows += [(channel, row) for row in map(json.loads, file) if row["ratings"]]
    random.Random(seed).shuffle(rows)
    cut = round(share * len(rows))
    return rows[:cut] if part == "first" else rows[cut:]


def requests(rows: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows of the same channel, a few at a time, in the order they came."""
    waiting: dict[str, list[dict[str, Any]]] = {channel: [] for channel in CHANNELS}
    made = []
    for channel, row in rows:
        waiting[channel].append(row)
        if len(waiting[channel]) == N_ROWS:
            made.append((channel, waiting[channel]))
            waiting[channel] = []
    return made + [(channel, rest) for channel, rest in waiting.items() if rest]


def wait_for_server(workspace: Path, timeout_s: float = 60) -> str:
    """The server's address, once it says that it is ready."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            facts = json.loads((workspace / ".headrace" / "server.json").read_text())
            url = f"http://{facts['host']}:{facts['port']}"
            with Client(url) as client:
                if client.ready():
                    return url
        except (OSError, ValueError):
            pass  # not written yet, or half written
        time.sleep(0.2)
    sys.exit(f"The server did not become ready in {timeout_s:.0f} s; see {workspace / 'server.log'}")


def ask(client: Client, channel: str, rows: list[dict[str, Any]], seed: int) -> Counter[str]:
    """One request, and a rater's answer to each of its predictions."""
    answer = client.predict("sentiment", channel, [{"text": row["text"]} for row in rows])
    counts: Counter[str] = Counter()
    for row, prediction in zip(rows, answer["predictions"], strict=True):
        rater = random.Random(f"{seed} {row['id']}").randrange(len(row["ratings"]))
        label = label_of(row["ratings"][rater])
        client.feedback(prediction["id"], correction=label, labeller=f"rater-{rater + 1}")
        counts["sentences"] += 1
        counts["agreed"] += label == prediction["label"]
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=("first", "further"), required=True)
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    url = wait_for_server(given.workspace)
    work = requests(unseen(given.data, part=given.part, share=given.share, seed=given.seed))
    started = time.perf_counter()
    with Client(url) as client, ThreadPoolExecutor(N_USERS) as users, Progress() as bars:
        done = users.map(lambda item: ask(client, *item, given.seed), work)
        total = sum((counts for counts in bars.track(done, total=len(work), description="requests")), Counter())
    seconds = time.perf_counter() - started
    agreed = 100 * total["agreed"] / total["sentences"]
    print(
        f"{total['sentences']} sentences asked and answered over HTTP in {seconds:.0f} s at {url}. "
        f"A single rater, drawn at random, agreed with the model on {agreed:.1f} % of them."
    )


if __name__ == "__main__":
    main()
