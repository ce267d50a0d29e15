"""How many files this process may have open, needs, and leaves to callers' connections.

RocksDB keeps the files of its tables open and makes new ones all the time. One that it cannot open
is a storage failure, which ends the server: connections must not be able to take the last.
"""

import resource

# Nobody needs more; and a number is wanted where the system has no limit.
_FILES_MAX = 1 << 20
# With fewer not even an empty store and its first callers get along.
_FILES_MIN = 128


def too_few() -> str:
    """What to tell whoever starts a server that may have fewer than _FILES_MIN; empty if enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if (allowed := _bounded(hard)) >= _FILES_MIN:
        return ""
    return (
        f"this process may have {allowed} files open, and a server needs {_FILES_MIN} at least;"
        " raise the limit (ulimit -Hn, LimitNOFILE)"
    )


def raise_limit() -> None:
    """Allows this process as many as it may allow itself.

    What a shell or a service gives it is often 1,024, while the most that it may ask for is some
    hundred times that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _bounded(hard)
    if _bounded(soft) < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_max() -> int:
    """How many connections a server of this process may have: half as many as open files."""
    return _bounded(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 2


def _bounded(limit: int) -> int:
    return _FILES_MAX if limit == resource.RLIM_INFINITY else min(limit, _FILES_MAX)
