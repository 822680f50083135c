"""The OpenAPI document of an application, with what its guard asks for."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from headrace.access.scopes import ANY, OPEN, ROUTES
from headrace.errors import Forbidden, TooMany, Unauthorized
from headrace.server import error_forms

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "hr_live_..."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_FIRST = "$response.body#/predictions/0/id"
_LINKS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("post", "/v1/predict"): {
        "Correct": {
            "operationRef": "#/paths/~1v1~1feedback/post",
            "requestBody": {"prediction_id": _FIRST, "comment": "looked at"},
        },
        "Trace": {"operationRef": "#/paths/~1v1~1lineage~1{row_id}/get", "parameters": {"row_id": _FIRST}},
    },
    ("get", "/v1/reviews"): {
        "Answer": {
            "operationRef": "#/paths/~1v1~1reviews~1{review_id}/post",
            "parameters": {"review_id": "$response.body#/reviews/0/id"},
        }
    },
}
"""What can be asked with an answer's ids."""
_ENVELOPE = {"$ref": "#/components/schemas/ErrorEnvelope"}


def install(app: FastAPI) -> None:
    """Have the document say which keys each route takes, and how it refuses others."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _describe(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation does it


def _describe(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = ROUTES.get((method.upper(), path), ANY)
            if scope != OPEN:
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["responses"] = {**_refusals(path, scope), **operation["responses"]}
            if links := _LINKS.get((method, path)):
                operation["responses"]["200"]["links"] = links


def _refusals(path: str, scope: str) -> Mapping[str, Any]:
    said = {
        Unauthorized.http_status: "No key, or one that does not count",
        Forbidden.http_status: "The key may not do that" if scope == ANY else f"The key lacks the scope `{scope}`",
        TooMany.http_status: "The key asks too often: try again after `Retry-After` seconds",
    }
    schema = _ENVELOPE if error_forms.is_own(path) else {"type": "object"}
    content = {"application/json": {"schema": schema}}
    return {str(status): {"description": meaning, "content": content} for status, meaning in said.items()}
