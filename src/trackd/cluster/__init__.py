"""Several processes, one server: who owns which partition, and how the others reach it.

`supervisor.py` starts the workers, keeps them running and stops them in order; `assignment.py` says
which worker owns what; `control.py` is the line between the two; `remote.py` stands in a worker for
a partition of another one. Nothing in this room decides what a scan means or how it is kept.
"""
