"""What every container needs: its image, its settings, its rights."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from data import Broker, Database
from deployment import Deployment


@dataclass(frozen=True)
class Software:
    """Settings and secrets that all processes share, and where each process logs."""

    deployment: Deployment
    database: Database
    broker: Broker
    bucket: s3.IBucket
    region: str

    def environment(self, **more: str) -> dict[str, str]:
        """Return the settings of a process."""
        chosen = self.deployment
        return {
            "DATABASE_URL": self.database.url,
            "CAPTIONFLEET_BUCKET": self.bucket.bucket_name,
            "CAPTIONFLEET_MODELS": chosen.models,
            "CAPTIONFLEET_RETENTION_DAYS": str(chosen.retention_days),
            "CAPTIONFLEET_EXPECTED_RATE": str(chosen.expected_rate),
            "CAPTIONFLEET_CLOUDWATCH_NAMESPACE": namespace(chosen),
            "AWS_REGION": self.region,
            **more,
        }

    def secrets(self) -> dict[str, ecs.Secret]:
        """Return what only the container may know."""
        return {
            "PGPASSWORD": ecs.Secret.from_secrets_manager(self.database.secret, "password"),
            "REDIS_URL": ecs.Secret.from_secrets_manager(self.broker.url),
        }

    def grant(self, role: iam.IGrantable) -> None:
        """Let a process use the bucket and publish its own metrics, and nothing else."""
        self.bucket.grant_read_write(role)
        role.grant_principal.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": namespace(self.deployment)}},
            )
        )


def namespace(deployment: Deployment) -> str:
    """Return the CloudWatch namespace of a deployment's own metrics."""
    return f"Captionfleet/{deployment.name}"


def log_driver(scope: Construct, id: str) -> ecs.LogDriver:
    """Return a log group of its own for a process, kept for a month."""
    group = logs.LogGroup(
        scope, id, retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
    )
    return ecs.LogDrivers.aws_logs(stream_prefix="captionfleet", log_group=group)


class Repositories(Construct):
    """The two image repositories; a stack of its own, for images must be there before services are."""

    def __init__(self, scope: Construct, id: str, *, name: str) -> None:
        super().__init__(scope, id)
        self.api, self.worker = (self._repository(f"{name}-{part}") for part in ("api", "worker"))

    def _repository(self, name: str) -> ecr.Repository:
        return ecr.Repository(
            self,
            name,
            repository_name=name,
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.KMS,
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=30)],
        )
