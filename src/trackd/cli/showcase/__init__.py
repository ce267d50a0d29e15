"""The demo: a server of its own, a courier network that streams into it, and parcels worth a look.

A client of the server like any other. Nothing here knows a flag: `trackd.cli.demo` does.
"""
