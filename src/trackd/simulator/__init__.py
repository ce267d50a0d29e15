"""A courier network that makes scans: for the demo, the tests and the load generators alike.

Everything follows from one seed and a given start: no global randomness, no clock of the machine.
Plain values come out; only `wire.py` knows protobuf. Nothing in this room knows the server.
"""
