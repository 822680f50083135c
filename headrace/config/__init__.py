"""Everything `headrace.toml` can say: its tables, their keys, bounds and defaults.

The string below a key says what it means; docs/configuration.md is made of them. Where values come from is the
business of config_sources.py.

    table              what a table is
    making             from rows to a version
    serving            from a version to answers
    learning           from answers to better ones
    safety             who may ask, what is kept, what is trusted
"""

import hashlib
import json
from typing import get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from headrace.config.learning import AdviseTable, EraseTable, EventsTable, FeedbackTable, MetricTable
from headrace.config.making import (
    AdapterTable,
    ArtifactsTable,
    AugmentTable,
    CompressTable,
    DataTable,
    ExportTable,
    FinetuneTable,
    LossTable,
    PerChannelTable,
    RobustTable,
    SamplingTable,
    SearchTable,
    SplitTable,
    StoreTable,
    TaskTable,
)
from headrace.config.safety import AccessTable, ChannelName, ChannelTable, JobsTable, PrivacyTable, SignTable
from headrace.config.serving import ReleaseTable, ServeTable
from headrace.config.table import Table

__all__ = [
    "AccessTable",
    "AdapterTable",
    "AdviseTable",
    "ArtifactsTable",
    "AugmentTable",
    "ChannelTable",
    "CompressTable",
    "DataTable",
    "EraseTable",
    "EventsTable",
    "ExportTable",
    "FeedbackTable",
    "FinetuneTable",
    "JobsTable",
    "LossTable",
    "MetricTable",
    "PerChannelTable",
    "PrivacyTable",
    "ReleaseTable",
    "RobustTable",
    "SamplingTable",
    "SearchTable",
    "ServeTable",
    "Settings",
    "SignTable",
    "SplitTable",
    "StoreTable",
    "Table",
    "TaskTable",
    "has_names",
    "table_of",
]


class Settings(Table):
    """Everything headrace.toml can say."""

    tasks: dict[str, TaskTable] = Field(default_factory=dict)
    store: StoreTable = StoreTable()
    artifacts: ArtifactsTable = ArtifactsTable()
    data: DataTable = DataTable()
    split: SplitTable = SplitTable()
    finetune: FinetuneTable = FinetuneTable()
    search: SearchTable = SearchTable()
    export: ExportTable = ExportTable()
    compress: CompressTable = CompressTable()
    serve: ServeTable = ServeTable()
    release: ReleaseTable = ReleaseTable()
    feedback: FeedbackTable = FeedbackTable()
    erase: EraseTable = EraseTable()
    advise: AdviseTable = AdviseTable()
    access: AccessTable = AccessTable()
    privacy: PrivacyTable = PrivacyTable()
    channels: dict[ChannelName, ChannelTable] = Field(default_factory=dict)
    sign: SignTable = SignTable()
    jobs: JobsTable = JobsTable()

    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of all resolved values."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_of(field: FieldInfo) -> type[Table] | None:
    """The table that a key is, or that each name below it is (`tasks.NAME`); None where it is a value."""
    if isinstance(field.default, Table):
        return type(field.default)
    kinds = get_args(field.annotation) if has_names(field) else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table)), None)


def has_names(field: FieldInfo) -> bool:
    """Whether the keys below are names that the user gives."""
    return get_origin(field.annotation) is dict
