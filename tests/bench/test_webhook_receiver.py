"""The bench's receiver of webhooks counts what came, however it was cut into packets."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.webhook_receiver import WrongRequest, receiving, requests_in


def post(body: bytes) -> bytes:
    """A request."""
    return b"POST /hook HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 60))
def test_requests_are_counted_however_they_are_cut(bodies: list[bytes], size: int) -> None:
    """Each once, when its last byte is there; a body may hold what looks like a head."""
    stream = b"".join(map(post, bodies))
    buffer, count = bytearray(), 0
    for at in range(0, len(stream), size):
        buffer += stream[at : at + size]
        count += requests_in(buffer)
    assert (count, bytes(buffer)) == (len(bodies), b"")


def test_a_request_without_a_length_is_wrong() -> None:
    """Chunked bodies would be counted as something else."""
    with pytest.raises(WrongRequest):
        requests_in(bytearray(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"))


async def test_a_receiver_answers_each_and_says_when_there_are_enough() -> None:
    """Two requests over one connection: two answers, and `enough`."""
    async with receiving(2) as received:
        host, port = received.url.removeprefix("http://").partition("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(post(b"{}") + post(b"{}"))
        answers = b"HTTP/1.1 204 No Content\r\n\r\n" * 2
        assert await reader.readexactly(len(answers)) == answers
        await received.enough.wait()
        assert received.count == 2
        writer.close()
        await writer.wait_closed()
