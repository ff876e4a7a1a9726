"""Clients of Perilune's services, for other projects: gRPC, protobuf and pydantic are all they need.

Each comes in two kinds, for threads and for asyncio. They try again while a service is away, give every call a
deadline, raise the exceptions of `perilune.errors`, and return the messages of `perilune.api`.
"""

from perilune.channel import Credentials
from perilune.client.evaluations import AsyncEvaluationClient, EvaluationClient
from perilune.client.reward import AsyncRewardClient, RewardClient, grader, score_request
from perilune.client.run import AsyncRunClient, RunClient
from perilune.client.sandbox import AsyncSandboxClient, AsyncSandboxSession, SandboxClient, SandboxSession
from perilune.client.weights import AsyncWeightsClient, WeightsClient

__all__ = [
    "AsyncEvaluationClient",
    "AsyncRewardClient",
    "AsyncRunClient",
    "AsyncSandboxClient",
    "AsyncSandboxSession",
    "AsyncWeightsClient",
    "Credentials",
    "EvaluationClient",
    "RewardClient",
    "RunClient",
    "SandboxClient",
    "SandboxSession",
    "WeightsClient",
    "grader",
    "score_request",
]
