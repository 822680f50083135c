"""What names of files and columns mean: a suffix its format, a prefix a part of an answer."""

PREFIX = "predicted_"
"""Before the names of an answer's parts, as columns."""
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def suffixes() -> str:
    return ", ".join(FORMATS)
