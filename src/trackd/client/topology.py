"""Which server owns a waybill: the layout that a server tells, and the contract's hash over it.

Values and rules only. Nothing here connects to anybody.
"""

from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from trackd.domain.validation import normal_waybill_number
from trackd.v1.admin_pb2 import GetTopologyResponse


@dataclass(frozen=True, slots=True)
class Topology:
    """The address of each partition's owner; empty where nothing is known of it."""

    addresses: tuple[str, ...] = ()

    @classmethod
    def told(cls, response: GetTopologyResponse) -> "Topology":
        """As a server tells it; of a layout that cannot be right nothing is believed."""
        addresses = {each.partition: each.address for each in response.partitions}
        count = response.partition_count
        if not all(addresses.values()) or sorted(addresses) != list(range(count)):
            return cls()
        return cls(tuple(addresses[number] for number in range(count)))

    @property
    def owners(self) -> tuple[str, ...]:
        """The addresses, each once. One or none: there is nothing to choose."""
        return tuple(dict.fromkeys(self.addresses))

    def owner_of(self, waybill_number: str) -> str:
        """The address of a waybill's owner; any owner for what is no waybill number."""
        number = normal_waybill_number(waybill_number) or ""
        return self.addresses[xxh3_64_intdigest(number.encode()) % len(self.addresses)]
