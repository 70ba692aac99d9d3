"""Buckets, and the queue of their events."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_notifications as notifications
from aws_cdk import aws_sqs as sqs
from constructs import Construct


class Storage(Construct):
    """The service's own bucket: uploads, and nothing that cannot be lost once its job has expired."""

    def __init__(self, scope: Construct, id: str, *, origin: str, retention_days: int) -> None:
        super().__init__(scope, id)
        self.logs = _bucket(
            self,
            "Logs",
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(90))],
        )
        cors = [
            s3.CorsRule(
                allowed_methods=[s3.HttpMethods.GET, s3.HttpMethods.PUT],
                allowed_origins=[origin],
                allowed_headers=["content-type", "content-length"],
                max_age=3600,
            )
        ]
        self.bucket = _bucket(
            self,
            "Objects",
            cors=cors if origin else None,
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix="objects/",
            lifecycle_rules=[
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1)),
                # The sweep deletes with the job; this is the check: twice the time a finished job is kept.
                s3.LifecycleRule(expiration=Duration.days(2 * retention_days)),
            ],
        )


class PhotoEvents(Construct):
    """The photos' bucket and the queue that new objects in it are announced to."""

    def __init__(
        self, scope: Construct, id: str, *, existing_bucket: str, prefix: str, logs: s3.IBucket
    ) -> None:
        super().__init__(scope, id)
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            retention_period=Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
        )
        self.queue = sqs.Queue(
            self,
            "Queue",
            # Longer than the consumer takes to turn one receive into jobs.
            visibility_timeout=Duration.minutes(2),
            retention_period=Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=5, queue=self.dead_letters),
        )
        if existing_bucket:
            self.bucket = s3.Bucket.from_bucket_name(self, "Photos", existing_bucket)
            self._announce_by_event_bridge(existing_bucket, prefix)
        else:
            made = _bucket(
                self,
                "Photos",
                server_access_logs_bucket=logs,
                server_access_logs_prefix="photos/",
                removal_policy=RemovalPolicy.RETAIN,
                versioned=True,
            )
            filters = [s3.NotificationKeyFilter(prefix=prefix)] if prefix else []
            made.add_object_created_notification(notifications.SqsDestination(self.queue), *filters)
            self.bucket = made

    def _announce_by_event_bridge(self, bucket: str, prefix: str) -> None:
        detail: dict[str, object] = {"bucket": {"name": [bucket]}}
        if prefix:
            detail["object"] = {"key": [{"prefix": prefix}]}
        pattern = events.EventPattern(source=["aws.s3"], detail_type=["Object Created"], detail=detail)
        events.Rule(self, "Created", event_pattern=pattern, targets=[targets.SqsQueue(self.queue)])


def _bucket(scope: Construct, id: str, **more: object) -> s3.Bucket:
    given: dict[str, object] = {
        "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
        "encryption": s3.BucketEncryption.S3_MANAGED,
        "enforce_ssl": True,
        "minimum_tls_version": 1.2,
        "removal_policy": RemovalPolicy.RETAIN,
    }
    return s3.Bucket(scope, id, **{**given, **more})  # type: ignore[arg-type]
