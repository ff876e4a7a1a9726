"""HTTP/JSON for any of our gRPC services: the same servicers, in the same process, beside the gRPC port.

    async with serve_http(service, {reward_pb2.DESCRIPTOR.services_by_name["RewardService"]: servicer}):
        await service.ready()

Read in this order: `face.py` (a request becomes a call of a servicer's method), `context.py` (what the method sees of
it), `problems.py` (what the caller sees of a failure), `openapi.py` (the documentation, out of the protos).
"""

from perilune.runtime.http.server import serve_http

__all__ = ["serve_http"]
