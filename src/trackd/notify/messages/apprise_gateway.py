"""Messages through apprise: one URL, one text, one attempt, and what came of it.

apprise says yes or no, and takes every answer of 200 for yes. The robots of WeCom, DingTalk, Feishu
and Lark answer 200 to everything and say in the body whether they took it, so the body is read here
too: a message that a robot refused for its rate is not lost. Blocks: called in a thread.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson

from trackd.endpoint_url import UnusableUrl
from trackd.message_url import apprise_service, scheme_of
from trackd.notify.messages.watch import Watch
from trackd.notify.messages.wording import Message
from trackd.notify.outcome import Outcome, Verdict

CONNECT_TIMEOUT_S: Final = 4.0
READ_TIMEOUT_S: Final = 8.0

# What a robot's answer is called in its body: 0 is success.
_CODE_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {"wecombot": "errcode", "dingtalk": "errcode", "feishu": "code", "lark": "code"}
)
# Too many messages, or the service has too much to do.
_THROTTLED: Final = frozenset(
    {
        ("wecombot", -1), ("wecombot", 45009), ("wecombot", 45033),
        ("dingtalk", -1), ("dingtalk", 90030), ("dingtalk", 130101), ("dingtalk", 410100),
        ("feishu", 11232), ("lark", 11232),
    }
)  # fmt: skip
# There is no such robot (any more).
_GONE: Final = frozenset(
    {
        ("wecombot", 93000), ("dingtalk", 300001), ("dingtalk", 400101),
        ("feishu", 19001), ("lark", 19001),
    }
)  # fmt: skip
# They count by the minute, and some punish who goes on meanwhile.
_THROTTLED_PAUSE_S: Final = 60.0

_HTTP_OK = range(200, 300)
_HTTP_GONE = 410
_HTTP_THROTTLED = frozenset({429, 502, 503, 504})
# This text can never be taken, by this service; another one may.
_HTTP_HOPELESS = frozenset({400, 413, 414, 422})


def send_by_apprise(url: str, message: Message, *, allow_local: bool, watch: Watch) -> Outcome:
    """One attempt. watch: watches this thread."""
    try:
        service = apprise_service(url, allow_local=allow_local)
    except UnusableUrl as error:
        return Outcome(verdict=Verdict.HOPELESS, error=f"the URL is not usable: {error}")
    service.socket_connect_timeout = CONNECT_TIMEOUT_S
    service.socket_read_timeout = READ_TIMEOUT_S
    sent = service.notify(
        title=message.subject, body=message.body or message.subject, body_format="text"
    )
    if watch.refused:
        return Outcome(verdict=Verdict.HOPELESS, error="the host is inside a network")
    if watch.status_code:
        return _outcome_of_http(scheme_of(url), watch, sent=sent)
    if sent:
        return Outcome(verdict=Verdict.DELIVERED)
    return Outcome(verdict=Verdict.FAILED, error="the service could not be reached, or refused it")


def _outcome_of_http(scheme: str, watch: Watch, *, sent: bool) -> Outcome:
    status = watch.status_code
    if status in _HTTP_OK:
        return _outcome_of_body(scheme, watch, sent=sent)
    error = f"the service answered {status}"
    if status in _HTTP_THROTTLED:
        return Outcome(
            verdict=Verdict.THROTTLED, error=error, status_code=status, after_s=watch.retry_after_s
        )
    verdict = Verdict.FAILED
    if status == _HTTP_GONE:
        verdict = Verdict.GONE
    elif status in _HTTP_HOPELESS:
        verdict = Verdict.HOPELESS
    return Outcome(verdict=verdict, error=error, status_code=status)


def _outcome_of_body(scheme: str, watch: Watch, *, sent: bool) -> Outcome:
    status = watch.status_code
    field = _CODE_FIELDS.get(scheme)
    code = _code_in(watch.answer, field) if field else 0
    if sent and not code:
        return Outcome(verdict=Verdict.DELIVERED, status_code=status)
    error = f"the robot refused it with code {code}" if code else "the service refused it"
    if (scheme, code) in _THROTTLED:
        return Outcome(
            verdict=Verdict.THROTTLED, error=error, status_code=status, after_s=_THROTTLED_PAUSE_S
        )
    verdict = Verdict.GONE if (scheme, code) in _GONE else Verdict.FAILED
    return Outcome(verdict=verdict, error=error, status_code=status)


def _code_in(answer: bytes, field: str) -> int:
    """A robot's code; 0 where it says none, as an answer that cannot be read is taken for yes."""
    try:
        code = orjson.loads(answer)[field]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
    return code if isinstance(code, int) else 0
