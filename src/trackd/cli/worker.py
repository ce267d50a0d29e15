"""What a worker process runs. The supervisor starts it; it is no command for people.

    python -m trackd.cli.worker DESCRIPTOR PARENT NAME

DESCRIPTOR: its end of the line to the supervisor, whose first line says all else. PARENT: the
supervisor's process id. NAME: for people who look at a list of processes.
"""

import asyncio
import socket
import sys

from trackd import logs
from trackd.cli.serve import loop_factory
from trackd.cluster.assignment import decode
from trackd.cluster.control import read_first_line
from trackd.cluster.membership import Membership, die_with_parent
from trackd.settings import Settings


def main() -> int:
    """Serves this worker's partitions until told to stop; the exit code."""
    descriptor, parent = map(int, sys.argv[1:3])
    die_with_parent(parent)
    end = socket.socket(fileno=descriptor)
    assignment, told = decode(read_first_line(end))
    settings = Settings(**told)
    logs.set_up(level=settings.log_level, log_format=settings.log_format, worker=assignment.worker)
    from trackd import server

    async def run() -> int:
        return await server.run(settings, Membership(assignment, end))

    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        return runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
