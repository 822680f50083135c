"""The one place with SQL. `engine` opens the database, `writer` batches a server's writes, the rest is a file per noun.

To add a noun: a table in schema.py, a migration, and a module of functions that take a connection.
"""

from headrace.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
