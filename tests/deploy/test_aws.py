"""What the templates promise: nothing public without need, least rights, and a fleet that can be empty."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.deploy.synthesis import AWS, Template, synthesise


def of_type(template: Template, kind: str) -> list[dict[str, Any]]:
    return [entry["Properties"] for entry in template["Resources"].values() if entry["Type"] == kind]


def only(template: Template, kind: str) -> dict[str, Any]:
    (found,) = of_type(template, kind)
    return found


def containers(template: Template) -> Iterator[dict[str, Any]]:
    for task in of_type(template, "AWS::ECS::TaskDefinition"):
        yield from task["ContainerDefinitions"]


def several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def sqs_rights(policy: dict[str, Any]) -> list[tuple[str, str]]:
    """What a policy lets a role do with which queue."""
    return [
        (action, queue["Fn::GetAtt"][0])
        for statement in policy["PolicyDocument"]["Statement"]
        for action in several(statement["Action"])
        if action.startswith("sqs:")
        for queue in several(statement["Resource"])
    ]


def test_cfn_lint_finds_nothing(synthesised: Path) -> None:
    files = [str(file) for file in synthesised.glob("*.template.json")]
    # W3005: the CDK states dependencies that a reference already implies.
    cfn_lint = str(Path(sys.executable).parent / "cfn-lint")
    command = [cfn_lint, "--regions", "us-east-1", "--ignore-checks", "W3005"]
    run = subprocess.run(
        [*command, "--", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_database_is_private_encrypted_and_kept(service: Template) -> None:
    database = only(service, "AWS::RDS::DBInstance")
    assert database["PubliclyAccessible"] is False
    assert database["StorageEncrypted"] is True
    assert database["DeletionProtection"] is True
    assert int(database["BackupRetentionPeriod"]) >= 7
    assert only(service, "AWS::RDS::DBParameterGroup")["Parameters"]["rds.force_ssl"] == "1"


def test_the_broker_speaks_tls_and_is_no_cluster(service: Template) -> None:
    broker = only(service, "AWS::ElastiCache::ReplicationGroup")
    assert broker["TransitEncryptionEnabled"] is True
    assert broker["AuthToken"]
    # The message transport does not speak cluster mode.
    assert broker["NumCacheClusters"] == 1
    assert "NumNodeGroups" not in broker
    assert only(service, "AWS::ElastiCache::ParameterGroup")["Properties"]["maxmemory-policy"] == "noeviction"


def test_only_the_service_s_own_processes_reach_the_data(service: Template) -> None:
    into = of_type(service, "AWS::EC2::SecurityGroupIngress")
    for port in (5432, 6379):
        callers = [rule for rule in into if rule["FromPort"] == port]
        assert len(callers) == 3
        assert all("SourceSecurityGroupId" in rule and "CidrIp" not in rule for rule in callers)


def test_every_bucket_is_private_and_encrypted(service: Template) -> None:
    buckets = of_type(service, "AWS::S3::Bucket")
    assert len(buckets) == 3
    for bucket in buckets:
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        assert bucket["BucketEncryption"]


def test_new_photos_are_announced_and_what_fails_is_kept(service: Template) -> None:
    (notified,) = of_type(service, "Custom::S3BucketNotifications")
    assert notified["NotificationConfiguration"]["QueueConfigurations"][0]["Events"] == ["s3:ObjectCreated:*"]
    queues = of_type(service, "AWS::SQS::Queue")
    assert [queue["RedrivePolicy"]["maxReceiveCount"] for queue in queues if "RedrivePolicy" in queue] == [5]


def test_the_event_consumer_alone_may_replay_dead_letters(service: Template) -> None:
    """`captionfleet events replay` takes from the one queue and sends to the other."""
    queues = [name for name, entry in service["Resources"].items() if entry["Type"] == "AWS::SQS::Queue"]
    assert len(queues) == 2
    (rights,) = [found for policy in of_type(service, "AWS::IAM::Policy") if (found := sqs_rights(policy))]
    for queue in queues:
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:SendMessage"):
            assert (action, queue) in rights
    task = next(found for found in containers(service) if found["Command"] == ["events"])
    given = {entry["Name"]: entry["Value"] for entry in task["Environment"]}
    assert given["CAPTIONFLEET_EVENTS_QUEUE_URL"] == service["Outputs"]["Queue"]["Value"]


def test_no_right_on_everything(service: Template) -> None:
    for policy in of_type(service, "AWS::IAM::Policy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = several(statement["Action"])
            assert "*" not in actions
            assert not any(action.endswith(":*") for action in actions), statement
            if statement["Resource"] == "*" and "cloudwatch:PutMetricData" in actions:
                assert statement["Condition"]["StringEquals"] == {
                    "cloudwatch:namespace": "Captionfleet/captionfleet"
                }


def test_secrets_reach_containers_as_secrets_only(service: Template) -> None:
    for container in containers(service):
        names = {entry["Name"] for entry in container["Environment"]}
        assert not names & {"REDIS_URL", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"}
        assert {entry["Name"] for entry in container["Secrets"]} == {"REDIS_URL", "PGPASSWORD"}
        assert container["ReadonlyRootFilesystem"] is True


def test_the_api_migrates_before_it_serves_and_before_workers_change(service: Template) -> None:
    serving = next(found for found in containers(service) if found["Command"] == ["api"])
    assert serving["DependsOn"] == [{"Condition": "SUCCESS", "ContainerName": "migrate"}]
    services = {
        name: entry for name, entry in service["Resources"].items() if entry["Type"] == "AWS::ECS::Service"
    }
    (api,) = [name for name in services if name.startswith("Api")]
    for name, entry in services.items():
        assert entry["Properties"]["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {
            "Enable": True,
            "Rollback": True,
        }
        if name != api:
            assert api in entry["DependsOn"]


def test_workers_run_on_spot_follow_the_backlog_and_can_be_none(service: Template) -> None:
    group = only(service, "AWS::AutoScaling::AutoScalingGroup")
    assert group["MinSize"] == "0"
    spread = group["MixedInstancesPolicy"]["InstancesDistribution"]
    assert spread["OnDemandPercentageAboveBaseCapacity"] == 0
    template = only(service, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert template["MetadataOptions"]["HttpTokens"] == "required"
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in json.dumps(template["UserData"])
    target = only(service, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 8)
    changes = {
        adjustment["ScalingAdjustment"]
        for policy in of_type(service, "AWS::ApplicationAutoScaling::ScalingPolicy")
        for adjustment in policy["StepScalingPolicyConfiguration"]["StepAdjustments"]
    }
    assert changes == set(range(9))
    alarms = [alarm for alarm in of_type(service, "AWS::CloudWatch::Alarm") if "MetricName" in alarm]
    backlog = [alarm for alarm in alarms if alarm["MetricName"] == "BacklogSeconds"]
    assert backlog
    assert all(alarm["Namespace"] == "Captionfleet/captionfleet" for alarm in backlog)


def test_a_release_leaves_the_number_of_workers_to_the_backlog(service: Template) -> None:
    services = of_type(service, "AWS::ECS::Service")
    (workers,) = [entry for entry in services if "CapacityProviderStrategy" in entry]
    assert "DesiredCount" not in workers
    assert [entry["DesiredCount"] for entry in services if entry is not workers]


def test_alarms_may_use_their_topic_and_its_key(service: Template) -> None:
    allowed = [
        (statement["Action"], kind)
        for kind, policy in (("AWS::SNS::TopicPolicy", "PolicyDocument"), ("AWS::KMS::Key", "KeyPolicy"))
        for statement in only(service, kind)[policy]["Statement"]
        if statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ]
    assert ("sns:Publish", "AWS::SNS::TopicPolicy") in allowed
    (key,) = [action for action, kind in allowed if kind == "AWS::KMS::Key"]
    assert {"kms:Decrypt", "kms:GenerateDataKey*"} <= set(key)


def test_what_tasks_mount_is_a_volume_of_their_image(service: Template) -> None:
    mounted = {mount["ContainerPath"] for found in containers(service) for mount in found["MountPoints"]}
    assert mounted == {"/tmp"}
    for name in ("Dockerfile.api", "Dockerfile.worker"):
        assert "\nVOLUME /tmp\n" in (AWS.parents[1] / name).read_text()


def balancer_place(template: Template) -> tuple[str, str]:
    """The load balancer's scheme and its subnets' type."""
    balancer = only(template, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    subnets = [template["Resources"][subnet["Ref"]]["Properties"] for subnet in balancer["Subnets"]]
    (kind,) = {
        tag["Value"] for subnet in subnets for tag in subnet["Tags"] if tag["Key"] == "aws-cdk:subnet-type"
    }
    return balancer["Scheme"], kind


def test_without_a_certificate_only_private_addresses_may_call(service: Template) -> None:
    (balancer,) = [
        group
        for group in of_type(service, "AWS::EC2::SecurityGroup")
        if group["GroupDescription"] == "The load balancer"
    ]
    assert [rule["CidrIp"] for rule in balancer["SecurityGroupIngress"]] == ["10.0.0.0/8"]
    # By its public addresses nobody of them could reach it.
    assert balancer_place(service) == ("internal", "Private")


def test_other_choices(tmp_path: Path) -> None:
    templates = synthesise(
        tmp_path,
        "name=photos",
        "gpu=false",
        "max_workers=40",
        "photos_bucket=my-photos",
        "photos_prefix=in/",
        "certificate_arn=arn:aws:acm:us-east-1:111122223333:certificate/abc",
    )
    service = templates["photos"]
    assert "AWS::EC2::LaunchTemplate" in {entry["Type"] for entry in service["Resources"].values()}
    worker = next(found for found in containers(service) if found["Command"][0] == "worker")
    assert "ResourceRequirements" not in worker
    rule = only(service, "AWS::Events::Rule")["EventPattern"]
    assert rule["detail"] == {"bucket": {"name": ["my-photos"]}, "object": {"key": [{"prefix": "in/"}]}}
    ports = sorted(listener["Port"] for listener in of_type(service, "AWS::ElasticLoadBalancingV2::Listener"))
    assert ports == [80, 443]
    assert balancer_place(service) == ("internet-facing", "Public")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gpu", "perhaps", "true or false"),
        ("max_workers", "many", "many"),
        ("allowed_cidr", "0.0.0.0/0", "give certificate_arn"),
        ("allowed_cidr", "10.0.0.0/7", "give certificate_arn"),
        ("allowed_cidr", "here", "here"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(load: object, name: str, value: str, message: str) -> None:
    read = load("deployment").Deployment.from_context  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        read(SimpleNamespace(try_get_context={name: value}.get))


@pytest.mark.parametrize(
    "choices", [{"allowed_cidr": "172.20.0.0/16"}, {"allowed_cidr": "0.0.0.0/0", "certificate_arn": "arn"}]
)
def test_callers_in_the_clear_have_private_addresses(load: object, choices: dict[str, str]) -> None:
    read = load("deployment").Deployment.from_context  # type: ignore[operator]
    assert read(SimpleNamespace(try_get_context=choices.get)).allowed_cidr == choices["allowed_cidr"]
