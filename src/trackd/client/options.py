"""Every bound of the client: its name, its default, and what the caller sees beyond it.

Values only. Nothing here opens, sends or waits; no other file of the client holds a limit.
"""

from dataclasses import dataclass, field

# The contract: a batch has 1-1,000 events, a look-up 1-500 waybill numbers, a page at most 500
# events.
BATCH_EVENTS_LIMIT = 1_000
LOOKUP_WAYBILLS_LIMIT = 500
PAGE_EVENTS_LIMIT = 500

# The contract: the name of a device; its event ids add a colon and a counter to it.
DEVICE_ID_CHARACTERS_MAX = 32

# The server's default limit for a message it receives, and what it sends at most.
REQUEST_BYTES_LIMIT = 1024 * 1024
# What the frame of a full batch adds to its events: a tag and a length each, and the batch's name.
BATCH_FRAME_BYTES = 8 * 1024
RESPONSE_BYTES_LIMIT = 4 * 1024 * 1024

# A server cuts a client off that pings more often than every 20 s, so this stays well above.
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000

# How long one attempt to connect may take, and how far apart the channel's own attempts grow. The
# channel's default of two minutes would leave a scanner waiting long after the server is back.
CONNECT_TIMEOUT_MS = 5_000
RECONNECT_MS_INITIAL = 100
RECONNECT_MS_MAX = 5_000

# How long the question for the layout of the data may take, and how often it is asked while it has
# no answer or an owner cannot be reached.
TOPOLOGY_TIMEOUT_S = 2.0
TOPOLOGY_AGE_S = 1.0
# How often a link that goes through another worker looks whether its owner can be reached again.
STRAIGHT_AGAIN_S = 5.0
# Scans that a scanner takes out of order: while one owner is away, those of the others go on until
# so many wait for it.
AHEAD_EVENTS_MAX = 20_000

# What a server may ask a client to wait at most; a longer RetryInfo is cut to it.
RETRY_AFTER_MS_MAX = 60_000

# An event with every field of the contract full is under 16 KiB; a larger one is refused unsent.
EVENT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffOptions:
    """The time between attempts: full jitter below a ceiling that doubles up to `ms_max`."""

    ms_initial: int = 100
    ms_max: int = 10_000

    def __post_init__(self) -> None:
        """Refuses a ceiling that starts above its end, or at nothing."""
        if not 0 < self.ms_initial <= self.ms_max:
            raise ValueError("a back-off needs 0 < ms_initial <= ms_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerOptions:
    """The bounds of a Scanner.

    - A batch goes out when it has `batch_events_max` events or `batch_bytes_max` bytes, or when its
      first event has waited for `batch_delay_ms_max`.
    - At most `batches_in_flight_max` batches are unanswered at a time; the next waits.
    - Without a spool at most `buffer_events_max` events of `buffer_bytes_max` bytes are kept in
      memory; beyond that `scan` waits.
    - A batch without an answer for `answer_timeout_ms` counts as lost: the scanner connects again.
    - Leaving the scanner waits at most `close_timeout_ms` for answers.
    - `append` without its own timeout ends after `deadline_ms`.
    """

    batch_events_max: int = 500
    batch_bytes_max: int = 768 * 1024
    batch_delay_ms_max: int = 10
    batches_in_flight_max: int = 8
    buffer_events_max: int = 20_000
    buffer_bytes_max: int = 16 * 1024 * 1024
    answer_timeout_ms: int = 60_000
    close_timeout_ms: int = 10_000
    deadline_ms: int = 10_000
    backoff: BackoffOptions = field(default_factory=BackoffOptions)

    def __post_init__(self) -> None:
        """Refuses what the server would refuse, and bounds under which nothing could move."""
        if not 1 <= self.batch_events_max <= BATCH_EVENTS_LIMIT:
            raise ValueError(f"batch_events_max must be 1-{BATCH_EVENTS_LIMIT}")
        batch_bytes_limit = REQUEST_BYTES_LIMIT - BATCH_FRAME_BYTES
        if not EVENT_BYTES_MAX <= self.batch_bytes_max <= batch_bytes_limit:
            raise ValueError(f"batch_bytes_max must be {EVENT_BYTES_MAX}-{batch_bytes_limit}")
        if self.batches_in_flight_max < 1 or self.buffer_events_max < 1:
            raise ValueError("batches_in_flight_max and buffer_events_max must be at least 1")
        if self.buffer_bytes_max < EVENT_BYTES_MAX:
            raise ValueError(f"buffer_bytes_max must be at least {EVENT_BYTES_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """The bounds of a Spool.

    - Scans that wait and scans that were rejected hold at most `bytes_max` together; beyond that
      `scan` raises SpoolFull. The file is up to half again as large, its write-ahead log a few MiB
      more.
    - So it does where the disk does not leave `disk_spare_bytes` beside the file, for its log: a
      spool that filled its disk could not forget what was sent, and would stay full for ever.
    - Event ids are reserved `event_ids_reserved` at a time; a restart skips what was left of them.
    """

    bytes_max: int = 256 * 1024 * 1024
    disk_spare_bytes: int = 8 * 1024 * 1024
    event_ids_reserved: int = 1_000

    def __post_init__(self) -> None:
        """Refuses a spool that could never hold an event or name one."""
        if self.bytes_max < EVENT_BYTES_MAX:
            raise ValueError(f"bytes_max must be at least {EVENT_BYTES_MAX}")
        if self.event_ids_reserved < 1:
            raise ValueError("event_ids_reserved must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndOptions:
    """The bounds of a FrontEnd.

    - A call without its own timeout ends after `deadline_ms`, retries included.
    - A look-up of many waybills runs at most `parallel_calls_max` calls at a time.
    """

    deadline_ms: int = 5_000
    parallel_calls_max: int = 4
    backoff: BackoffOptions = field(
        default_factory=lambda: BackoffOptions(ms_initial=25, ms_max=1_000)
    )

    def __post_init__(self) -> None:
        """Refuses bounds under which no call could be made."""
        if self.deadline_ms < 1 or self.parallel_calls_max < 1:
            raise ValueError("deadline_ms and parallel_calls_max must be at least 1")
