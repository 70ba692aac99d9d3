"""What can be chosen about a deployment, with defaults that suit a first one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from constructs import Node

PRIVATE = [IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]


@dataclass(frozen=True)
class Deployment:
    """One Captionfleet on AWS. Every field can be given as `cdk deploy -c NAME=VALUE`."""

    name: str = "captionfleet"
    region: str = "us-east-1"
    tag: str = "0.1.0"
    """Tag of the images in the two ECR repositories."""

    # Who reaches the API
    certificate_arn: str = ""
    """ACM certificate: with one the balancer speaks HTTPS to all; without, it is internal and speaks HTTP."""
    allowed_cidr: str = "10.0.0.0/8"
    """Without a certificate: the private addresses that may call."""
    origin: str = ""
    """Where the web page is served, for direct uploads from browsers, such as https://captions.example.com."""

    # Sizes
    api_count: int = 2
    api_cpu: int = 512
    api_memory_mib: int = 1024
    database_class: str = "t4g.medium"
    database_storage_gib: int = 50
    database_standby: bool = False
    """A standby in a second zone: twice the price, minutes less downtime."""
    broker_class: str = "cache.t4g.small"
    nat_gateways: int = 1

    # The fleet
    gpu: bool = True
    """GPU instances; without, CPU ones (and the CPU image)."""
    instance_types: str = "g6.xlarge,g5.xlarge,g4dn.xlarge"
    cpu_instance_types: str = "m7i.xlarge,m6i.xlarge,m5.xlarge"
    max_workers: int = 8
    on_demand_base: int = 0
    """So many workers run on demand before any runs on spot."""
    model: str = "small"
    models: str = "small"
    expected_rate: float = 50.0
    """Images/s of one worker until one has been measured."""
    drain_seconds: int = 600
    """One more worker for each so many seconds of backlog."""

    # Photos
    photos_bucket: str = ""
    """A bucket that exists and whose events come from EventBridge; empty: one is made, with notifications."""
    photos_prefix: str = ""
    retention_days: int = 30
    alarm_email: str = ""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` where keys would cross the internet in the clear."""
        callers = IPv4Network(self.allowed_cidr)
        if not self.certificate_arn and not any(callers.subnet_of(private) for private in PRIVATE):
            raise ValueError(
                f"allowed_cidr={callers} is not private, and plain HTTP shows keys: give certificate_arn"
            )

    @property
    def worker_instance_types(self) -> list[str]:
        """The instance types to choose from, the preferred first."""
        chosen = self.instance_types if self.gpu else self.cpu_instance_types
        return [name.strip() for name in chosen.split(",")]

    @classmethod
    def from_context(cls, node: Node) -> Deployment:
        """Read what was given as context; raises ``ValueError`` for what does not fit its type."""
        given = {field.name: node.try_get_context(field.name) for field in fields(cls)}
        return cls(**{name: _fit(cls, name, value) for name, value in given.items() if value is not None})


def _fit(cls: type[Deployment], name: str, value: Any) -> Any:
    default = getattr(cls, name)
    if isinstance(default, bool):
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, not {value!r}")
        return str(value).lower() == "true"
    return type(default)(value)
