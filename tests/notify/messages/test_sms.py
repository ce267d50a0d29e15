"""SMS through Tencent Cloud's own SDK, against a server that speaks its protocol.

The server checks what the real one checks: the signature TC3-HMAC-SHA256, computed here from the
provider's description of it, the clock, the action and its version.
"""

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.notify.messages.conftest import WAYBILL, change, notification, target
from trackd.domain.catalogue import Language
from trackd.notify.messages.sender import MessageOptions, MessageSender
from trackd.notify.messages.tencent_sms import TencentSms, TencentSmsOptions
from trackd.notify.outcome import Outcome, Verdict
from trackd.v1.feed_pb2 import Change

SECRET_ID, SECRET_KEY = "AKIDexample", "a-secret-key"
NUMBER = "+8613800138000"
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=(\S+)/(\d{4}-\d\d-\d\d)/sms/tc3_request,"
    r" SignedHeaders=content-type;host, Signature=([0-9a-f]{64})"
)
_CLOCK_DIFFERENCE_S_MAX = 300


class Provider:
    """The API's side: `codes` are answered in turn, as a call's error or as a number's status."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.sent: list[dict[str, Any]] = []
        self.codes: list[str] = []
        self.http_status = 200

    def answer(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        """What the API answers to a call."""
        refused = self._refusal(headers, body)
        if refused:
            return self._error(refused)
        call = json.loads(body)
        code = self.codes.pop(0) if self.codes else "Ok"
        if code.startswith(("RequestLimitExceeded", "InternalError", "UnauthorizedOperation")):
            return self._error(code)
        if code == "Ok":
            self.sent.append(call)
        status = {
            "SerialNo": "2640:1" if code == "Ok" else "",
            "PhoneNumber": call["PhoneNumberSet"][0],
            "Fee": int(code == "Ok"),
            "SessionContext": call["SessionContext"],
            "Code": code,
            "Message": "send success" if code == "Ok" else "refused",
            "IsoCode": "CN",
        }
        return {"Response": {"SendStatusSet": [status], "RequestId": "a0aabda6"}}

    def _refusal(self, headers: dict[str, str], body: bytes) -> str:
        match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if match is None:
            return "AuthFailure.InvalidAuthorization"
        secret_id, day, signature = match.groups()
        timestamp = int(headers["x-tc-timestamp"])
        if secret_id != SECRET_ID:
            return "AuthFailure.SecretIdNotFound"
        if abs(time.time() - timestamp) > _CLOCK_DIFFERENCE_S_MAX:
            return "AuthFailure.SignatureExpire"
        if day != f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d}":
            return "AuthFailure.SignatureFailure"
        if not hmac.compare_digest(signature, self._signature(headers, body, day)):
            return "AuthFailure.SignatureFailure"
        if (headers["x-tc-action"], headers["x-tc-version"]) != ("SendSms", "2021-01-11"):
            return "InvalidAction"
        return ""

    def _signature(self, headers: dict[str, str], body: bytes, day: str) -> str:
        canonical = "\n".join(
            [
                "POST",
                "/",
                "",
                f"content-type:{headers['content-type']}",
                f"host:{headers['host']}",
                "",
                "content-type;host",
                hashlib.sha256(body).hexdigest(),
            ]
        )
        to_sign = "\n".join(
            [
                "TC3-HMAC-SHA256",
                headers["x-tc-timestamp"],
                f"{day}/sms/tc3_request",
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        key = f"TC3{SECRET_KEY}".encode()
        for part in (day, "sms", "tc3_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, to_sign.encode(), "sha256").hex()

    def _error(self, code: str) -> dict[str, Any]:
        return {
            "Response": {"Error": {"Code": code, "Message": "refused"}, "RequestId": "ed93f3cb"}
        }


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The API on this machine."""
    state = Provider()

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            answer = json.dumps(state.answer(headers, body)).encode()
            self.send_response(state.http_status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        state.endpoint = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def account(endpoint: str, *, key: str = SECRET_KEY) -> TencentSms:
    """An account at the provider, with a template in Chinese only."""
    return TencentSms(
        TencentSmsOptions(
            secret_id=SECRET_ID,
            secret_key=key,
            app_id="1400006666",
            sign_name="示例快递",
            templates={Language.ZH: "1110"},
            endpoint=endpoint,
            plaintext=True,
        )
    )


async def send(
    sms: TencentSms | None, of: Change | None = None, url: str = f"sms://{NUMBER}", lang: str = ""
) -> Outcome:
    """One SMS by a sender of its own."""
    sender = MessageSender(MessageOptions(), sms=sms)
    outcome = await sender.send(target(url, language=lang), notification(of or change()))
    await sender.close()
    return outcome


async def test_an_sms_is_a_signed_call_with_the_approved_template(provider: Provider) -> None:
    """The number, the template's parameters, and the notification's id for the provider's log."""
    assert (await send(account(provider.endpoint))).verdict is Verdict.DELIVERED
    assert provider.sent == [
        {
            "PhoneNumberSet": [NUMBER],
            "SmsSdkAppId": "1400006666",
            "TemplateId": "1110",
            "SignName": "示例快递",
            "TemplateParamSet": [WAYBILL, "派送中"],
            "SessionContext": "msg_1",
        }
    ]


async def test_a_wrong_key_is_told_and_tried_again(provider: Provider) -> None:
    """The server refuses the signature; nothing is parked for a key that will be mended."""
    outcome = await send(account(provider.endpoint, key="another-key"))
    assert outcome.verdict is Verdict.FAILED
    assert "AuthFailure.SignatureFailure" in outcome.error
    assert provider.sent == []


@pytest.mark.parametrize(
    ("code", "verdict", "after_s"),
    [
        ("LimitExceeded.PhoneNumberThirtySecondLimit", Verdict.THROTTLED, 30),
        ("LimitExceeded.PhoneNumberOneHourLimit", Verdict.THROTTLED, 3_600),
        ("LimitExceeded.PhoneNumberDailyLimit", Verdict.THROTTLED, 21_600),
        ("LimitExceeded.AppDailyLimit", Verdict.THROTTLED, 3_600),
        ("RequestLimitExceeded.UinLimitExceeded", Verdict.THROTTLED, None),
        ("InvalidParameterValue.IncorrectPhoneNumber", Verdict.HOPELESS, None),
        ("FailedOperation.PhoneNumberInBlacklist", Verdict.HOPELESS, None),
        ("UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone", Verdict.HOPELESS, None),
        ("FailedOperation.InsufficientBalanceInSmsPackage", Verdict.FAILED, None),
        ("InternalError.Timeout", Verdict.FAILED, None),
        ("SomethingNew", Verdict.FAILED, None),
    ],
)
async def test_what_the_provider_s_codes_come_to(
    provider: Provider, code: str, verdict: Verdict, after_s: float | None
) -> None:
    """Too many: later. A number that cannot be: parked. Everything else: tried again."""
    provider.codes = [code]
    outcome = await send(account(provider.endpoint))
    assert (outcome.verdict, outcome.after_s) == (verdict, after_s)
    assert code in outcome.error
    assert NUMBER not in outcome.error


async def test_a_provider_that_cannot_be_reached_or_read_is_tried_again(provider: Provider) -> None:
    """No answer, an answer that is no success of HTTP, an answer that is no answer."""
    assert (await send(account("127.0.0.1:1"))).verdict is Verdict.FAILED
    provider.http_status = 502
    assert (await send(account(provider.endpoint))).verdict is Verdict.FAILED
    provider.http_status = 200
    provider.answer = lambda headers, body: {}  # type: ignore[method-assign]
    assert (await send(account(provider.endpoint))).verdict is Verdict.FAILED


async def test_without_an_account_or_a_template_nothing_is_sent(provider: Provider) -> None:
    """And it is said which of the two is missing."""
    none = await send(None)
    assert (none.verdict, none.error) == (Verdict.FAILED, "this notifier has no SMS provider")
    english = await send(account(provider.endpoint), lang="en")
    assert (english.verdict, english.error) == (Verdict.HOPELESS, "there is no SMS template in en")
    assert "a-secret-key" not in repr(
        TencentSmsOptions(
            secret_id="a", secret_key="a-secret-key", app_id="", sign_name="", templates={}
        )
    )
