"""Load as people make it: locust users for scanners, front ends and subscribers, and load shapes.

Reading order: `schedule.py` (when a user is due), `scans.py` (what scanners send),
`recordings.py` (what was measured), `connection.py` and `stream.py` (gRPC under gevent), `users.py`
(who does what), `shapes.py` (how many of them and when), `locustfile.py` (what locust loads),
`outcome.py`, `objectives.py` and `summary.py` (what it comes to), `__main__.py` (`make load`).

Locust is a closed model: a user that waits for an answer does not ask what it should have asked
meanwhile. So each user here has an absolute schedule, asks late what it could not ask in time, and
its response time runs from when it should have asked.
"""
