"""Rows 4 and 5: what is left of a killed server's files is damaged before the next start."""

import asyncio
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.ledger import Ledger, key_of
from tests.harness.oracle import ReadBack, expect_sound, findings, look, read_back
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd import exits
from trackd.finding import Kind
from trackd.v1.tracking_pb2 import GetStatusRequest
from trackd.v1.tracking_pb2_grpc import TrackingServiceStub

_PARTITION = "partition-0000"
_MARK = "partition-0000.mark"
# Of each run; enough for a log of many blocks.
_SCANS = 3_000
_GARBAGE_BYTES = 4096
# RocksDB's log is made of blocks, the last bytes of which may hold nothing.
_BLOCK_BYTES = 32 << 10
_HEADER_BYTES = 7


@dataclass(frozen=True, slots=True)
class _Killed:
    """A data directory as a killed server left it, everything in it acknowledged.

    position: the last one acknowledged; older: the same partition, some batches before.
    """

    data: Path
    older: Path
    ledger: Ledger
    position: str

    def damaged(self, folder: Path, damage: "Damage") -> Path:
        """A damaged copy of the data."""
        data = Path(shutil.copytree(self.data, folder / damage.__name__))
        damage(self, data, seeded(damage.__name__))
        return data


Damage = Callable[[_Killed, Path, random.Random], None]


@pytest.fixture(scope="module")
async def killed(tmp_path_factory: pytest.TempPathFactory) -> _Killed:
    """Two runs of load, each ended by a kill at a quiet moment."""
    folder = tmp_path_factory.mktemp("killed")
    older = folder / "older"
    ledger = Ledger()
    fleet = Fleet("DAMAGE", ledger, seeded("damage"), FleetOptions(scanners=4, readers=0))
    server = ServerProcess(folder / "data", "--partitions", "1")
    for _ in range(2):
        if server.launched:
            shutil.copytree(server.data / _PARTITION, older)
        await asyncio.to_thread(server.start)
        enough = len(ledger.acknowledged) + _SCANS
        async with fleet.at_work(server.grpc):
            while len(ledger.acknowledged) < enough:  # noqa: ASYNC110 (the ledger tells nobody)
                await asyncio.sleep(0.02)
        server.kill()
        assert not ledger.unacknowledged()
    # Scanners are answered side by side: the batch sent last need not have the last position.
    positions = [batch.answer.position for batch in ledger.batches if batch.answer]
    last = max(positions, key=lambda position: int(position.rpartition(".")[2]))
    return _Killed(server.data, older, ledger, last)


def _log(data: Path) -> Path:
    """The log with the acknowledged batches."""
    return max((data / _PARTITION).glob("*.log"), key=lambda file: file.stat().st_size)


# Row 4: beyond the last acknowledged byte.


def _garbage_at_the_end(_: _Killed, data: Path, rng: random.Random) -> None:
    with _log(data).open("ab") as log:
        log.write(rng.randbytes(_GARBAGE_BYTES))


def _zeros_at_the_end(_: _Killed, data: Path, __: random.Random) -> None:
    with _log(data).open("ab") as log:
        log.write(bytes(_GARBAGE_BYTES))


def _torn_record_at_the_end(_: _Killed, data: Path, rng: random.Random) -> None:
    content = _log(data).read_bytes()
    # Less than the first record; its length stands behind the checksum.
    length = int.from_bytes(content[4:6], "little")
    with _log(data).open("ab") as log:
        log.write(content[: rng.randrange(1, _HEADER_BYTES + length)])


def _noise_that_is_read_for_ever(_: _Killed, data: Path, rng: random.Random) -> None:
    # A record's head: checksum, length 0, and a type of logs that are used again (5 to 8).
    with _log(data).open("ab") as log:
        log.write((rng.randbytes(4) + bytes((0, 0, rng.randint(5, 8)))) * 10)


_BEYOND: tuple[Damage, ...] = (
    _garbage_at_the_end,
    _zeros_at_the_end,
    _torn_record_at_the_end,
    _noise_that_is_read_for_ever,
)


async def _expect_nothing_lost(serve: Serve, killed: _Killed, data: Path) -> None:
    server = serve(data=data)
    assert await read_back(killed.ledger, server.grpc)
    assert server.stop() == 0
    expect_sound(data)


@pytest.mark.parametrize("damage", _BEYOND)
async def test_a_torn_end_of_the_log_does_no_harm(
    serve: Serve, killed: _Killed, tmp_path: Path, damage: Damage
) -> None:
    """Row 4: what was being written when the process died is dropped, and nothing else (I1)."""
    await _expect_nothing_lost(serve, killed, killed.damaged(tmp_path, damage))


# Row 5: within what was acknowledged.


def _log_truncated(_: _Killed, data: Path, rng: random.Random) -> None:
    log = _log(data)
    with log.open("r+b") as file:
        file.truncate(rng.randrange(1, log.stat().st_size))


def _log_deleted(_: _Killed, data: Path, __: random.Random) -> None:
    _log(data).unlink()


