"""Crowds whose feedback lies in a store: who said what about which text, and when."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

from sqlalchemy import insert

from conftest import sentences, write_jsonl
from headrace.data import channels, importing
from headrace.ids import new_id
from headrace.records import Channel, ModelVersion
from headrace.store import schema
from headrace.workspace import Workspace
from planted import NOON, ORIGIN, plant_answer, plant_version

DAY = timedelta(days=1)


class Crowd:
    """One channel with imported rows and a version that answers, and everybody who corrects it."""

    def __init__(self, ws: Workspace, n_rows: int = 150, *, channel: str = "web") -> None:
        ticks = count()
        self.ws = ws = replace(ws, clock=lambda: NOON + 20 * DAY + next(ticks) * timedelta(milliseconds=1))
        self.channel: Channel = channels.add(ws, channel)
        importing.import_rows(
            ws, channel, write_jsonl(Path(ws.root) / f"{channel}.jsonl", sentences(n_rows, channel=channel))
        )
        self.version: ModelVersion = plant_version(ws)
        self._asked: dict[str, str] = {}

    def say(self, labeller: str, said: Iterable[tuple[str, str]], *, at: datetime = NOON) -> None:
        """Corrections of a labeller, (text, label) each, a second apart."""
        rows = []
        for i, (text, label) in enumerate(said):
            if text not in self._asked:
                self._asked[text], _ = plant_answer(self.ws, self.channel, self.version, "neutral", text=text)
            rows.append(
                {
                    "id": new_id("feedback"),
                    "prediction_id": self._asked[text],
                    "kind": "correction",
                    "correction": label,
                    "labeller": labeller,
                    "used": False,
                    "at": at + timedelta(seconds=i),
                    **ORIGIN,
                }
            )
        with self.ws.store.write() as conn:
            conn.execute(insert(schema.feedback), rows)
