"""The workers: ECS tasks on spot instances, as many as the backlog asks for, down to none."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from network import Network
from policy import steps
from software import Software, log_driver, namespace

# Of a four-core instance with 16 GiB: what is left after the system and the ECS agent.
WORKER_CPU = 3584
WORKER_MEMORY_MIB = 13_000
ROOT_GIB = 60


class Fleet(Construct):
    """One worker an instance; one that is called back by AWS hands its chunks back within two minutes."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        network: Network,
        cluster: ecs.Cluster,
        software: Software,
        repository: ecr.IRepository,
        photos: s3.IBucket,
    ) -> None:
        super().__init__(scope, id)
        self._software = software
        self.security_group = network.security_group("WorkerGroup", "Worker instances")
        self.group = self._instances(network)
        provider = ecs.AsgCapacityProvider(
            self,
            "Capacity",
            auto_scaling_group=self.group,
            enable_managed_scaling=True,
            enable_managed_draining=True,
            enable_managed_termination_protection=True,
            target_capacity_percent=100,
            instance_warmup_period=60,
        )
        cluster.add_asg_capacity_provider(provider)
        self.service = ecs.Ec2Service(
            self,
            "Service",
            cluster=cluster,
            task_definition=self._task(repository, photos),
            # No desired count: a release would set it again, and end the workers of a running job for a zero.
            # An instance has room for one worker: the old one goes before the new one comes.
            min_healthy_percent=0,
            max_healthy_percent=100,
            capacity_provider_strategies=[
                ecs.CapacityProviderStrategy(capacity_provider=provider.capacity_provider_name, weight=1)
            ],
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
        )
        self._follow_backlog()

    def _instances(self, network: Network) -> autoscaling.AutoScalingGroup:
        chosen = self._software.deployment
        hardware = ecs.AmiHardwareType.GPU if chosen.gpu else ecs.AmiHardwareType.STANDARD
        names = chosen.worker_instance_types
        data = ec2.UserData.for_linux()
        # SIGTERM to the tasks as soon as AWS announces that it takes a spot instance back.
        data.add_commands("echo ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config")
        template = ec2.LaunchTemplate(
            self,
            "Template",
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(hardware),
            instance_type=ec2.InstanceType(names[0]),
            security_group=self.security_group,
            role=self._instance_role(),
            user_data=data,
            require_imdsv2=True,
            http_put_response_hop_limit=1,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        ROOT_GIB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
                    ),
                )
            ],
        )
        policy = autoscaling.MixedInstancesPolicy(
            launch_template=template,
            launch_template_overrides=[
                autoscaling.LaunchTemplateOverrides(instance_type=ec2.InstanceType(name)) for name in names
            ],
            instances_distribution=autoscaling.InstancesDistribution(
                on_demand_base_capacity=chosen.on_demand_base,
                on_demand_percentage_above_base_capacity=0,
                spot_allocation_strategy=autoscaling.SpotAllocationStrategy.PRICE_CAPACITY_OPTIMIZED,
            ),
        )
        return autoscaling.AutoScalingGroup(
            self,
            "Instances",
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            mixed_instances_policy=policy,
            min_capacity=0,
            max_capacity=chosen.max_workers,
            new_instances_protected_from_scale_in=True,
            group_metrics=[autoscaling.GroupMetrics.all()],
            capacity_rebalance=True,
        )

    def _instance_role(self) -> iam.Role:
        # The ECS agent's rights come with the capacity provider; tasks have a role of their own.
        return iam.Role(self, "InstanceRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))

    def _task(self, repository: ecr.IRepository, photos: s3.IBucket) -> ecs.Ec2TaskDefinition:
        chosen = self._software.deployment
        task = ecs.Ec2TaskDefinition(self, "Task", volumes=[ecs.Volume(name="tmp", host=ecs.Host())])
        self._software.grant(task.task_role)
        # Photos are read where they lie; results are written beside them where a job asks for it.
        photos.grant_read_write(task.task_role)
        container = task.add_container(
            "worker",
            image=ecs.ContainerImage.from_ecr_repository(
                repository, f"{chosen.tag}-cuda" if chosen.gpu else chosen.tag
            ),
            command=["worker", "--model", chosen.model],
            cpu=WORKER_CPU,
            memory_limit_mib=WORKER_MEMORY_MIB,
            gpu_count=1 if chosen.gpu else None,
            environment=self._software.environment(CAPTIONFLEET_ALIVE_FILE="/tmp/alive"),  # noqa: S108
            secrets=self._software.secrets(),
            logging=log_driver(self, "Log"),
            readonly_root_filesystem=True,
            # A chunk in hand is finished or handed back within this time.
            stop_timeout=Duration.seconds(100),
            health_check=ecs.HealthCheck(
                command=["CMD-SHELL", "test $(($(date +%s) - $(stat -c %Y /tmp/alive))) -lt 30"],
                interval=Duration.seconds(15),
                start_period=Duration.seconds(180),
            ),
        )
        container.add_mount_points(
            ecs.MountPoint(container_path="/tmp", source_volume="tmp", read_only=False)  # noqa: S108
        )
        return task

    def _follow_backlog(self) -> None:
        """Set the number of workers by the backlog in seconds; the first comes with the first image."""
        chosen = self._software.deployment
        backlog = cloudwatch.Metric(
            namespace=namespace(chosen),
            metric_name="BacklogSeconds",
            dimensions_map={"Model": chosen.model},
            statistic="Maximum",
            period=Duration.minutes(1),
        )
        target = self.service.auto_scale_task_count(min_capacity=0, max_capacity=chosen.max_workers)
        intervals = [
            scaling.ScalingInterval(lower=step.lower, upper=step.upper, change=step.workers)
            for step in steps(chosen.drain_seconds, chosen.max_workers)
        ]
        target.scale_on_metric(
            "Backlog",
            metric=backlog,
            scaling_steps=intervals,
            adjustment_type=scaling.AdjustmentType.EXACT_CAPACITY,
            evaluation_periods=1,
            cooldown=Duration.minutes(3),
        )
