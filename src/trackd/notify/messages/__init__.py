"""Messages to people: what a change says in words, when it may be said, and the ways to say it.

`news.py`, `wording.py`, `quiet_hours.py` and `rate_cap.py` decide and know no clock, no network
and no library; `apprise_gateway.py` and `sms.py` send; `sender.py` is the one that the courier
calls. Nothing here keeps anything over a restart.
"""
