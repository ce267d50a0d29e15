"""How people are told, out of the notifier's settings. Reads the table of cities; sends nothing."""

from trackd.notify.messages.cities import read_cities
from trackd.notify.messages.news import Kind
from trackd.notify.messages.sender import MessageOptions
from trackd.notify.settings import NotifySettings


def message_options(settings: NotifySettings) -> MessageOptions:
    """The options of the sender. Raises CitiesUnreadable."""
    cities = settings.message_cities
    return MessageOptions(
        schemes=tuple(settings.message_schemes.split(",")),
        allow_local=settings.unsafe_allow_local_webhooks,
        time_zone=settings.message_time_zone,
        tracking_link=settings.tracking_link,
        cities=read_cities(cities) if cities else {},
        urgent=frozenset(Kind(name) for name in settings.message_urgent.split(",") if name),
        threads=settings.message_threads,
        timeout_s=settings.message_timeout_s,
    )
