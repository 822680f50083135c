"""Where rows come from. One file each, with `read`; `open_source` picks one by what the location looks like.

To add one: copy jsonl.py; yield RawRow for every row, also for those that cannot be read (`error` says why); add its
line to SOURCES. The conformance tests find it through the table.
"""

from headrace.registry import Registry

SOURCES = Registry(
    "sources",
    {
        "csv": "headrace.data.sources.csv:Csv",
        "jsonl": "headrace.data.sources.jsonl:Jsonl",
        "parquet": "headrace.data.sources.parquet:Parquet",
        "hf": "headrace.data.sources.hf:HuggingFaceDataset",
        "sql": "headrace.data.sources.sql:Sql",
    },
)
