"""An endpoint with its secrets: as it is in memory, and as the bytes that are kept of it.

    document = {"format": 1, "endpoint": Endpoint, "private": sealed {"url", "secrets": [[secret,
               until_ms], …]}}

in JSON, bytes in base64. What is private is sealed for this endpoint: the secrets that sign, and
the whole URL, which holds credentials where it leads to people. until_ms 0: no end.
"""

import base64
import secrets as randomness
from dataclasses import dataclass, replace

import orjson

from trackd.sealing import Seal
from trackd.store.errors import DataDamaged
from trackd.v1.notification_pb2 import Endpoint, EndpointKind, Target
from trackd.wire.endpoint_rules import subscription_name

_FORMAT = 1
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secret:
    """What signs. until_ms: when it stops; 0 is never."""

    text: str
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """An endpoint, what is shown of it and what is not. secrets: the newest first."""

    endpoint: Endpoint
    url: str
    secrets: tuple[Secret, ...]

    def live(self, now_ms: int) -> "EndpointRecord":
        """Without the secrets whose time is over."""
        if all(not secret.until_ms or secret.until_ms > now_ms for secret in self.secrets):
            return self
        endpoint = Endpoint()
        endpoint.CopyFrom(self.endpoint)
        endpoint.old_secret_until_ms = 0
        return replace(self, endpoint=endpoint, secrets=self.secrets[:1])

    @property
    def next_end_ms(self) -> int:
        """When a secret of it ends; 0: none does."""
        return self.endpoint.old_secret_until_ms

    def target(self) -> Target:
        """What a notifier needs of it."""
        target = Target(
            secrets=[secret.text for secret in self.secrets],
            subscription=subscription_name(self.endpoint.id),
        )
        target.endpoint.CopyFrom(self.endpoint)
        target.endpoint.ClearField("filter")
        target.endpoint.url = self.url
        return target

    def stored(self, seal: Seal, *, must_exist: bool) -> bytes:
        """The document. Raises KeyUnavailable."""
        private = orjson.dumps(
            {"url": self.url, "secrets": [[each.text, each.until_ms] for each in self.secrets]}
        )
        sealed = seal.seal(private, _place(self.endpoint.id), must_exist=must_exist)
        return orjson.dumps(
            {
                "format": _FORMAT,
                "endpoint": base64.b64encode(self.endpoint.SerializeToString()).decode(),
                "private": base64.b64encode(sealed).decode(),
            }
        )


def shown_of(document: bytes) -> Endpoint:
    """The part of a document that needs no key. Raises DataDamaged."""
    try:
        values = orjson.loads(document)
        if values["format"] != _FORMAT:
            raise DataDamaged(f"an endpoint has format {values['format']}, not {_FORMAT}")
        return Endpoint.FromString(base64.b64decode(values["endpoint"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataDamaged(f"an endpoint cannot be read: {error!r}") from None


def read(document: bytes, seal: Seal) -> EndpointRecord:
    """The whole document. Raises DataDamaged, KeyUnavailable."""
    endpoint = shown_of(document)
    sealed = base64.b64decode(orjson.loads(document)["private"])
    private = orjson.loads(seal.open(sealed, _place(endpoint.id)))
    secrets = tuple(Secret(text, until_ms) for text, until_ms in private["secrets"])
    return EndpointRecord(endpoint, private["url"], secrets)


def new_secrets(kind: EndpointKind.ValueType) -> tuple[Secret, ...]:
    """What a new endpoint signs with; texts to people are not signed."""
    return (new_secret(),) if kind == EndpointKind.ENDPOINT_KIND_WEBHOOK else ()


def new_secret() -> Secret:
    """As Standard Webhooks wants it: whsec_ and 24 to 64 random bytes in base64."""
    text = base64.b64encode(randomness.token_bytes(_SECRET_BYTES)).decode()
    return Secret(f"whsec_{text}")


def new_id() -> str:
    """Of 80 random bits."""
    return f"ep_{base64.b32encode(randomness.token_bytes(10)).decode().lower()}"


def _place(endpoint_id: str) -> bytes:
    return f"endpoint/{endpoint_id}/private".encode()
