"""`trackd ingest`: sends the scans of a file, and says what became of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    examples,
    fail,
    note,
    print_json,
)

if TYPE_CHECKING:
    from trackd.cli.files.run import Job, Outcome

EPILOG = examples(
    "trackd ingest scans.jsonl",
    "trackd ingest --mapping examples/olist.toml olist_shipments.csv",
    "zcat scans-*.gz | trackd ingest - --server tracking:50551",
    "",
    "A line of JSON:",
    '{"event_id": "PDA-7:42", "waybill_number": "SF1234567890",',
    ' "code": "PICKED_UP", "occurred_at_ms": 1763800000000}',
)


File = Annotated[Path, typer.Argument(metavar="FILE|-", help="What to send; - is standard input.")]
Mapping = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="FILE|- is CSV, and this TOML file says which columns become which events;"
        " examples/olist.toml is one, with comments.",
    ),
]
Rejected = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where to list what was not stored: line number, reason, text."
        " [dim]Default: FILE.rejected.jsonl, in the working directory where that cannot be"
        " written[/dim]",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where to keep how far the file was sent. [dim]Default: beside the file, in the"
        " working directory where that cannot be written[/dim]",
    ),
]
FromStart = Annotated[bool, typer.Option("--from-start", help="Forget how far the file was sent.")]
BatchEvents = Annotated[
    int, typer.Option(min=1, max=1000, metavar="N", help="Events to send together, 1 to 1000.")
]
InFlight = Annotated[
    int, typer.Option(min=1, max=256, metavar="N", help="Batches on their way at a time, 1 to 256.")
]
Patience = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Seconds to keep trying when the server goes away on the way."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when anything was rejected.")]
Json = Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")]


def command(
    file: File,
    *,
    mapping: Mapping = None,
    rejected: Rejected = None,
    state: State = None,
    from_start: FromStart = False,
    batch_events: BatchEvents = 500,
    in_flight: InFlight = 8,
    patience_s: Patience = 60,
    strict: Strict = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Send scans from a file: JSON lines, or CSV with a mapping. Either may be gzip.

    A line of JSON is one event, with the field names of ScanEvent (as in the contract, or as
    protobuf's own JSON has them) and codes by name or number. A row of CSV is what --mapping makes
    of it, often several events.

    Sending a file twice does no harm: what is there already counts as a duplicate. After Ctrl-C, a
    crash or a lost server the same command goes on where the acknowledged part ended; where that
    part of the file was changed meanwhile, it begins anew. Bad lines hold nothing up: they are
    listed with line number and reason.

    Exit codes: 0 everything was sent, 1 it was not, 2 usage, 130 interrupted.
    """
    from trackd.cli.files.run import Job

    if mapping is None and _looks_like_csv(file):
        fail(f"{file} is CSV, so --mapping FILE has to say what its columns mean", code=USAGE)
    if rejected is not None and rejected.exists() and file.exists() and rejected.samefile(file):
        fail("--rejected names the file that is to be sent", code=USAGE)
    refuse_if_nobody_listens(server)
    job = Job(
        path=None if str(file) == "-" else file,
        mapping=mapping,
        rejected=rejected,
        state=state,
        from_start=from_start,
        batch_events_max=batch_events,
        batches_in_flight_max=in_flight,
        timeout_ms=patience_s * 1000,
        server=server,
    )
    outcome = _run(job)
    _tell(job, outcome, json=json)
    raise typer.Exit(_exit_code(outcome, strict=strict))


def _run(job: "Job") -> "Outcome":
    """Sends the file; ends the command for what is wrong before the first line."""
    from trackd.cli.files.mapping import MappingError
    from trackd.cli.files.run import run
    from trackd.client.errors import TrackdError

    try:
        return run(job, say=note)
    except MappingError as error:
        fail(str(error), code=USAGE)
    except OSError as error:
        fail(f"{error.filename or job.path or job.name}: {error.strerror or error}")
    except TrackdError as error:
        fail(explain(error, server=job.server))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _looks_like_csv(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def _tell(job: "Job", outcome: "Outcome", *, json: bool) -> None:
    counts = outcome.end.counts
    if json:
        print_json(_document(job, outcome))
    else:
        typer.echo(_sentence(job, outcome))
    if counts.rejected:
        note(f"What was rejected, and why: {job.rejects}")
    if outcome.error is not None:
        note(f"trackd: {_why(job, outcome.error)}")
    if not outcome.complete and job.can_go_on and outcome.end.place.line:
        note(
            f"Lines 1 to {outcome.end.place.line:,} are done; the same command goes on behind them."
        )


def _why(job: "Job", error: Exception) -> str:
    from trackd.client.errors import TrackdError

    if isinstance(error, TrackdError):
        return explain(error, server=job.server)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{job.name} cannot be read any further: {error}"


def _document(job: "Job", outcome: "Outcome") -> dict[str, object]:
    counts = outcome.end.counts
    return {
        "complete": outcome.complete,
        "lines": outcome.end.place.line,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "rejected": counts.rejected,
        "rejected_file": str(job.rejects) if counts.rejected else None,
        "seconds": round(outcome.seconds, 3),
    }


def _sentence(job: "Job", outcome: "Outcome") -> str:
    from trackd.cli.files.view import told_counts

    sent = outcome.end.counts.events - outcome.start.counts.events
    rate = sent / outcome.seconds if outcome.seconds else 0
    return (
        f"{job.name}: {outcome.end.place.line:,} lines, {told_counts(outcome.end.counts)}"
        f" ({outcome.seconds:.1f} s, {rate:,.0f} events/s)"
    )


def _exit_code(outcome: "Outcome", *, strict: bool) -> int:
    if outcome.stopped:
        return INTERRUPTED
    counts = outcome.end.counts
    # Nothing but refusals means a wrong file or mapping, which nobody wants to go unnoticed.
    useless = counts.rejected and not counts.accepted + counts.duplicates
    if outcome.error or useless or (strict and counts.rejected):
        return FAILED
    return DONE
