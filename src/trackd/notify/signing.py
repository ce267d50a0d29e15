"""The three headers by which a receiver knows who sent a webhook (Standard Webhooks 1.0.0).

    webhook-id         msg_…        the same for every attempt
    webhook-timestamp  seconds      when this attempt was made
    webhook-signature  v1,BASE64    HMAC-SHA256 of `id.timestamp.body`; one for each live secret,
                                    parted by spaces

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from standardwebhooks import Webhook

# Two for each endpoint that a server keeps by default.
_SECRETS_KEPT_MAX = 2_048


def signed_headers(
    *,
    message_id: str,
    body: bytes,
    secrets: Sequence[str],
    now_s: int,
) -> dict[str, str]:
    """The headers of one attempt."""
    at, text = datetime.fromtimestamp(now_s, UTC), body.decode()
    signatures = [
        _signer(secret).sign(msg_id=message_id, timestamp=at, data=text) for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(signatures),
    }


@lru_cache(_SECRETS_KEPT_MAX)
def _signer(secret: str) -> Webhook:
    return Webhook(secret)
