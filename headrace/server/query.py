"""What a query string may ask for: the parameters of its route, by their names, and nothing else.

A parameter that nobody reads is a filter that does not filter, and one that a library below would read is worse.
"""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from headrace.errors import BadInput, nearest


async def only_known(request: Request) -> None:
    """A dependency of every route.

    Raises:
        BadInput: the query has a parameter that the route does not.
    """
    if not request.scope["query_string"]:
        return
    known = set(_names(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            raise BadInput("no such parameter", value=name, next_step=nearest(name, sorted(known)))


def _names(asked: Dependant) -> Iterator[str]:
    yield from (field.alias for field in asked.query_params)
    for inner in asked.dependencies:
        yield from _names(inner)
