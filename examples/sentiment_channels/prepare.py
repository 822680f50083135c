"""Get the demo's data: four channels of sentences, each rated by real people, as JSONL files for `headrace import`.

The data is the source archive of vaderSentiment 3.3.2 (MIT; Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based
Model for Sentiment Analysis of Social Media Text", ICWSM), fetched with pip from the package index and cached.

For each channel this writes
    CHANNEL.start.jsonl    rows to import: id, text, group, label (from the raters' mean), labels (each rater's own)
    CHANNEL.traffic.jsonl  sentences the workspace never sees before they are asked about, with their raters' scores
or, with --means
    CHANNEL.means.jsonl    every sentence: id, text, group, label (the raters' mean, a number in -4..4)

Run: python examples/sentiment_channels/prepare.py FOLDER [--means]
"""

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
ARCHIVE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
CHANNELS = {
    "amazon": "amazonReviewSnippets",
    "movies": "movieReviewSnippets",
    "nyt": "nytEditorialSnippets",
    "tweets": "tweets",
}
TRAFFIC_SHARE = 0.4  # of each channel's groups (a review, an editorial, a tweet)
NEUTRAL = 0.5  # means within it are neutral: as in the published comparisons of three classes


def label_of(score: float) -> str:
    """A rating or a mean of ratings in -4..4 as a class."""
    if score < -NEUTRAL:
        return "negative"
    return "positive" if score > NEUTRAL else "neutral"


def archive() -> Path:
    """The cached source archive, fetched with pip when it is not there; its hash is checked each time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace"
    path = cache / ARCHIVE
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--no-binary", ":all:", "--dest", str(cache), "vaderSentiment==3.3.2"], check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        sys.exit(f"{path} is not the published archive (sha256 {found}). Delete it and run again.")
    return path


def rows(channel: str) -> Iterator[dict[str, Any]]:
    """Sentences of a channel with `mean` and `ratings`.

    199 tweets carry ratings of another sentence (the means of the two files differ); their ratings are left out.
    """
    texts, ratings = _files(CHANNELS[channel])
    scores = {key: (float(mean), ast.literal_eval(scores)) for key, mean, _, scores in _fields(ratings, 4)}
    for key, mean, text in _fields(texts, 3):
        same = abs(scores[key][0] - float(mean)) < 1e-4
        yield {
            "id": f"{channel}-{key}",
            "group": f"{channel}-{key.split('_')[0]}",
            "text": text,
            "mean": float(mean),
            "ratings": scores[key][1] if same else [],
        }


def is_traffic(group: str) -> bool:
    """By hash, so that the same groups are kept back on every machine."""
    return int(hashlib.sha256(f"traffic {group}".encode()).hexdigest()[:8], 16) / 2**32 < TRAFFIC_SHARE


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for channel in CHANNELS:
        counts = {"start": 0, "traffic": 0}
        with (
            (folder / f"{channel}.start.jsonl").open("w") as start,
            (folder / f"{channel}.traffic.jsonl").open("w") as t,
        ):
            for row in rows(channel):
                part = "traffic" if is_traffic(row["group"]) else "start"
                counts[part] += 1
                print(
                    json.dumps(row if part == "traffic" else _importable(row)), file=t if part == "traffic" else start
                )
        print(f"  {channel}: {counts['start']} rows to start with, {counts['traffic']} kept back as traffic")


def write_means(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for channel in CHANNELS:
        with (folder / f"{channel}.means.jsonl").open("w") as file:
            for row in rows(channel):
                kept = {key: row[key] for key in ("id", "group", "text")}
                print(json.dumps(kept | {"label": row["mean"]}), file=file)


def _importable(row: dict[str, Any]) -> dict[str, Any]:
    labels = [{"labeller": f"rater-{i}", "label": label_of(s), "score": s} for i, s in enumerate(row["ratings"], 1)]
    return {k: row[k] for k in ("id", "group", "text")} | {"label": label_of(row["mean"]), "labels": labels}


def _files(name: str) -> tuple[str, str]:
    with tarfile.open(archive()) as outer:
        member = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert member is not None
        with tarfile.open(fileobj=io.BytesIO(member.read())) as inner:
            parts = []
            for suffix in ("GroundTruth", "anonDataRatings"):
                file = inner.extractfile(f"hutto_ICWSM_2014/{name}_{suffix}.txt")
                assert file is not None
                parts.append(file.read().decode("utf-8-sig"))
    return parts[0], parts[1]


def _fields(text: str, n: int) -> Iterator[list[str]]:
    for line in text.replace("\r\n", "\n").split("\n"):
        if line:
            yield line.split("\t", n - 1)


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if argument != "--means"]
    (write_means if "--means" in sys.argv else write)(Path(folders[0] if folders else "."))
