"""Clients of Perilune's services, for other projects: gRPC, protobuf and pydantic are all they need.

Each comes in two kinds, for threads and for asyncio. They try again while a service is away, give every call a
deadline, raise the exceptions of `perilune.errors`, and return the messages of `perilune.api`.
"""

from perilune.client.reward import AsyncRewardClient, RewardClient, grader
from perilune.client.run import AsyncRunClient, RunClient

__all__ = ["AsyncRewardClient", "AsyncRunClient", "RewardClient", "RunClient", "grader"]