def _bit_flipped(_: _Killed, data: Path, rng: random.Random) -> None:
    with _log(data).open("r+b") as file:
        # In the first half, so that there is something to be saved behind it.
        offset = rng.randrange(_log(data).stat().st_size // 2)
        offset -= _HEADER_BYTES if offset % _BLOCK_BYTES > _BLOCK_BYTES - _HEADER_BYTES else 0
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _type_flipped(_: _Killed, data: Path, __: random.Random) -> None:
    # One bit makes of the first record's type, 1 or 2, one that RocksDB would read for ever.
    with _log(data).open("r+b") as file:
        head = file.read(7)
        file.seek(6)
        file.write(bytes([head[6] ^ 4]))


def _first_record_damaged(_: _Killed, data: Path, rng: random.Random) -> None:
    # The log begins with the checksum of its first record; all others are whole.
    with _log(data).open("r+b") as file:
        file.write(rng.randbytes(4))


def _older_copy(killed: _Killed, data: Path, _: random.Random) -> None:
    shutil.rmtree(data / _PARTITION)
    shutil.copytree(killed.older, data / _PARTITION)


def _partition_deleted(_: _Killed, data: Path, __: random.Random) -> None:
    shutil.rmtree(data / _PARTITION)


def _mark_missing(_: _Killed, data: Path, __: random.Random) -> None:
    (data / _MARK).unlink()


def _mark_garbled(_: _Killed, data: Path, rng: random.Random) -> None:
    (data / _MARK).write_bytes(rng.randbytes(1024))


_WITHIN: tuple[Damage, ...] = (
    _bit_flipped,
    _type_flipped,
    _first_record_damaged,
    _older_copy,
    _mark_missing,
    _log_truncated,
    _log_deleted,
    _partition_deleted,
    _mark_garbled,
)
# In the short form the server itself is asked about the first of them only.
_SHORT = _WITHIN[:5]


def _expect_refusal(serve: Serve, data: Path) -> ServerProcess:
    """It refuses to start, says from where, and has not touched what is left."""
    before = _logs(data)
    server = serve(data=data, start=False)
    assert server.refuse() == exits.DATA_BEHIND, server.log
    assert "partition 0 holds positions up to " in server.log
    assert "--unsafe-accept-data-loss" in server.log
    after = _logs(data)
    for name, content in before.items():
        # But for the type of a record that it would have read for ever.
        different = [new for old, new in zip(content, after[name], strict=True) if old != new]
        assert set(different) <= {0xFF}
    return server


def _logs(data: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (data / _PARTITION).glob("*.log")}


async def _expect_a_new_data_set(server: ServerProcess, killed: _Killed) -> ReadBack:
    """It starts when told to, as other data, and what is left is whole."""
    await asyncio.to_thread(server.start, "--unsafe-accept-data-loss")
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        request = GetStatusRequest(waybill_number="ANY-1", min_position=killed.position)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await TrackingServiceStub(channel).GetStatus(request)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "POSITION_UNKNOWN" in str(dict(refused.value.trailing_metadata() or ()))
    server.kill()
    expect_sound(server.data)
    # Once is enough: the next start needs no permission.
    await asyncio.to_thread(server.start)
    left = await look(killed.ledger, server.grpc)
    server.kill()
    assert left.data_set_id != killed.position.partition("/")[0]
    assert not left.faults
    return left


@pytest.mark.parametrize("damage", _SHORT)
async def test_a_loss_of_what_was_acknowledged_is_refused(
    serve: Serve, killed: _Killed, tmp_path: Path, damage: Damage
) -> None:
    """Row 5: the server refuses to start behind what it acknowledged, and names the positions.

    With the loss accepted what is left is sound, is other data, and is all that could be saved.
    """
    server = _expect_refusal(serve, killed.damaged(tmp_path, damage))
    left = await _expect_a_new_data_set(server, killed)
    if damage is _first_record_damaged:
        latest = {key_of(event) for event in killed.ledger.batches[-1].events}
        assert latest <= left.present, "what stood behind the damage was thrown away"
    if damage is _mark_missing:
        assert not left.lost


def test_files_that_are_needed_to_start_are_gone(
    serve: Serve, killed: _Killed, tmp_path: Path
) -> None:
    """RocksDB's own list of files: exit code 78, with how far was acknowledged."""
    data = Path(shutil.copytree(killed.data, tmp_path / "data"))
    for file in (data / _PARTITION).glob("MANIFEST-*"):
        file.unlink()
    server = serve(data=data, start=False)
    assert server.refuse() == exits.DATA_BEHIND, server.log
    acknowledged = killed.position.rpartition(".")[2]
    assert f"acknowledged up to position {acknowledged}, cannot be opened" in server.log


@pytest.mark.parametrize("damage", _WITHIN)
def test_a_check_finds_a_loss_of_what_was_acknowledged(
    killed: _Killed, tmp_path: Path, damage: Damage
) -> None:
    """Row 5: what the server refuses to start on, a check of the files at rest finds too."""
    kinds = {finding.kind for finding in findings(killed.damaged(tmp_path, damage))}
    # A check leaves noise in the log alone, and RocksDB cannot read past it.
    assert (Kind.DAMAGED if damage is _type_flipped else Kind.BEHIND) in kinds


@pytest.mark.torture
async def test_damage_of_every_kind_anywhere(serve: Serve, killed: _Killed, tmp_path: Path) -> None:
    """Rows 4 and 5, the long run: each damage forty times, at another place each time."""
    for number in range(40):
        folder = tmp_path / str(number)
        for damage in _BEYOND:
            await _expect_nothing_lost(serve, killed, killed.damaged(folder, damage))
        for damage in _WITHIN:
            server = _expect_refusal(serve, killed.damaged(folder, damage))
            await _expect_a_new_data_set(server, killed)
        shutil.rmtree(folder)
