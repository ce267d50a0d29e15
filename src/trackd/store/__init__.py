"""THE MEMORY: bytes, order, durability.

`engine.py` is the only file that imports rocksdict; `keys.py` is the whole key space, `records.py`
the value formats, `statuses.py` the table of statuses, `mark.py` the durable mark,
`data_directory.py` the files around the partitions. Nothing in this room knows gRPC or what a
request is.
"""
