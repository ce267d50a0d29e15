"""What part of a do-nothing server's unary rate a read keeps.

The servers are asked in turns of a second, so that whatever else the machine does hits them alike.
With the client on the same machine the rate may be the client's; CPU per call is the server's own,
and the ratio of the two servers' CPU is what the rates tend to when clients are many.
"""

import time
from dataclasses import dataclass

from bench.figures import Figure, Outcome
from bench.known import Questions, make_known
from bench.lookups import Ask, Channels, closed_loop, connected
from bench.nothing_server import METHOD
from bench.plan import Bench
from bench.server import ServerProcess, module_server

_CONCURRENCY = 32
_RATIO_LEAST = {"GetStatus": 0.75, "GetTimeline of 15": 0.6}


@dataclass(slots=True)
class _Turns:
    """One kind of call, and what came of it so far."""

    server: ServerProcess
    channels: Channels
    ask: Ask
    calls: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    async def take(self, seconds: float) -> None:
        before = self.server.usage().cpu_s
        calls, took = await closed_loop(
            self.channels, self.ask, concurrency=_CONCURRENCY, seconds=seconds
        )
        self.calls += calls
        self.seconds += took
        self.cpu_s += self.server.usage().cpu_s - before

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.calls * 1e6

    @property
    def cores(self) -> float:
        return self.cpu_s / self.seconds


async def measure(bench: Bench) -> Outcome:
    """Asks the do-nothing server, GetStatus and GetTimeline in turns."""
    scale = bench.scale
    questions = Questions(waybills=scale.known_waybills, seed=bench.seed)
    with (
        # One process against one: of several, a call that comes to another than the waybill's owner
        # is made twice.
        bench.server("unary", "--workers", "1") as trackd,
        module_server("bench.nothing_server", bench.directory / "nothing.log") as nothing,
    ):
        await make_known(
            trackd.address,
            bench.mix(),
            waybills=scale.known_waybills,
            now_ms=time.time_ns() // 1_000_000,
        )
        async with connected(nothing.address) as idle, connected(trackd.address) as channels:
            ask_nothing = Ask(METHOD, questions.get_status.request, lambda _, __: None)
            turns = {
                "do-nothing": _Turns(nothing, idle, ask_nothing),
                "GetStatus": _Turns(trackd, channels, questions.get_status),
                "GetTimeline of 15": _Turns(trackd, channels, questions.get_timeline),
            }
            for turn in turns.values():
                await turn.take(scale.slice_seconds)  # warms up, and is not counted
                turn.calls, turn.seconds, turn.cpu_s = 0, 0.0, 0.0
            for _ in range(scale.slices):
                for turn in turns.values():
                    await turn.take(scale.slice_seconds)
    return Outcome(_figures(turns))


def _figures(turns: dict[str, _Turns]) -> list[Figure]:
    nothing = turns["do-nothing"]
    figures = []
    for name, least in _RATIO_LEAST.items():
        turn = turns[name]
        figures += [
            Figure(f"{name}, rate ratio to do-nothing", turn.rate / nothing.rate, "×", least=least),
            Figure(f"{name}, inverse CPU ratio", nothing.cpu_us / turn.cpu_us, "×"),
        ]
    for name, turn in turns.items():
        figures += [
            Figure(name, turn.rate, "calls/s"),
            Figure(f"{name}, server CPU per call", turn.cpu_us, "µs"),
            Figure(f"{name}, server CPU", turn.cores, "cores"),
        ]
    return figures
