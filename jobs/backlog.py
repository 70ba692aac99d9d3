"""The backlog as a CloudWatch metric, which the fleet's autoscaling follows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jobs.settings import Settings
from jobs.store import Store
from jobs.store.backlog import Backlog
from jobs.turns import Turns

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

log = logging.getLogger(__name__)

PERIOD_S = 5.0
# Every so many rounds, which is once a minute.
RARELY = 12
CONNECT_S = 3
ANSWER_S = 5


class BacklogMetric(Turns):
    """Publishes, for each model, the images that wait and the seconds that one worker would need for them.

    Seconds, not images: a target in seconds means the same for a slow and for a fast worker. One process at a
    time publishes, also where no worker runs; a zero is published too, for a missing value says nothing.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        # Not in the sweep: CloudWatch may hang, and nothing recovers while the sweep waits.
        super().__init__(store.sweeps, "backlog", PERIOD_S)
        self._settings = settings
        self._backlog = store.backlog
        self._rounds = 0
        self._client: CloudWatchClient | None = None

    def start(self) -> None:
        """Publish once a minute in a thread, if a namespace is set."""
        if self._settings.cloudwatch_namespace is not None:
            super().start()

    def act(self) -> None:
        """Publish if it is time."""
        if self._rounds % RARELY == 0:
            self._publish()
        self._rounds += 1

    def _publish(self) -> None:
        """Send the present values; a failure is logged and tried again next time."""
        from botocore.exceptions import BotoCoreError, ClientError

        values = self._backlog.of_models(self._settings.model_names)
        data: Any = [entry for backlog in values for entry in self._entries(backlog)]
        namespace = self._settings.cloudwatch_namespace or ""
        try:
            self._connected().put_metric_data(Namespace=namespace, MetricData=data)
        except (BotoCoreError, ClientError) as error:
            log.warning("the backlog could not be told to CloudWatch: %s", error)

    def _entries(self, backlog: Backlog) -> list[dict[str, object]]:
        values = (
            ("BacklogSeconds", backlog.seconds(self._settings.expected_rate), "Seconds"),
            ("BacklogImages", float(backlog.images), "Count"),
            ("OldestJobSeconds", backlog.oldest_s, "Seconds"),
        )
        dimensions = [{"Name": "Model", "Value": backlog.model}]
        return [
            {"MetricName": name, "Dimensions": dimensions, "Value": value, "Unit": unit}
            for name, value, unit in values
        ]

    def _connected(self) -> CloudWatchClient:
        if self._client is None:
            import boto3
            from botocore.config import Config

            once = {"total_max_attempts": 1}
            config = Config(connect_timeout=CONNECT_S, read_timeout=ANSWER_S, retries=once)  # type: ignore[arg-type]
            self._client = boto3.Session().client("cloudwatch", config=config)
        return self._client
