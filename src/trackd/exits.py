"""The exit codes of the server and of the notifier, as docs/operations.md lists them."""

DONE = 0
FAILED = 1
# As sysexits.h names them: EX_TEMPFAIL, another process has the data; EX_CONFIG, it is not what
# was acknowledged.
IN_USE = 75
DATA_BEHIND = 78
DATA_BEHIND_ADVICE = "restore a backup; or start once with --unsafe-accept-data-loss"
