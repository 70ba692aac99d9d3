"""What a scrape says, to be compared."""

from __future__ import annotations

import http.client

from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> dict[tuple[str, ...], float]:
    """Read a metrics port once; nothing where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return samples(connection.getresponse().read().decode())
    except ConnectionError:
        return {}
    finally:
        connection.close()
