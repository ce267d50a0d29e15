"""SMS by Tencent Cloud: SendSms of its API 2021-01-11, through its own SDK (extra `sms`).

A text goes out as a template that the provider has approved, with two parameters: the waybill
number and what is new. Approved is, for example, `您的快件{1}：{2}` and `Your parcel {1}: {2}`. A
parameter may hold no URL, so a tracking link is part of the template or is not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.sms.v20210111.models import SendSmsRequest
from tencentcloud.sms.v20210111.sms_client import SmsClient

from trackd.domain.catalogue import Language
from trackd.notify.messages.wording import Message
from trackd.notify.outcome import Outcome, Verdict

_OK = "Ok"
_TIMEOUT_S = 10

# What the provider counts, and when it begins anew; a code stands for those that begin with it.
_PAUSES_S: Final[Mapping[str, float | None]] = MappingProxyType(
    {
        "RequestLimitExceeded": None,
        "LimitExceeded.PhoneNumberThirtySecondLimit": 30.0,
        "LimitExceeded.DeliveryFrequencyLimit": 60.0,
        "LimitExceeded.GlobalSmsSendingRateLimit": 60.0,
        "LimitExceeded.PhoneNumberOneHourLimit": 3_600.0,
        "LimitExceeded.PhoneNumberDailyLimit": 6 * 3_600.0,
        "LimitExceeded.PhoneNumberSameContentDailyLimit": 6 * 3_600.0,
        "LimitExceeded": 3_600.0,
    }
)
# No later attempt can do better with this number or this text.
_HOPELESS: Final = (
    "FailedOperation.ContainSensitiveWord",
    "FailedOperation.PhoneNumberInBlacklist",
    "FailedOperation.PhoneNumberParseFail",
    "InvalidParameterValue.ContentLengthLimit",
    "InvalidParameterValue.IncorrectPhoneNumber",
    "InvalidParameterValue.TemplateParameter",
    "LimitExceeded.AppCountryOrRegionInBlacklist",
    "UnsupportedOperation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TencentSmsOptions:
    """An account of the provider.

    - app_id: the SdkAppId. sign_name: the approved signature, for numbers of mainland China.
    - templates: the approved template of each language.
    - endpoint: HOST[:PORT] of the API; plaintext: by HTTP, for a test on this machine.
    """

    secret_id: str
    secret_key: str = field(repr=False)
    app_id: str
    sign_name: str
    templates: Mapping[Language, str]
    region: str = "ap-guangzhou"
    endpoint: str = "sms.tencentcloudapi.com"
    plaintext: bool = False


class TencentSms:
    """Sends by Tencent Cloud."""

    def __init__(self, options: TencentSmsOptions) -> None:
        """Connects to nothing yet."""
        self._options = options

    def send(self, number: str, message: Message, *, language: Language, reference: str) -> Outcome:
        """One attempt, by a connection of its own."""
        template = self._options.templates.get(language)
        if template is None:
            return Outcome(
                verdict=Verdict.HOPELESS, error=f"there is no SMS template in {language}"
            )
        request = SendSmsRequest()
        request.PhoneNumberSet = [number]
        request.SmsSdkAppId = self._options.app_id
        request.SignName = self._options.sign_name
        request.TemplateId = template
        request.TemplateParamSet = [message.waybill_number, message.news]
        request.SessionContext = reference
        try:
            answer = self._client().SendSms(request)
        except TencentCloudSDKException as error:
            return outcome_of(str(error.get_code()))
        statuses = answer.SendStatusSet or []
        if len(statuses) != 1:
            return Outcome(verdict=Verdict.FAILED, error="the SMS provider's answer has no status")
        return outcome_of(str(statuses[0].Code))

    def _client(self) -> SmsClient:
        options = self._options
        http = HttpProfile(
            protocol="http" if options.plaintext else "https",
            endpoint=options.endpoint,
            reqTimeout=_TIMEOUT_S,
        )
        credential = Credential(options.secret_id, options.secret_key)
        return SmsClient(credential, options.region, ClientProfile(httpProfile=http))


def outcome_of(code: str) -> Outcome:
    """What a code of the provider, or of its SDK, comes to."""
    if code == _OK:
        return Outcome(verdict=Verdict.DELIVERED)
    error = f"the SMS provider refused it: {code}"
    if code.startswith(_HOPELESS):
        return Outcome(verdict=Verdict.HOPELESS, error=error)
    for prefix, pause_s in _PAUSES_S.items():
        if code.startswith(prefix):
            return Outcome(verdict=Verdict.THROTTLED, error=error, after_s=pause_s)
    return Outcome(verdict=Verdict.FAILED, error=error)
