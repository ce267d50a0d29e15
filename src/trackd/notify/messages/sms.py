"""Messages by SMS: what a provider has to do. The providers are in files of their own.

A provider's SDK is an extra of the installation, so nothing here imports one.
"""

from typing import Protocol

from trackd.domain.catalogue import Language
from trackd.notify.messages.wording import Message
from trackd.notify.outcome import Outcome


class SmsProvider(Protocol):
    """Sends a text to a telephone.

    - `send` makes one attempt and blocks; it is called in a thread, in several at once.
    - THROTTLED with a time where the provider says that the number, or the account, has had too
      many; HOPELESS where the number can never be sent to.
    - Outcomes name the provider's code and never the number.
    """

    def send(self, number: str, message: Message, *, language: Language, reference: str) -> Outcome:
        """number: E.164 with its plus. reference: the notification's id, for the provider's log."""
        ...
