"""The consumer of the photos bucket's events: a small task that turns them into jobs."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from network import Network
from software import Software, log_driver
from storage import PhotoEvents


class EventConsumer(Construct):
    """One task; a second one would do no harm, for every event is taken once."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        network: Network,
        cluster: ecs.ICluster,
        software: Software,
        repository: ecr.IRepository,
        photos: PhotoEvents,
    ) -> None:
        super().__init__(scope, id)
        self.security_group = network.security_group("EventsGroup", "The event consumer")
        task = ecs.FargateTaskDefinition(
            self, "Task", cpu=256, memory_limit_mib=512, volumes=[ecs.Volume(name="tmp")]
        )
        software.grant(task.task_role)
        photos.bucket.grant_read(task.task_role)
        photos.queue.grant_consume_messages(task.task_role)
        # `captionfleet events replay` runs in a task of this definition, too.
        photos.queue.grant_send_messages(task.task_role)
        photos.dead_letters.grant_send_messages(task.task_role)
        photos.dead_letters.grant_consume_messages(task.task_role)
        container = task.add_container(
            "events",
            image=ecs.ContainerImage.from_ecr_repository(repository, software.deployment.tag),
            command=["events"],
            environment=software.environment(
                CAPTIONFLEET_ALIVE_FILE="/tmp/alive",  # noqa: S108
                CAPTIONFLEET_EVENTS_QUEUE_URL=photos.queue.queue_url,
            ),
            secrets=software.secrets(),
            logging=log_driver(self, "Log"),
            readonly_root_filesystem=True,
            # It touches the file whenever it has asked the queue.
            health_check=ecs.HealthCheck(
                command=["CMD-SHELL", "test $(($(date +%s) - $(stat -c %Y /tmp/alive))) -lt 30"],
                interval=Duration.seconds(15),
                start_period=Duration.seconds(60),
            ),
        )
        container.add_mount_points(
            ecs.MountPoint(container_path="/tmp", source_volume="tmp", read_only=False)  # noqa: S108
        )
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=cluster,
            task_definition=task,
            desired_count=1,
            min_healthy_percent=0,
            max_healthy_percent=100,
            security_groups=[self.security_group],
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
        )
