"""The bench: what trackd does in a second, and what it costs, as ratios within one run.

Reading order: `batches.py` (the scans that are sent), `load.py` (the client that sends them),
`lookups.py` (the clients that read), `subscribing.py` (those who listen), `process.py` and
`server.py` (the processes that are measured), `scenarios/` (one question a file), `report.py`,
`comparison.py` and `picture.py` (the table, the JSON, what it was before, what it looks like).
`swarm/` is load as people make it, `h2load.py` a second opinion on our own generator. Everything
runs on loopback, against a real server process over real sockets; nothing here reaches into the
server but through the contract, /metrics and /proc, except `bare_store.py`, which needs its rows.
"""
