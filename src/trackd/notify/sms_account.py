"""The account of an SMS provider, out of the notifier's settings. Sends nothing."""

from importlib import import_module

from trackd.domain.catalogue import Language
from trackd.notify.messages.sms import SmsProvider
from trackd.notify.settings import NotifySettings


def sms_provider(settings: NotifySettings) -> SmsProvider | None:
    """Who sends `sms://`; None where no account was named.

    Raises ModuleNotFoundError where the extra `sms` is not installed.
    """
    if not settings.tencent_secret_id:
        return None
    # The provider's SDK is an extra, and takes long to load.
    tencent = import_module("trackd.notify.messages.tencent_sms")
    templates = {
        Language.ZH: settings.tencent_template_zh,
        Language.EN: settings.tencent_template_en,
    }
    options = tencent.TencentSmsOptions(
        secret_id=settings.tencent_secret_id,
        secret_key=settings.tencent_secret_key.get_secret_value(),
        app_id=settings.tencent_app_id,
        sign_name=settings.tencent_sign_name,
        templates={language: name for language, name in templates.items() if name},
        region=settings.tencent_region,
    )
    provider: SmsProvider = tencent.TencentSms(options)
    return provider
