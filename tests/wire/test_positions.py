"""`min_position` over a real socket: whose positions are taken, and what is told of others."""

import grpc
import pytest

from tests.wire.caller import Caller, reads, refused, scan_event

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


async def test_a_read_may_ask_to_be_as_fresh_as_an_answer(caller: Caller, waybill: str) -> None:
    """The position of an append, of a stream's answer and of a status, in every read."""
    appended = (await caller.append(scan_event("a", waybill))).position
    stream = caller.stream()
    await stream.send("", scan_event("b", waybill), scan_event("b", f"{waybill}-2"))
    (streamed,) = await stream.end()
    status = (await caller.status(waybill)).position
    for position in (appended, streamed.position, status):
        for call in reads(caller, waybill, position).values():
            await call
    assert (await caller.status(waybill, streamed.position)).event_count == 2


async def test_a_position_of_other_data_is_unknown(
    caller: Caller, small_caller: Caller, waybill: str
) -> None:
    """FAILED_PRECONDITION / POSITION_UNKNOWN, naming the data set that is there."""
    foreign = (await small_caller.append(scan_event("a", waybill))).position
    own = (await caller.append(scan_event("a", waybill))).position
    for call in reads(caller, waybill, foreign).values():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "POSITION_UNKNOWN",
        )
        assert refusal.metadata == {"data_set_id": own.partition("/")[0]}


async def test_a_position_from_the_future_is_refused(caller: Caller, waybill: str) -> None:
    """The server never gave it: waiting for it might take for ever."""
    position = (await caller.append(scan_event("a", waybill))).position
    data_set_id = position.partition("/")[0]
    beyond = f"0.{1 << 63}", f"0.{(1 << 64) - 1}", f"1.{'9' * 40}"
    for future in ("0.9999999999", "99.1", "0.0,1.9999999999", *beyond):
        for call in reads(caller, waybill, f"{data_set_id}/{future}").values():
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "INVALID_POSITION")
            assert refusal.fields == ["min_position"]
            assert "future" in refusal.message


@pytest.mark.parametrize(
    "garbage",
    [
        *("x", "/", "//", "1.1", "{}", "{}/", "{}/1", "{}/a.b", "{}/1.1.1", "{}/0.-1", "{}/-1.0"),
        *("{}/0.1,", "{}/,0.1", "{}/0.1;1.1", "{}/0.é", "{}/" + "0.0," * 256 + "0.0"),
        *("{}/0.0 ", "{}/ 0.0", "{}/0.+0", "{}/0.0_0", "{}/0.\uff10", "{}/0.0\n"),
        "{}/0." + "9" * 5_000,
    ],
    ids=lambda text: text[:20],
)
async def test_what_is_no_position_is_refused(caller: Caller, waybill: str, garbage: str) -> None:
    """INVALID_ARGUMENT, whatever stands there; never another error."""
    position = (await caller.append(scan_event("a", waybill))).position
    text_of_it = garbage.replace("{}", position.partition("/")[0])
    for call in reads(caller, waybill, text_of_it).values():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "INVALID_POSITION")
        assert refusal.fields == ["min_position"]
