"""The Flask application: routes, uploads, keys, OpenAPI and the web page."""
