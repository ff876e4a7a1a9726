"""Everything on one machine: the launcher, the services as its children, services for one command, the doctor."""

from perilune.local.cluster import LocalCluster, local_cluster
from perilune.local.home import master_of, services_root
from perilune.local.short_lived import own_model, own_reward, own_sandbox, reading_master, recording_master
from perilune.local.supervision import reason_to_give_up

__all__ = [
    "LocalCluster",
    "local_cluster",
    "master_of",
    "own_model",
    "own_reward",
    "own_sandbox",
    "reading_master",
    "reason_to_give_up",
    "recording_master",
    "services_root",
]
