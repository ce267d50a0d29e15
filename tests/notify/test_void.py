"""A waybill whose only scan was voided: what is told of it names no milestone, for the first time
or otherwise, on any road.
"""

from pathlib import Path

import orjson

from tests.feed.clocked import Clocked
from tests.store.desk import NOON_MS, scan_event
from trackd.domain.texts import Language
from trackd.domain.vocabulary import EventCode, Milestone
from trackd.feed.filters import ALL, Filter
from trackd.notify.messages.news import Kind, news_of
from trackd.notify.payload import body_of
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Envelope
