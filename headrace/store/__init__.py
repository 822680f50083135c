"""The one place with SQL.

`engine` holds connections and the writer's lock, `opening` brings a database to this code's tables, `writer` batches a
server's writes, the rest is a file per noun.

To add a noun: a table in schema.py, a migration, and a module of functions that take a connection.
"""

from headrace.store.engine import Store
from headrace.store.opening import open_store

__all__ = ["Store", "open_store"]
