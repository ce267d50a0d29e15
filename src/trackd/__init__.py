"""trackd: a parcel tracking event store and query server.

This file holds the version and nothing else, so that importing one room never loads another.
"""

__version__ = "0.1.0"
