"""What every word is called in Chinese and English: the one answer to "what do I show?".

No sentence is ever stored: a shipment holds codes, and whoever shows it asks here. The texts are
what a customer of a courier expects to read, short enough for a line of a timeline. What the words
mean for a shipment is in `lifecycle.py`; nothing here knows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy

Word = EventCode | Milestone | Flag | Reason | ReceivedBy
_Kind = TypeVar("_Kind", EventCode, Milestone, Flag, Reason, ReceivedBy)


class Language(StrEnum):
    """The languages of the catalogue, named as in BCP 47."""

    ZH = "zh"
    EN = "en"


@dataclass(frozen=True, slots=True)
class Text:
    """One word in every language."""

    zh: str
    en: str


_EVENT_TEXTS: Final[Mapping[EventCode, Text]] = {
    EventCode.REGISTERED: Text("已下单，等待揽收", "Order received, awaiting pickup"),
    EventCode.PICKED_UP: Text("已揽收", "Picked up"),
    EventCode.ARRIVED_AT_FACILITY: Text("已到达", "Arrived at facility"),
    EventCode.SORTED: Text("已分拣", "Sorted"),
    EventCode.DEPARTED_FACILITY: Text("已发出", "Departed facility"),
    EventCode.IN_TRANSIT: Text("运输中", "In transit"),
    EventCode.CUSTOMS_PRESENTED: Text("已提交海关", "Presented to customs"),
    EventCode.CUSTOMS_HELD: Text("海关扣留", "Held by customs"),
    EventCode.CUSTOMS_RELEASED: Text("海关已放行", "Released by customs"),
    EventCode.OUT_FOR_DELIVERY: Text("派送中", "Out for delivery"),
    EventCode.DELIVERY_ATTEMPT_FAILED: Text("派送未成功", "Delivery attempt failed"),
    EventCode.READY_FOR_COLLECTION: Text("待取件", "Ready for collection"),
    EventCode.DELIVERED: Text("已签收", "Delivered"),
    EventCode.REFUSED: Text("收件人拒收", "Refused by recipient"),
    EventCode.RETURNING: Text("退回中", "Returning to sender"),
    EventCode.RETURNED: Text("已退回寄件人", "Returned to sender"),
    EventCode.FORWARDED: Text("已转寄新地址", "Forwarded to a new address"),
    EventCode.CANCELLED: Text("运单已取消", "Shipment cancelled"),
    EventCode.DESTROYED: Text("包裹已销毁", "Parcel destroyed"),
    EventCode.DAMAGED: Text("发现包裹破损", "Parcel found damaged"),
    EventCode.LOST: Text("包裹暂未找到", "Parcel cannot be located"),
    EventCode.DELAYED: Text("运输延误", "Delayed"),
    EventCode.HELD: Text("包裹暂存", "On hold"),
    EventCode.PROBLEM_RESOLVED: Text("问题已解决", "Problem resolved"),
    EventCode.EVENT_VOIDED: Text("此前记录已更正", "Earlier scan corrected"),
}

_MILESTONE_TEXTS: Final[Mapping[Milestone, Text]] = {
    Milestone.UNSPECIFIED: Text("暂无物流信息", "No tracking information yet"),
    Milestone.REGISTERED: Text("待揽收", "Awaiting pickup"),
    Milestone.PICKED_UP: Text("已揽收", "Picked up"),
    Milestone.IN_TRANSIT: Text("运输中", "In transit"),
    Milestone.IN_CUSTOMS: Text("清关中", "In customs"),
    Milestone.OUT_FOR_DELIVERY: Text("派送中", "Out for delivery"),
    Milestone.DELIVERY_ATTEMPT_FAILED: Text("派送未成功", "Delivery attempt failed"),
    Milestone.READY_FOR_COLLECTION: Text("待取件", "Ready for collection"),
    Milestone.DELIVERED: Text("已签收", "Delivered"),
    Milestone.RETURNING: Text("退回中", "Returning to sender"),
    Milestone.RETURNED: Text("已退回", "Returned to sender"),
    Milestone.CANCELLED: Text("已取消", "Cancelled"),
    Milestone.DESTROYED: Text("已销毁", "Destroyed"),
}

_FLAG_TEXTS: Final[Mapping[Flag, Text]] = {
    Flag.DAMAGED: Text("包裹破损", "Damaged"),
    Flag.LOST: Text("疑似遗失", "Possibly lost"),
    Flag.DELAYED: Text("延误", "Delayed"),
    Flag.HELD: Text("暂存", "On hold"),
    Flag.REFUSED: Text("拒收", "Refused"),
    Flag.ADDRESS_PROBLEM: Text("地址有误", "Address problem"),
    Flag.UNEXPECTED_SCAN: Text("异常扫描", "Unexpected scan"),
    Flag.STALLED: Text("物流停滞", "No recent movement"),
    Flag.OVERDUE: Text("超时未送达", "Overdue"),
    Flag.MISROUTED: Text("错发", "Misrouted"),
    Flag.IMPLAUSIBLE: Text("轨迹存疑", "Scans contradict each other"),
}

_REASON_TEXTS: Final[Mapping[Reason, Text]] = {
    Reason.UNSPECIFIED: Text("未说明原因", "No reason given"),
    Reason.RECIPIENT_ABSENT: Text("收件人不在", "Nobody was there to receive it"),
    Reason.RECIPIENT_REFUSED: Text("收件人拒收", "The recipient refused it"),
    Reason.RECIPIENT_UNREACHABLE: Text("联系不上收件人", "The recipient could not be reached"),
    Reason.RECIPIENT_REQUESTED_LATER: Text("收件人要求改期", "The recipient asked for a later day"),
    Reason.BUSINESS_CLOSED: Text("收件单位已下班", "The business was closed"),
    Reason.ADDRESS_WRONG: Text("地址错误", "The address is wrong"),
    Reason.ADDRESS_INCOMPLETE: Text("地址不详", "The address is incomplete"),
    Reason.OUT_OF_SERVICE_AREA: Text("超出派送范围", "Outside the delivery area"),
    Reason.PAYMENT_DUE: Text("有费用待支付", "A payment is due"),
    Reason.DOCUMENTS_MISSING: Text("单证不全", "Documents are missing"),
    Reason.PROHIBITED_GOODS: Text("含禁寄物品", "Contains prohibited goods"),
    Reason.CUSTOMS_INSPECTION: Text("海关查验", "Customs inspection"),
    Reason.WEATHER: Text("天气原因", "Bad weather"),
    Reason.TRAFFIC: Text("交通拥堵", "Traffic"),
    Reason.CAPACITY: Text("快件量大", "High parcel volume"),
    Reason.MISSORTED: Text("分拣错误", "Sorted to the wrong place"),
    Reason.PACKAGING: Text("包装问题", "Inadequate packaging"),
    Reason.VEHICLE_BREAKDOWN: Text("车辆故障", "Vehicle breakdown"),
    Reason.SECURITY: Text("安全检查", "Security check"),
    Reason.OTHER: Text("其他原因", "Other reason"),
}

_RECEIVED_BY_TEXTS: Final[Mapping[ReceivedBy, Text]] = {
    ReceivedBy.UNSPECIFIED: Text("未注明签收人", "Recipient not stated"),
    ReceivedBy.SELF: Text("本人签收", "Received by the recipient"),
    ReceivedBy.PROXY: Text("他人代收", "Received on the recipient's behalf"),
    ReceivedBy.LOCKER: Text("快递柜", "Parcel locker"),
    ReceivedBy.STATION: Text("驿站", "Parcel station"),
    ReceivedBy.COUNTER: Text("网点柜台", "Service counter"),
}


def _by_name(texts: Mapping[_Kind, Text]) -> Mapping[str, Text]:
    return MappingProxyType({word.name: entry for word, entry in texts.items()})


CATALOGUE: Final[Mapping[type[Word], Mapping[str, Text]]] = MappingProxyType(
    {
        EventCode: _by_name(_EVENT_TEXTS),
        Milestone: _by_name(_MILESTONE_TEXTS),
        Flag: _by_name(_FLAG_TEXTS),
        Reason: _by_name(_REASON_TEXTS),
        ReceivedBy: _by_name(_RECEIVED_BY_TEXTS),
    }
)
"""By kind, then by name: two kinds may share a name (DAMAGED) and differ in text."""


def text(word: Word, language: Language) -> str:
    """What `word` is called in `language`. Total over the five enumerations."""
    entry = CATALOGUE[type(word)][word.name]
    return entry.zh if language is Language.ZH else entry.en
