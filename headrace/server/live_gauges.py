"""Gauges of what audits and drift say, renewed behind the requests: live accuracy per channel, and open alarms.

The store adds the answers up, so a look takes it a second per million and this process hardly anything.
"""

import logging
import threading

from headrace.feedback import accuracy, drift
from headrace.feedback.accuracy import Part
from headrace.server.metrics import Metrics
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.server")

FIRST_S, EVERY_S = 10.0, 300.0
_MOST_CHANNELS = 100
_ALL = "all"


class LiveGauges:
    """What is looked at, and where it is shown."""

    def __init__(self, ws: Workspace, metrics: Metrics) -> None:
        self._ws, self._metrics = ws, metrics

    def renew(self, _stop: threading.Event) -> None:
        """`look`, which may fail."""
        try:
            self.look()
        except Exception:  # the border of one look: what serves goes on serving
            _log.warning("live accuracy could not be looked at", exc_info=True)

    def look(self) -> None:
        """Set the gauges to what is known now."""
        shares: dict[tuple[str, str, str], float] = {}
        n_alarms: dict[tuple[str, str], float] = {}
        for task in sorted(self._ws.settings.tasks):
            live = accuracy.live(self._ws, task)
            if live.overall is None:
                continue
            busiest = sorted(live.channels.items(), key=lambda item: -item[1].n_requests)[:_MOST_CHANNELS]
            for channel, part in [(_ALL, live.overall), *busiest]:
                shares |= {(task, channel, end): value for end, value in _ends(part).items()}
            n_alarms[task, _ALL] = 0
            for alarm in drift.open_alarms(self._ws, task):
                place = (task, alarm.channel or _ALL)
                n_alarms[place] = n_alarms.get(place, 0) + 1
        self._metrics.note_live(shares, n_alarms)


def _ends(part: Part) -> dict[str, float]:
    """The estimate, and the ends of the interval that may be looked at all the time where there is one."""
    found = {} if part.accuracy is None else {"estimate": part.accuracy.estimate}
    return found | ({} if part.always is None else {"low": part.always.low, "high": part.always.high})
