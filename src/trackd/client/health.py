"""Whether a server answers: one question, not repeated, by the standard health protocol of gRPC."""

from enum import StrEnum

from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from trackd.client.channel import Channels
from trackd.client.errors import error_of


class Health(StrEnum):
    """What a server says of itself."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"


async def check_health(server: str, *, service: str = "", timeout_ms: int) -> Health:
    """What the server at HOST:PORT says of itself, or of one of the names that it has a health for.

    Raises a TrackdError where none answers in time, or none has the name.
    """
    async with Channels(server) as channels:
        check = channels.any().unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await check(HealthCheckRequest(service=service), timeout=timeout_ms / 1000)
        except aio.AioRpcError as failure:
            raise error_of(failure) from failure
    name = HealthCheckResponse.ServingStatus.Name(answer.status)
    return Health.__members__.get(name, Health.UNKNOWN)
