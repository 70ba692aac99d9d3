"""``python -m tests.chaos``: every fault many times, one by one, and the table of what it cost.

``--minutes 60`` injects them at random instead, whatever still goes on from the last.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.machine import describe_machine
from tests.chaos.campaign import Campaign
from tests.chaos.cluster import faulty_cluster
from tests.chaos.faults import all_faults


def main() -> int:
    """Run a campaign; exit status 1 if anything was lost, double or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--times", type=int, default=30, help="how often each fault is injected")
    parser.add_argument("--minutes", type=float, default=0, help="inject at random for so long instead")
    parser.add_argument("--pause", type=float, default=3.6, help="seconds between those, on average")
    parser.add_argument("--fault", default="", help="only those whose name contains this")
    parser.add_argument("--lease", type=float, default=30, help="CAPTIONFLEET_LEASE of the workers")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    faults = [fault for fault in all_faults() if arguments.fault in fault.name]
    print(f"{describe_machine()}\nseed {arguments.seed}, lease {arguments.lease:g} s", flush=True)
    with faulty_cluster(arguments.workers, arguments.lease) as cluster:
        campaign = Campaign(cluster, arguments.seed)
        if arguments.minutes:
            campaign.at_random(faults, int(60 * arguments.minutes / arguments.pause), arguments.pause)
        else:
            campaign.one_by_one(faults, arguments.times)
        account = campaign.settle()
        print(campaign.table())
    jobs = len(cluster.expected)
    print(f"{len(campaign.injections)} faults, {len(campaign.missed)} that found no moment, {jobs} jobs")
    print(f"{account.items:,} items: {account.lost} lost, {account.double} double")
    print(f"seed {arguments.seed}: {len(account.wrong)} things wrong", *account.wrong[:20], sep="\n")
    return int(bool(account.lost or account.double or account.wrong))


if __name__ == "__main__":
    sys.exit(main())
