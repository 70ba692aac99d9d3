"""Alarms, and a dashboard of what an operator looks at first."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_elasticloadbalancingv2 as balancing
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from api import Api
from data import Database
from deployment import Deployment
from fleet import Fleet
from software import namespace
from storage import PhotoEvents

OLD_JOB = Duration.hours(6)
GIB = 1 << 30
REPLAY = "mend the reason, then `captionfleet events replay` in a task of the event consumer"


class Watch(Construct):
    """What wakes somebody up: dead letters, jobs that grow old, errors of the API, a full database."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
        api: Api,
        database: Database,
        fleet: Fleet,
        photos: PhotoEvents,
    ) -> None:
        super().__init__(scope, id)
        self.topic = self._topic()
        if deployment.alarm_email:
            self.topic.add_subscription(subscriptions.EmailSubscription(deployment.alarm_email))
        own = {"namespace": namespace(deployment), "dimensions_map": {"Model": deployment.model}}
        seconds = cloudwatch.Metric(metric_name="BacklogSeconds", statistic="Maximum", **own)
        images = cloudwatch.Metric(metric_name="BacklogImages", statistic="Maximum", **own)
        oldest = cloudwatch.Metric(metric_name="OldestJobSeconds", statistic="Maximum", **own)
        failures = api.targets.metrics.http_code_target(
            balancing.HttpCodeTarget.TARGET_5XX_COUNT, period=Duration.minutes(5)
        )
        dead = photos.dead_letters.metric_approximate_number_of_messages_visible()
        space = database.instance.metric_free_storage_space()
        self._alarm("DeadLetters", dead, 1, "Events that could not become jobs: " + REPLAY)
        self._alarm("OldJob", oldest, OLD_JOB.to_seconds(), "A job is older than six hours")
        self._alarm("ApiErrors", failures, 10, "The API answered with errors of its own")
        self._alarm("DatabaseSpace", space, 5 * GIB, "The database's disk is nearly full", below=True)
        self._alarm(
            "NoBacklogMetric",
            images,
            0,
            "Nobody publishes the backlog: no process of the service is running",
            below=True,
            missing=cloudwatch.TreatMissingData.BREACHING,
        )
        processor = database.instance.metric_cpu_utilization()
        workers = fleet.group
        self._dashboard(
            deployment.name,
            [
                ("Backlog, seconds of one worker", [seconds]),
                ("Backlog, images", [images]),
                ("Oldest job, seconds", [oldest]),
                ("Worker instances", [_in_service(workers.auto_scaling_group_name)]),
                ("API errors", [failures]),
                ("API latency, seconds", [api.targets.metrics.target_response_time(statistic="p99")]),
                ("Database CPU, percent", [processor]),
                ("Dead letters", [dead]),
            ],
        )

    def _topic(self) -> sns.Topic:
        """A topic with a key of its own: CloudWatch may not use AWS's key for encrypted topics."""
        alarms = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        key = kms.Key(self, "Key", enable_key_rotation=True, description="Captionfleet's alarms")
        key.grant_encrypt_decrypt(alarms)
        topic = sns.Topic(self, "Alarms", master_key=key, enforce_ssl=True)
        topic.grant_publish(alarms)
        return topic

    def _alarm(
        self,
        id: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        what: str,
        *,
        below: bool = False,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        operator = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            id,
            metric=metric,
            threshold=threshold,
            evaluation_periods=3,
            alarm_description=what,
            comparison_operator=operator.LESS_THAN_THRESHOLD
            if below
            else operator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))

    def _dashboard(self, name: str, graphs: list[tuple[str, list[cloudwatch.IMetric]]]) -> None:
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=name)
        widgets = [cloudwatch.GraphWidget(title=title, left=left, width=12) for title, left in graphs]
        for number in range(0, len(widgets), 2):
            dashboard.add_widgets(*widgets[number : number + 2])


def _in_service(group: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/AutoScaling",
        metric_name="GroupInServiceInstances",
        dimensions_map={"AutoScalingGroupName": group},
        statistic="Maximum",
    )
