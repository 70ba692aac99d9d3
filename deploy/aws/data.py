"""The database, which is the truth, and the broker, which may lose everything."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, SecretValue
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secrets
from constructs import Construct

from network import Network

DATABASE = "captionfleet"
USER = "captionfleet"
POSTGRES_PORT = 5432
REDIS_PORT = 6379


class Database(Construct):
    """PostgreSQL on RDS: encrypted, not public, TLS only, backed up for a week, kept when the stack goes."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        network: Network,
        instance_class: str,
        storage_gib: int,
        standby: bool,
    ) -> None:
        super().__init__(scope, id)
        self.security_group = network.security_group("DatabaseGroup", "The database")
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_17_6)
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            engine=engine,
            instance_type=ec2.InstanceType(instance_class),
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[self.security_group],
            credentials=rds.Credentials.from_generated_secret(USER, exclude_characters="%/@:\"' \\"),
            database_name=DATABASE,
            allocated_storage=storage_gib,
            max_allocated_storage=10 * storage_gib,
            storage_type=rds.StorageType.GP3,
            storage_encrypted=True,
            multi_az=standby,
            backup_retention=Duration.days(7),
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            removal_policy=RemovalPolicy.RETAIN,
            auto_minor_version_upgrade=True,
            cloudwatch_logs_exports=["postgresql"],
            enable_performance_insights=True,
            parameters={"rds.force_ssl": "1"},
        )

    @property
    def url(self) -> str:
        """The database's URL without the password, which libpq takes from ``PGPASSWORD``."""
        host = self.instance.db_instance_endpoint_address
        return f"postgresql://{USER}@{host}:{POSTGRES_PORT}/{DATABASE}?sslmode=require"

    @property
    def secret(self) -> secrets.ISecret:
        """The secret whose field ``password`` is the database's."""
        assert self.instance.secret is not None
        return self.instance.secret


class Broker(Construct):
    """Valkey on ElastiCache, cluster mode off (the message transport does not speak it), TLS and a token."""

    def __init__(self, scope: Construct, id: str, *, network: Network, node_type: str) -> None:
        super().__init__(scope, id)
        self.security_group = network.security_group("BrokerGroup", "The message broker")
        subnets = network.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED).subnet_ids
        group = elasticache.CfnSubnetGroup(
            self, "Subnets", description="Isolated subnets for the broker", subnet_ids=subnets
        )
        token = secrets.Secret(
            self,
            "Token",
            generate_secret_string=secrets.SecretStringGenerator(
                exclude_punctuation=True, password_length=48
            ),
        )
        parameters = elasticache.CfnParameterGroup(
            self,
            "Parameters",
            cache_parameter_group_family="valkey8",
            description="Messages are never evicted",
            properties={"maxmemory-policy": "noeviction"},
        )
        self.cluster = elasticache.CfnReplicationGroup(
            self,
            "Cluster",
            replication_group_description="Captionfleet's message broker",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=node_type,
            num_cache_clusters=1,
            # With one node there is nobody to take over: a lost broker costs seconds, and no image.
            automatic_failover_enabled=False,
            cache_subnet_group_name=group.ref,
            cache_parameter_group_name=parameters.ref,
            security_group_ids=[self.security_group.security_group_id],
            transit_encryption_enabled=True,
            at_rest_encryption_enabled=True,
            auth_token=token.secret_value.unsafe_unwrap(),
        )
        address = self.cluster.attr_primary_end_point_address
        url = (
            f"rediss://:{token.secret_value.unsafe_unwrap()}@{address}:{REDIS_PORT}/0?ssl_cert_reqs=required"
        )
        self.url = secrets.Secret(self, "Url", secret_string_value=SecretValue.unsafe_plain_text(url))
