"""THE NEWS: what was committed, to whoever watches, at their own pace.

Positions, not queues: the partition's log is the one truth about order, a reader keeps its own
place in it, and the writer never waits for a reader. Nothing in this room knows of gRPC, of calls,
or of who asks.
"""
