"""Graders in processes of their own, asked over gRPC. They stand in the table beside our own while the service runs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from pydantic import ConfigDict

from perilune.api.reward.v1.grader_pb2 import DescribeRequest, GradeRequest, GradeResponse
from perilune.api.reward.v1.grader_pb2_grpc import GraderServiceStub
from perilune.api.reward.v1.reward_pb2 import GraderInfo
from perilune.channel import open_channel
from perilune.errors import InvalidInputError, error_from_rpc
from services.reward.graders import GRADERS
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_ADDRESS = re.compile(r"unix:.+|(?:dns:///)?(?:[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
DESCRIBE_S = 5.0  # a plug-in that is away is taken up all the same; its scores are UNAVAILABLE until it is there


class PluginOptions(GraderOptions):
    """Whatever the caller gives: the plug-in knows what is right."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclasses.dataclass(frozen=True)
class Plugin(Grader[PluginOptions]):
    """A grader as its plug-in describes it."""

    described: Mapping[str, str] = dataclasses.field(default_factory=dict)  # its options

    def read_options(self, given: Mapping[str, str]) -> PluginOptions:
        """Checks options by the schema that the plugin states. InvalidInputError names a wrong one."""
        return PluginOptions.model_validate(dict(given))

    def looks(self, options: PluginOptions) -> bool:
        """Says that it may look at images: what it makes of them is its own."""
        return True

    def info(self) -> GraderInfo:
        """The plugin as `ListGraders` shows it."""
        return GraderInfo(
            name=self.name, version=self.version, description=self.description, options=dict(self.described)
        )


@contextlib.asynccontextmanager
async def plugged_in(addresses: Mapping[str, str]) -> AsyncIterator[None]:
    """Puts plug-ins, by the names they are to have, into the table of graders while the block runs.

    InvalidInputError if one has no name, the name of a grader of ours, or an address that is none.
    """
    if taken := addresses.keys() & GRADERS.keys():
        raise InvalidInputError(f"PERILUNE_PLUGINS: there is a grader {min(taken)!r} already; take another name")
    for name, address in addresses.items():
        _check(name, address)
    async with contextlib.AsyncExitStack() as channels:
        for name, address in addresses.items():
            channel = await channels.enter_async_context(open_channel(address))
            GRADERS[name] = await _describe(name, GraderServiceStub(channel))
        try:
            yield
        finally:
            for name in addresses:
                del GRADERS[name]


def _check(name: str, address: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"PERILUNE_PLUGINS: {name!r} is no name for a grader; use letters, digits, - and _")
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found["port"] or 1) < 65536:
        raise InvalidInputError(f"PERILUNE_PLUGINS: {name!r} is at {address!r}, which is no address; give HOST:PORT")


async def _describe(name: str, stub: Any) -> Plugin:
    async def ask(sample: GradingSample, options: PluginOptions) -> Verdict:
        answer = await _grade(stub, sample, options)
        if answer.version != GRADERS[name].version:  # it was away at the start, or is a newer one since
            GRADERS[name] = dataclasses.replace(GRADERS[name], version=answer.version)
        return Verdict(answer.value if answer.HasField("value") else None, dict(answer.evidence), answer.version)

    try:
        info = (await stub.Describe(DescribeRequest(), timeout=DESCRIBE_S)).grader
    except grpc.aio.AioRpcError as error:
        logger.warning("PERILUNE_PLUGINS: the plug-in %s does not describe itself: %s", name, error_from_rpc(error))
        info = GraderInfo(description="a plug-in that was away when the service started")
    return Plugin(
        name=name,
        version=info.version,
        description=info.description,
        options=PluginOptions,
        grade=lambda sample, options: None,
        ask=ask,
        described=dict(info.options),
    )


async def _grade(stub: Any, sample: GradingSample, options: PluginOptions) -> GradeResponse:
    request = GradeRequest(
        question=sample.question,
        reference=sample.reference,
        response=sample.response,
        options=options.model_extra,
        conversation=sample.conversation,
        images=sample.images,
    )
    try:
        return await stub.Grade(request)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
