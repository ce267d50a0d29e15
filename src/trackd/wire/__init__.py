"""THE DOOR: gRPC servicers that translate in, call, and translate out.

`errors.py` is the one table from what can go wrong to what a caller is told, `calls.py` what every
call has around it (limits, metrics, the register of running calls). Hot methods take and give raw
bytes. Nothing in this room decides what a scan means or how it is kept.
"""
