"""Files of scans: read from where a run stopped, turned into events, refusals written down.

Nothing here knows a server: `trackd.cli.ingest` sends what comes out.
"""
