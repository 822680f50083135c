"""The FastAPI application of a workspace."""

from fastapi import Depends, FastAPI

from headrace.server import border, direct, documented, guard, query
from headrace.server.disk import Disk
from headrace.server.plane import ControlPlane
from headrace.server.routes import (
    embeddings_inference,
    feedback,
    health,
    label_studio,
    lineage,
    metrics,
    models,
    monitoring,
    open_inference,
    predict,
    releases,
    reviews,
    usage,
)
from headrace.version import VERSION


def create_app(plane: ControlPlane) -> FastAPI:
    """The application on a control plane, which must be open before the first request and until after the last."""
    app = FastAPI(
        title="headrace",
        version=VERSION,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # what is not in the table of routes is not there
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics and the log say it; 4 % of a request
    )
    app.state.plane = plane
    app.state.disk = Disk(plane.ws.state_folder)
    app.add_middleware(direct.Direct, plane=plane)
    app.add_middleware(guard.Guard, keyring=plane.keyring, metering=plane.metering)
    app.add_middleware(border.Border, plane=plane)
    border.install(app)
    documented.install(app)
    for noun in (
        predict,
        feedback,
        reviews,
        usage,
        label_studio,
        health,
        models,
        releases,
        monitoring,
        lineage,
        metrics,
        open_inference,
        embeddings_inference,
    ):
        app.include_router(noun.router, dependencies=[Depends(query.only_known)])
    return app
