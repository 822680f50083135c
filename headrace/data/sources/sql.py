"""The rows of a query on any database that SQLAlchemy has a driver for. Nothing is ever committed."""

import re
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from headrace.data.sources import Options, columns_in, row_of, shown
from headrace.errors import BadInput, MissingExtra, NotFound
from headrace.records import RawRow
from headrace.registry import EXTRAS

_URL = re.compile(r"(sqlite|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?://")
_N_BATCH = 2000


class Sql:
    """A query; `line` is the number of the row in its answer, from 1."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return _URL.match(location) is not None

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        if not options.query:
            raise BadInput("a database needs a query", value=shown(location), next_step="Give --query 'SELECT ...'")
        engine = _engine(location)
        try:
            with engine.connect() as conn:
                result = conn.execution_options(yield_per=_N_BATCH).execute(sa.text(options.query))
                if not result.returns_rows:
                    raise BadInput("the query gives no rows", value=options.query, next_step="Give a SELECT")
                columns = columns_in(list(result.keys()), options)
                for line, values in enumerate(result.mappings(), start=1):
                    yield row_of(line, dict(values), columns)
        except sa.exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise BadInput(
                f"the query failed: {cause}", value=options.query, next_step="Check the URL and the query"
            ) from None
        finally:
            engine.dispose()


def _engine(location: str) -> sa.Engine:
    try:
        url = sa.make_url(location)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise NotFound("no such file", value=url.database, next_step="Check the URL: sqlite:///PATH")
        return sa.create_engine(url, poolclass=sa.NullPool)
    except ModuleNotFoundError as error:
        library = error.name or ""
        if library in EXTRAS:
            raise MissingExtra(EXTRAS[library], library=library, purpose="this database") from None
        raise BadInput(
            f"this database needs {library}, which is not installed",
            value=shown(location),
            next_step=f"Run: pip install {library}",
        ) from None
    except sa.exc.ArgumentError:
        raise BadInput("not a database URL", value=shown(location), next_step="Use sqlite:///PATH or another") from None
