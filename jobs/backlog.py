"""The backlog as a CloudWatch metric, which the fleet's autoscaling follows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jobs.settings import Settings
from jobs.store.backlog import Backlog, BacklogStore

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

log = logging.getLogger(__name__)


class BacklogMetric:
    """Publishes, for each model, the images that wait and the seconds that one worker would need for them.

    Seconds, not images: a target in seconds means the same for a slow and for a fast worker. The sweep
    publishes it, so also where no worker runs; a zero is published too, for a missing value says nothing.
    """

    def __init__(self, settings: Settings, backlog: BacklogStore) -> None:
        self._settings = settings
        self._backlog = backlog
        self._client: CloudWatchClient | None = None

    def publish(self) -> None:
        """Send the present values, if a namespace is set; a failure is logged and tried again next time."""
        namespace = self._settings.cloudwatch_namespace
        if namespace is None:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        values = self._backlog.of_models(self._settings.model_names)
        data: Any = [entry for backlog in values for entry in self._entries(backlog)]
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

            self._client = boto3.Session().client("cloudwatch")
        return self._client
