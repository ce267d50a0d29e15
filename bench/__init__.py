"""The bench: what trackd does in a second, and what it costs, as ratios within one run.

Reading order: `batches.py` (the scans that are sent), `load.py` (the client that sends them),
`lookups.py` (the clients that read), `process.py` and `server.py` (the processes that are
measured), `scenarios/` (one question a file), `report.py` (the table and the JSON). Everything runs
on loopback, against a real server process over real sockets; nothing here reaches into the server
but through the contract, /metrics and /proc, except `bare_store.py`, which needs its rows.
"""
