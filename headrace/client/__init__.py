"""Talk to a headrace server: `with Client("http://127.0.0.1:8000") as client: client.predict(...)`.

`AsyncClient` is the same for asyncio. What both do (errors, attempts, pauses, deadlines) is in calls.py, once.
"""

from headrace.client.awaiting import AsyncClient
from headrace.client.blocking import Client

__all__ = ["AsyncClient", "Client"]
