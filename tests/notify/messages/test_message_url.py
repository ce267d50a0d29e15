"""Which URLs messages may go to: refused when an endpoint is made, and before every message."""

import logging

import pytest

from trackd.endpoint_url import UnusableUrl
from trackd.message_url import SCHEMES, check_message_url, scheme_of

ALL = (*SCHEMES, "json", "mailto", "xml")

GOOD = [
    "wecombot://693axxx6-7aoc-4bc4-97a0-0ec2sifa5aaa",
    "dingtalk://SECsecret@0123456789abcdef0123456789abcdef",
    "feishu://0123abcd-0123-0123-0123-0123456789ab",
    "lark://0123abcd-0123-0123-0123-0123456789ab",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    "tgram://123456789:alphanumeric_token/12315544",
    "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    "mailtos://user:password@mail.example.com?to=li@example.com&from=parcels@example.com",
    "mailtos://user:password@gmail.com",
    "sms://+8613800138000",
]


@pytest.mark.parametrize("url", GOOD)
def test_the_services_that_are_named_can_be_used(url: str) -> None:
    """One of each scheme that is allowed by default."""
    check_message_url(url, schemes=SCHEMES, allow_local=False)


def test_every_scheme_that_is_allowed_is_tried_above() -> None:
    """None of them is there unseen."""
    assert {scheme_of(url) for url in GOOD} == set(SCHEMES)


@pytest.mark.parametrize(
    "url",
    [
        "json://203.0.113.9/hook",
        "jsons://example.com/hook",
        "xml://example.com",
        "form://example.com",
        "apprise://example.com/token",
        "gotify://10.0.0.1/token",
        "ntfy://10.0.0.1/topic",
        "mailto://user:password@mail.example.com",
        "syslog://",
        "file:///etc/passwd",
        "dbus://",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=abc",
        "WECOMBOT://abc",
        "wecombot:abc",
        "wecombot",
        "",
        "wecombot://abc, json://127.0.0.1",
        "wecombot://abc\njson://127.0.0.1",
        "wecombot://" + "a" * 2_000,
    ],
)
def test_a_scheme_that_is_not_listed_is_refused(url: str) -> None:
    """Those that post anywhere among them, in any disguise."""
    with pytest.raises(UnusableUrl):
        check_message_url(url, schemes=SCHEMES, allow_local=False)


@pytest.mark.parametrize(
    "option",
    [
        "template=/etc/passwd",
        "template=http://169.254.169.254/",
        "Template=/etc/passwd",
        "%74emplate=/etc/passwd",
        "to=x;template=/etc/passwd",
        "pgpprv=/etc/passwd",
        "verify=no",
        "redirect=yes",
        "rto=100000",
        "cto=100000",
        "retry=1000",
        "cc=other@example.com",
        "bcc=other@example.com",
        "+X-Header=1",
        "overflow=split",
        "image=yes",
    ],
)
def test_an_option_that_is_not_listed_is_refused(option: str) -> None:
    """Those that read files, turn the check of certificates off, or add recipients among them."""
    for url in ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", GOOD[7]):
        with pytest.raises(UnusableUrl, match="options"):
            check_message_url(
                f"{url}{'&' if '?' in url else '?'}{option}", schemes=SCHEMES, allow_local=False
            )


@pytest.mark.parametrize(
    "url",
    [
        "wecombot://",
        "dingtalk://",
        "mailtos://user:password@mail.example.com?to=not-an-address",
        "mailtos://user:password@mail.example.com?to=a@example.com,b@example.com",
        "mailtos://user:password@mail.example.com?to=a@example.com&mode=insecure",
        "mailtos://user:password@127.0.0.1?to=a@example.com",
        "mailtos://user:password@localhost?to=a@example.com",
        "mailtos://user:password@mail.example.com?to=a@example.com&smtp=10.0.0.1",
        "mailtos://user:password@mail.example.com?to=a@example.com&smtp=169.254.169.254",
        "json://10.0.0.1/",
        "json://[::1]/",
        "sms://13800138000",
        "sms://+86",
        "sms://+8613800138000,+8613800138001",
        "sms://+8613800138000?x=1",
        "sms://",
    ],
)
def test_what_could_never_be_delivered_is_refused_at_once(url: str) -> None:
    """Parts missing, several recipients, mail in the clear, addresses inside a network."""
    with pytest.raises(UnusableUrl):
        check_message_url(url, schemes=ALL, allow_local=False)


def test_this_machine_only_where_that_is_allowed() -> None:
    """For tries; the inside of a network not even then."""
    local = "mailtos://127.0.0.1:2525?to=li@example.com&from=a@example.com&mode=insecure"
    check_message_url(local, schemes=ALL, allow_local=True)
    with pytest.raises(UnusableUrl):
        check_message_url("json://10.0.0.1/", schemes=ALL, allow_local=True)


def test_a_refused_url_is_neither_repeated_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It holds credentials: what is said of it names its rules only."""
    caplog.set_level(logging.DEBUG)
    for url in (
        "wecombot://HUNTER2!",
        "mailtos://me:HUNTER2@mail.example.com?to=nobody",
        "json://me:HUNTER2@10.0.0.1/",
        "slack://HUNTER2/HUNTER2",
        "sms://HUNTER2",
        "https://example.com/HUNTER2",
    ):
        with pytest.raises(UnusableUrl) as refused:
            check_message_url(url, schemes=ALL, allow_local=False)
        assert "HUNTER2" not in str(refused.value)
    assert "HUNTER2" not in caplog.text
    assert scheme_of("wecombot://HUNTER2") == "wecombot"
