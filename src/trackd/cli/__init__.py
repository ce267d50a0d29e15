"""The `trackd` command: what people and scripts type.

Commands reach the server through the client, and the store through the server. Each command is a
file of its own and loads its rooms when it runs, so that `--help` is quick. Nothing imports this
room.
"""
