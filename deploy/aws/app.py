"""`cdk deploy`: the image repositories, then everything else, part by part."""

from __future__ import annotations

from typing import Any

from aws_cdk import App, CfnOutput, Environment, Stack, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from api import Api
from data import POSTGRES_PORT, REDIS_PORT, Broker, Database
from deployment import Deployment
from events import EventConsumer
from fleet import Fleet
from network import Network
from software import Repositories, Software
from storage import PhotoEvents, Storage
from watch import Watch


class Images(Stack):
    """The repositories: deployed first, for the images must be there before the service is."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment) -> None:
        super().__init__(scope, id, env=Environment(region=deployment.region))
        self.repositories = Repositories(self, "Repositories", name=deployment.name)
        CfnOutput(self, "ApiRepository", value=self.repositories.api.repository_uri)
        CfnOutput(self, "WorkerRepository", value=self.repositories.worker.repository_uri)


class Service(Stack):
    """Captionfleet: each part gets what it needs from the others as arguments."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, images: Repositories) -> None:
        super().__init__(scope, id, env=Environment(region=deployment.region))
        network = Network(self, "Network", nat_gateways=deployment.nat_gateways)
        storage = Storage(self, "Storage", origin=deployment.origin, retention_days=deployment.retention_days)
        photos = PhotoEvents(
            self,
            "Photos",
            existing_bucket=deployment.photos_bucket,
            prefix=deployment.photos_prefix,
            logs=storage.logs,
        )
        database = Database(
            self,
            "Database",
            network=network,
            instance_class=deployment.database_class,
            storage_gib=deployment.database_storage_gib,
            standby=deployment.database_standby,
        )
        broker = Broker(self, "Broker", network=network, node_type=deployment.broker_class)
        cluster = ecs.Cluster(
            self, "Cluster", vpc=network.vpc, container_insights_v2=ecs.ContainerInsights.ENABLED
        )
        software = Software(deployment, database, broker, storage.bucket, deployment.region)
        # What every process needs.
        given: dict[str, Any] = {"network": network, "cluster": cluster, "software": software}
        api = Api(
            self,
            "Api",
            **given,
            repository=images.api,
            photos=photos.bucket,
            access_logs=storage.logs,
        )
        fleet = Fleet(
            self,
            "Fleet",
            **given,
            repository=images.worker,
            photos=photos.bucket,
        )
        events = EventConsumer(
            self,
            "Events",
            **given,
            repository=images.api,
            photos=photos,
        )
        for part in (api, fleet, events):
            _let_in(part.security_group, database, broker)
        _migrate_first(api, fleet.service, events.service)
        Watch(self, "Watch", deployment=deployment, api=api, database=database, fleet=fleet, photos=photos)
        self._tell(api, events, photos, cluster)

    def _tell(self, api: Api, events: EventConsumer, photos: PhotoEvents, cluster: ecs.ICluster) -> None:
        outputs = {
            "Address": api.balancer.load_balancer_dns_name,
            "PhotosBucket": photos.bucket.bucket_name,
            "Queue": photos.queue.queue_url,
            "DeadLetterQueue": photos.dead_letters.queue_url,
            "ClusterName": cluster.cluster_name,
            "ApiService": api.service.service_name,
            "EventsService": events.service.service_name,
        }
        for name, value in outputs.items():
            CfnOutput(self, name, value=value)


def _migrate_first(api: Api, *others: ecs.BaseService) -> None:
    """The API's tasks migrate the database: whoever else needs the new schema comes after them."""
    for service in others:
        service.node.add_dependency(api.service)


def _let_in(caller: ec2.ISecurityGroup, database: Database, broker: Broker) -> None:
    database.security_group.add_ingress_rule(caller, ec2.Port.tcp(POSTGRES_PORT), "Captionfleet")
    broker.security_group.add_ingress_rule(caller, ec2.Port.tcp(REDIS_PORT), "Captionfleet")


def build(app: App) -> tuple[Images, Service]:
    """Add both stacks to ``app``, as its context asks for them."""
    deployment = Deployment.from_context(app.node)
    images = Images(app, f"{deployment.name}-images", deployment=deployment)
    service = Service(app, deployment.name, deployment=deployment, images=images.repositories)
    Tags.of(app).add("application", deployment.name)
    return images, service


if __name__ == "__main__":
    app = App()
    build(app)
    app.synth()
