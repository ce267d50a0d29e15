"""Tells people: the sender that the courier calls for endpoints of kind MESSAGE.

Words the news, lets it go when quiet hours and rate caps allow, and hands it to the way that the
endpoint's URL names. What it remembers, the times of texts under a cap, is memory of this process
and only courtesy: after a restart a cap counts anew, and each of several notifiers counts its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trackd.domain.catalogue import Language
from trackd.endpoint_url import UnusableUrl
from trackd.message_url import SCHEMES, SMS, checked_scheme, phone_number
from trackd.notify.messages.apprise_gateway import send_by_apprise
from trackd.notify.messages.cities import Cities
from trackd.notify.messages.news import Kind, UnknownWord, news_of
from trackd.notify.messages.pacing import Pacing
from trackd.notify.messages.sms import SmsProvider
from trackd.notify.messages.threads import NoThread, Threads
from trackd.notify.messages.watch import Watch
from trackd.notify.messages.wording import Message, trial_message, worded
from trackd.notify.outcome import Notification, Outcome, Verdict
from trackd.v1.notification_pb2 import Target

BUSY_PAUSE_S = 5.0
"""How long a text waits that found no thread: nothing was tried, and nothing failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOptions:
    """How people are told.

    - schemes: of URLs that may be used. allow_local: URLs may name this machine.
    - time_zone: of times in texts, and of quiet hours, where an endpoint names none.
    - tracking_link: a URL with `{waybill}` in it, for every text; empty: none.
    - cities: what people call the place of a facility, by its code; a place that is not there is
      not told.
    - urgent: kinds of news that are told in quiet hours, too.
    - threads: texts that are sent at once. timeout_s: to find a thread, and then for a text; who
      finds none is postponed.
    """

    schemes: tuple[str, ...] = SCHEMES
    allow_local: bool = False
    time_zone: str = "Asia/Shanghai"
    tracking_link: str = ""
    cities: Cities = field(default_factory=dict)
    urgent: frozenset[Kind] = frozenset()
    threads: int = 16
    timeout_s: float = 30.0


class MessageSender:
    """A `Sender` for endpoints of kind MESSAGE, on one event loop."""

    def __init__(
        self,
        options: MessageOptions,
        *,
        sms: SmsProvider | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """sms: who sends `sms://`; without one such endpoints fail."""
        self._options = options
        self._sms = sms
        self._now_ms = now_ms
        self._threads = Threads(count=options.threads, timeout_s=options.timeout_s)
        self._pacing = Pacing(default_zone=options.time_zone, urgent=options.urgent)

    async def send(self, target: Target, notification: Notification) -> Outcome:
        """One attempt; or POSTPONED, before one is made."""
        endpoint = target.endpoint
        language = Language.EN if endpoint.language == Language.EN else Language.ZH
        if notification.change is None:
            return await self._attempt(target, trial_message(language), language, notification.id)
        try:
            news = news_of(notification.change)
            zone = ZoneInfo(endpoint.quiet_hours.time_zone or self._options.time_zone)
        except UnknownWord as error:
            return Outcome(verdict=Verdict.HOPELESS, error=str(error))
        except (ZoneInfoNotFoundError, ValueError):
            return Outcome(verdict=Verdict.FAILED, error="the time zone is not known here")
        if news.kind is Kind.STATUS and not endpoint.all_changes:
            return Outcome(verdict=Verdict.DROPPED)
        wait_ms = self._pacing.wait_ms(endpoint, news, now_ms=self._now_ms())
        if wait_ms:
            return Outcome(verdict=Verdict.POSTPONED, after_s=wait_ms / 1000)
        message = worded(
            news,
            language=language,
            zone=zone,
            template=endpoint.template,
            place=self._options.cities.get(news.facility_code, {}).get(language, ""),
            tracking_link=self._options.tracking_link,
        )
        outcome = await self._attempt(target, message, language, notification.id)
        self._pacing.ended(endpoint, news, went=outcome.verdict is Verdict.DELIVERED)
        return outcome

    async def close(self) -> None:
        """Ends what is still being sent."""
        await self._threads.close()

    async def _attempt(
        self, target: Target, message: Message, language: Language, reference: str
    ) -> Outcome:
        options, url = self._options, target.endpoint.url
        try:
            is_sms = checked_scheme(url, schemes=options.schemes) == SMS
            number = phone_number(url) if is_sms else ""
        except UnusableUrl as error:
            return Outcome(verdict=Verdict.HOPELESS, error=f"the URL is not usable: {error}"[:200])
        # Where an SMS provider is, its operator says; where a URL leads, its owner does.
        watch = Watch(anywhere=is_sms, allow_local=options.allow_local)

        def work() -> Outcome:
            if not is_sms:
                return send_by_apprise(url, message, allow_local=options.allow_local, watch=watch)
            if self._sms is None:
                return Outcome(verdict=Verdict.FAILED, error="this notifier has no SMS provider")
            return self._sms.send(number, message, language=language, reference=reference)

        try:
            return await self._threads.run(target.endpoint.id, work, watch)
        except TimeoutError:
            return Outcome(verdict=Verdict.FAILED, error="no answer in time")
        except NoThread:
            return Outcome(
                verdict=Verdict.POSTPONED, error="every thread is taken", after_s=BUSY_PAUSE_S
            )
