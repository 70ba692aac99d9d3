"""Receives Captionfleet's webhooks and prints them; needs nothing but Python.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 9000

The secret is what `captionfleet webhooks secrets` shows. A receiver has to do three things: check the
signature over the body as it came, refuse what is old, and pass over an id that it has seen, for an event may
come twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
LARGEST = 1024 * 1024
seen: set[str] = set()


def genuine(secret: str, headers: Message, body: bytes) -> bool:
    """Whether the request was signed with ``secret``, and lately."""
    event, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event}.{timestamp}.".encode() + body
    expected = hmac.new(key, signed, hashlib.sha256).digest()
    return any(_same(expected, given) for given in headers.get("webhook-signature", "").split())


def _same(expected: bytes, given: str) -> bool:
    version, _, signature = given.partition(",")
    try:
        return version == "v1" and hmac.compare_digest(expected, base64.b64decode(signature))
    except binascii.Error:
        return False


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what is genuine; every other answer makes Captionfleet send the event again later."""

    def do_POST(self) -> None:
        """Take one event."""
        body = self.rfile.read(min(LARGEST, int(self.headers.get("Content-Length") or 0)))
        if not genuine(os.environ["WEBHOOK_SECRET"], self.headers, body):
            self.send_error(401)
            return
        event = self.headers["webhook-id"]
        if event not in seen:
            seen.add(event)  # A real receiver keeps the ids of a day, where its restart does not lose them.
            said = json.loads(body)
            print(
                said["type"], said["data"]["id"], said["data"]["counts"]["succeeded"], "captions", flush=True
            )
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print events alone."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Receiver).serve_forever()
