"""The API on Fargate behind a load balancer; its tasks migrate the database before they serve."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as balancing
from aws_cdk import aws_s3 as s3
from constructs import Construct

from network import Network
from software import Software, log_driver

PORT = 8080


class Api(Construct):
    """Stateless API tasks; a release that does not become healthy is rolled back by itself."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        network: Network,
        cluster: ecs.ICluster,
        software: Software,
        repository: ecr.IRepository,
        photos: s3.IBucket,
        access_logs: s3.IBucket,
    ) -> None:
        super().__init__(scope, id)
        chosen = software.deployment
        self.security_group = network.security_group("ApiGroup", "API tasks")
        self.task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=chosen.api_cpu,
            memory_limit_mib=chosen.api_memory_mib,
            volumes=[ecs.Volume(name="tmp")],
        )
        software.grant(self.task.task_role)
        # Jobs may name photos under prefixes that their owner was granted.
        photos.grant_read(self.task.task_role)
        logging = log_driver(self, "Log")
        image = ecs.ContainerImage.from_ecr_repository(repository, chosen.tag)
        migration = self._container("migrate", image, software, logging, command=["migrate"], essential=False)
        serving = self._container("api", image, software, logging, command=["api"], essential=True)
        serving.add_port_mappings(ecs.PortMapping(container_port=PORT))
        serving.add_container_dependencies(
            ecs.ContainerDependency(container=migration, condition=ecs.ContainerDependencyCondition.SUCCESS)
        )
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=cluster,
            task_definition=self.task,
            desired_count=chosen.api_count,
            min_healthy_percent=100,
            max_healthy_percent=200,
            security_groups=[self.security_group],
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            health_check_grace_period=Duration.minutes(2),
        )
        self.balancer = self._balancer(network, access_logs, public=bool(chosen.certificate_arn))
        self.targets = self._listen(chosen.certificate_arn, chosen.allowed_cidr)

    def _container(
        self,
        name: str,
        image: ecs.ContainerImage,
        software: Software,
        logging: ecs.LogDriver,
        *,
        command: list[str],
        essential: bool,
    ) -> ecs.ContainerDefinition:
        container = self.task.add_container(
            name,
            image=image,
            command=command,
            essential=essential,
            environment=software.environment(),
            secrets=software.secrets(),
            logging=logging,
            readonly_root_filesystem=True,
        )
        container.add_mount_points(
            ecs.MountPoint(container_path="/tmp", source_volume="tmp", read_only=False)  # noqa: S108
        )
        return container

    def _balancer(
        self, network: Network, access_logs: s3.IBucket, *, public: bool
    ) -> balancing.ApplicationLoadBalancer:
        group = ec2.SecurityGroup(
            self,
            "BalancerGroup",
            vpc=network.vpc,
            description="The load balancer",
            allow_all_outbound=False,
        )
        balancer = balancing.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            internet_facing=public,
            vpc_subnets=ec2.SubnetSelection(
                subnet_type=ec2.SubnetType.PUBLIC if public else ec2.SubnetType.PRIVATE_WITH_EGRESS
            ),
            security_group=group,
            # Longer than the longest poll (30 s); uploads and downloads send all the time.
            idle_timeout=Duration.seconds(60),
            drop_invalid_header_fields=True,
        )
        balancer.log_access_logs(access_logs, "balancer")
        return balancer

    def _listen(self, certificate_arn: str, allowed_cidr: str) -> balancing.ApplicationTargetGroup:
        if certificate_arn:
            certificate = acm.Certificate.from_certificate_arn(self, "Certificate", certificate_arn)
            listener = self.balancer.add_listener(
                "Https", port=443, certificates=[certificate], ssl_policy=balancing.SslPolicy.RECOMMENDED_TLS
            )
            self.balancer.add_redirect()
        else:
            # No certificate: keys would cross the internet in the clear, so only private addresses may call.
            listener = self.balancer.add_listener("Http", port=80, open=False)
            listener.connections.allow_default_port_from(
                ec2.Peer.ipv4(allowed_cidr), "Without a certificate: from here only"
            )
        return listener.add_targets(
            "Api",
            port=PORT,
            protocol=balancing.ApplicationProtocol.HTTP,
            targets=[self.service],
            deregistration_delay=Duration.seconds(35),
            health_check=balancing.HealthCheck(
                path="/healthz", interval=Duration.seconds(15), healthy_threshold_count=2
            ),
        )
