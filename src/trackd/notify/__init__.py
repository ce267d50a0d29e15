"""THE MESSENGER: tells endpoints of changes, by webhook and by message.

A process of its own, an ordinary client of the gRPC API, without a state of its own: which changes
an endpoint has heard is kept by the server, in a named subscription for each endpoint. Nothing here
imports the server's rooms.
"""
