"""The HTTP application: the table of endpoints made into routes, and the stream of server-sent events beside them."""

from itertools import groupby
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from api import (
    conversations,
    devices,
    export,
    health,
    inbox,
    markers,
    members,
    messages,
    own_settings,
    past,
    presences,
    sql,
    tickets,
    users,
)
from api.context import ApiContext
from api.endpoint import Endpoint, OpenEndpoint, Path
from api.openapi import openapi_endpoint
from api.requests import Requests, routing_problem
from api.sse import stream_endpoint

_TABLE: Final[tuple[Endpoint | OpenEndpoint, ...]] = (
    *conversations.ENDPOINTS,
    *members.ENDPOINTS,
    *messages.ENDPOINTS,
    *export.ENDPOINTS,
    *markers.ENDPOINTS,
    *own_settings.ENDPOINTS,
    *inbox.ENDPOINTS,
    *users.ENDPOINTS,
    *devices.ENDPOINTS,
    *presences.ENDPOINTS,
    *sql.ENDPOINTS,
    *past.ENDPOINTS,
    *tickets.ENDPOINTS,
    *health.ENDPOINTS,
)


def create_app(context: ApiContext) -> Starlette:
    """The ASGI application. Nothing is opened, and nothing needs a lifespan: the context's maker owns its parts."""
    table = sorted((*_TABLE, openapi_endpoint(_TABLE)), key=lambda endpoint: endpoint.path)
    paths = [Path(list(endpoints)) for _, endpoints in groupby(table, key=lambda endpoint: endpoint.path)]
    app = Starlette(
        routes=[
            # A device id may hold slashes, which the server has decoded by now.
            *(Route(path.path.replace("{device_id}", "{device_id:path}"), path) for path in paths),
            Route("/v1/stream", stream_endpoint, methods=["GET"]),
        ],
        middleware=[Middleware(Requests)],
        exception_handlers={HTTPException: routing_problem},
    )
    app.router.redirect_slashes = False  # one address each
    app.state.context = context
    return app
