"""Where a message to a person may go, the rules for its URL, and which templates there are.

Used twice, as `endpoint_url.py` is: when an endpoint is made, so that its owner hears of a mistake
at once, and by the notifier for every message. What is allowed is listed, scheme by scheme and
option by option: apprise has schemes that post anywhere (`json://`), and options that read files
(`template=`). A URL holds credentials, so no message of an error here repeats a part of it. Nothing
here sends or looks a name up.
"""

import logging
import re
from collections.abc import Collection
from importlib import import_module
from ipaddress import ip_address
from typing import Any, Final

from trackd.endpoint_url import URL_CHARACTERS_MAX, UnusableUrl, address_allowed, is_local

SMS: Final = "sms"

DEFAULT_TEMPLATE: Final = "default"
SHORT_TEMPLATE: Final = "short"
TEMPLATES: Final = (DEFAULT_TEMPLATE, SHORT_TEMPLATE)
"""How a message is worded. default: what is new and every fact that may be told, a line each.
short: what is new, and the tracking link."""

SCHEMES: Final = (
    "dingtalk", "discord", "feishu", "lark", "mailtos", "slack", "sms", "tgram", "wecombot",
)  # fmt: skip
"""The schemes allowed by default: services with an address of their own, and mail over TLS."""

OPTIONS: Final = frozenset(
    {
        "from",
        "key",
        "mode",
        "name",
        "pass",
        "port",
        "reply",
        "secret",
        "smtp",
        "to",
        "token",
        "user",
    }
)
"""What may stand behind the question mark. No option here names a file or another URL, turns the
check of certificates off, follows redirects, or adds recipients that are not counted."""

_SCHEME_NAME = re.compile(r"[a-z][a-z0-9]{1,20}")
_SCHEME = re.compile(rf"({_SCHEME_NAME.pattern})://(.+)")
# E.164: a country's code, and at most 15 digits in all.
_PHONE_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_PLAIN = re.compile(r"[!-~]+")


def listed_schemes(text: str) -> str:
    """The schemes in a setting, commas between and nothing else; empty allows none.

    Raises ValueError for what can be no scheme: it would allow nothing, and every text be refused.
    """
    schemes = [each.strip() for each in text.split(",")] if text.strip() else []
    if not all(map(_SCHEME_NAME.fullmatch, schemes)):
        raise ValueError("must be schemes such as slack,sms, with commas between")
    return ",".join(schemes)


def scheme_of(text: str) -> str:
    """The scheme of a URL; empty if it has none. What may be shown and logged of it."""
    match = _SCHEME.fullmatch(text)
    return match[1] if match else ""


def phone_number(text: str) -> str:
    """The number of `sms://+8613800138000`. Raises UnusableUrl."""
    number = text.removeprefix(f"{SMS}://").rstrip("/")
    if not _PHONE_NUMBER.fullmatch(number):
        raise UnusableUrl(
            "must be sms:// and a number with its country's code: sms://+8613800138000"
        )
    return number


def check_message_url(text: str, *, schemes: Collection[str], allow_local: bool) -> None:
    """Raises UnusableUrl if no message may go there.

    schemes: those that are allowed. allow_local: this machine may be named. Blocks for a third of a
    second the first time, when apprise is loaded: not for the event loop.
    """
    if checked_scheme(text, schemes=schemes) == SMS:
        phone_number(text)
    else:
        apprise_service(text, allow_local=allow_local)


def checked_scheme(text: str, *, schemes: Collection[str]) -> str:
    """The scheme of a URL, if it is one that is allowed. Raises UnusableUrl."""
    if len(text) > URL_CHARACTERS_MAX:
        raise UnusableUrl(f"at most {URL_CHARACTERS_MAX} characters")
    if not _PLAIN.fullmatch(text):
        raise UnusableUrl("printable ASCII only, without spaces: others are written %20")
    scheme = scheme_of(text)
    if scheme not in schemes:
        raise UnusableUrl(f"must begin with one of: {', '.join(f'{each}://' for each in schemes)}")
    return scheme


def apprise_service(text: str, *, allow_local: bool) -> Any:
    """The URL as apprise's service, ready to notify; its scheme has been checked.

    Follows no redirects. Raises UnusableUrl.
    """
    _check_options(text)
    # An installation without such endpoints need not load a hundred modules.
    apprise = import_module("apprise")
    _mute()
    asset = apprise.AppriseAsset(
        http_redirects=False, async_mode=False, secure_logging=True, storage_mode="memory"
    )
    service = apprise.Apprise.instantiate(text, asset=asset)
    if service is None:
        raise UnusableUrl("apprise cannot read it: a part is missing or has a wrong form")
    is_mail = hasattr(service, "smtp_host")
    if len(service) != 1 or (is_mail and not service.targets):
        raise UnusableUrl("must have one recipient: quiet hours and caps are those of a recipient")
    host = (service.smtp_host if is_mail else service.host) or ""
    if _is_address(host) and not address_allowed(host, allow_local=allow_local and is_local(host)):
        raise UnusableUrl("the address is not one of the public internet")
    if host == "localhost" and not allow_local:
        raise UnusableUrl("the host is this machine")
    if is_mail and service.secure_mode == "insecure" and not allow_local:
        raise UnusableUrl("mail goes over TLS only: mode=starttls or mode=ssl")
    return service


def _mute() -> None:
    """They log URLs that they cannot read, and paths that they post to: keys, both."""
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _check_options(text: str) -> None:
    """Read as apprise does: pairs are parted by `&` and `;`, names are unquoted and in any case."""
    query = text.partition("?")[2]
    parse = import_module("apprise.utils.parse")
    names = set(parse.parse_qsd(query, simple=True)["qsd"]) - {""} if query else set()
    if not names <= OPTIONS:
        allowed = ", ".join(sorted(OPTIONS))
        raise UnusableUrl(f"only these options may stand behind the question mark: {allowed}")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
