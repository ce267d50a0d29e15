"""THE MEANING: codes, milestones, flags, how a status follows from events, what an event may hold.

Plain values and rules. Nothing in this room knows a clock, I/O, asyncio, protobuf, gRPC or RocksDB.
"""
