"""GET /v1/lineage/{id}. Catches: another answer than the command line's; an id that is not there taken for a fault."""

import httpx
from pydantic import TypeAdapter

from headrace.lineage.tracing import Trace, trace
from headrace.workspace import Workspace
from stub_model import START_TIMEOUT_S, Server


def test_the_server_traces_what_the_workspace_traces(served: Server, served_workspace: Workspace) -> None:
    body = {"task": "tone", "channel": "web", "unit": "anna", "inputs": [{"text": "a positive row to trace"}]}
    with httpx.Client(base_url=served.url, timeout=START_TIMEOUT_S, trust_env=False) as http:
        asked = http.post("/v1/predict", json=body).raise_for_status().json()["predictions"][0]["id"]
        said = {"prediction_id": asked, "comment": "to be traced", "labeller": "anna"}
        feedback = http.post("/v1/feedback", json=said).raise_for_status().json()["id"]  # written: so its prediction is
        for row_id in (asked, feedback):
            found = http.get(f"/v1/lineage/{row_id}").raise_for_status().json()
            assert found == TypeAdapter(Trace).dump_python(trace(served_workspace, row_id), mode="json")
            assert [(one["id"], one["unit"]) for one in found["predictions"]] == [(asked, "anna")]
        for row_id in ("prd_none", "nothing"):
            assert http.get(f"/v1/lineage/{row_id}").status_code == 404
