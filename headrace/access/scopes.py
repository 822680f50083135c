"""What a key can allow, and what each route asks for: a route that is not in the table is not served."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SCOPES: Mapping[str, str] = {
    "predict": "ask for predictions, and see which model answers",
    "scores": "be told the scores of all labels, and confidences with all digits",
    "feedback": "say what came of predictions",
    "data:write": "label: answer reviews, send annotations; and trace rows",
    "train": "start trainings; no route does that yet",
    "release": "see how releases stand",
    "admin": "see what all keys used",
    "audit:read": "see metrics, live accuracy and drift",
}
"""What a key can allow, in words. None of them holds another."""

OPEN = ""
"""Asked for by routes that are answered without a key."""
ANY = "any"
"""Asked for by routes that every key may use."""

_LABEL_STUDIO = ("/label-studio", "/label-studio/{channel}")
_MODEL = ("/v2/models/{task}", "/v2/models/{task}/versions/{version}")

ROUTES: Mapping[tuple[str, str], str] = {
    ("GET", "/v2/health/live"): OPEN,
    ("GET", "/v2/health/ready"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/docs"): ANY,
    ("HEAD", "/docs"): ANY,
    ("GET", "/openapi.json"): ANY,
    ("HEAD", "/openapi.json"): ANY,
    ("POST", "/v1/predict"): "predict",
    ("GET", "/v1/models"): "predict",
    ("POST", "/v1/feedback"): "feedback",
    ("POST", "/v1/feedback/batch"): "feedback",
    ("POST", "/v1/feedback/stream"): "feedback",
    ("GET", "/v1/reviews"): "data:write",
    ("POST", "/v1/reviews/{review_id}"): "data:write",
    ("GET", "/v1/lineage/{row_id}"): "data:write",
    ("GET", "/v1/releases/{task}"): "release",
    ("GET", "/v1/accuracy"): "audit:read",
    ("GET", "/v1/drift"): "audit:read",
    ("GET", "/metrics"): "audit:read",
    ("GET", "/v1/usage"): "admin",
    ("POST", "/predict"): "predict",
    ("GET", "/info"): "predict",
    ("GET", "/v2"): "predict",
    **{("GET", path): "predict" for path in _MODEL},
    **{("GET", f"{path}/ready"): "predict" for path in _MODEL},
    **{("POST", f"{path}/infer"): "predict" for path in _MODEL},
    **{("GET", f"{path}/health"): "predict" for path in _LABEL_STUDIO},
    **{("POST", f"{path}/setup"): "predict" for path in _LABEL_STUDIO},
    **{("POST", f"{path}/predict"): "predict" for path in _LABEL_STUDIO},
    **{("POST", f"{path}/webhook"): "data:write" for path in _LABEL_STUDIO},
}
"""(method, path) to the scope that it asks for."""

WHOLE = frozenset({"/metrics", "/v1/usage", "/v1/drift", "/v1/releases/{task}", "/v1/lineage/{row_id}"})
"""Paths that tell of all channels at once: a key that is bound to some may not see them."""


@dataclass(frozen=True)
class Need:
    """What a route asks of a key."""

    scope: str
    is_whole: bool
    """Whether it tells of all channels."""


class RouteTable:
    """`ROUTES`, to look up what a request asks for."""

    def __init__(self, routes: Mapping[tuple[str, str], str] = ROUTES) -> None:
        self._fixed: dict[tuple[str, str], Need] = {}
        self._patterns: dict[tuple[str, int], list[tuple[re.Pattern[str], Need]]] = {}
        self._known_methods = {method for method, _ in routes}
        for (method, path), scope in routes.items():
            need = Need(scope, path in WHOLE)
            if "{" in path:
                pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
                self._patterns.setdefault((method, path.count("/")), []).append((pattern, need))
            else:
                self._fixed[method, path] = need

    def find(self, method: str, path: str) -> Need | None:
        """What a request needs; None where nothing is served."""
        need = self._fixed.get((method, path))
        if need is not None:
            return need
        among = self._patterns.get((method, path.count("/")), ())
        return next((of for pattern, of in among if pattern.fullmatch(path)), None)

    def is_open(self, path: str) -> bool:
        """Whether a path is answered without a key, by one method at least."""
        needs = (self.find(method, path) for method in self._known_methods)
        return any(need is not None and need.scope == OPEN for need in needs)

    def methods(self, path: str) -> list[str]:
        """By which a path is served."""
        return sorted(method for method in self._known_methods if self.find(method, path) is not None)
