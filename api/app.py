"""The Flask application over a process's services."""

from __future__ import annotations

from flask import Flask

from api.caption_routes import CAPTION_ROUTES
from api.context import EXTENSION, build_context
from api.direct_routes import DIRECT_ROUTES
from api.docs import documented
from api.event_routes import EVENT_ROUTES
from api.headers import register_headers
from api.item_routes import ITEM_ROUTES
from api.job_routes import JOB_ROUTES
from api.key_routes import KEY_ROUTES
from api.limit_routes import LIMIT_ROUTES
from api.limiting import register_limiting
from api.metering import HttpMeters, register_metering
from api.problems import register_problems
from api.routes import register_routes
from api.session_routes import SESSION_ROUTES
from api.system_routes import SYSTEM_ROUTES
from api.webhook_routes import WEBHOOK_ROUTES
from jobs.services import Services

ROUTES = documented(
    JOB_ROUTES
    + EVENT_ROUTES
    + ITEM_ROUTES
    + CAPTION_ROUTES
    + DIRECT_ROUTES
    + WEBHOOK_ROUTES
    + SESSION_ROUTES
    + KEY_ROUTES
    + LIMIT_ROUTES
    + SYSTEM_ROUTES
)
METERS = HttpMeters(ROUTES)


def create_app(services: Services) -> Flask:
    """Make the application; nothing connects or starts before the first request."""
    app = Flask("api", template_folder="templates", static_folder="static", static_url_path="/static")
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = build_context(services, METERS.group)
    register_metering(app, METERS)
    register_headers(app)
    register_limiting(app)
    register_problems(app)
    register_routes(app, ROUTES)
    return app
