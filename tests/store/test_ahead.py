"""The events that are ahead of their table: whatever is put there is found, and taken in order."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackd.store import statuses
from trackd.store.ahead import SLOTS, Ahead, EventRow, slot_of
from trackd.store.keys import ORDER_LENGTH, split_event_key

pytestmark = pytest.mark.usefixtures("loops")

# Slots at both ends, neighbours, and one in the middle.
HOMES = [0, 1, 2, 255, 256, 30_000, SLOTS - 2, SLOTS - 1]
# Of a row with its key: less than a chunk of the compiled one holds, as much, and far more.
SIZES = [0, 1, 3, 60, 400, *range(430, 500), 700, 5_000]


def ahead(checkpoint: int = 0) -> Ahead:
    """An empty one, of the kind that is in use."""
    one: Ahead = statuses.Ahead(checkpoint)
    return one


def waybill(slot: int, number: bytes = b"SF1") -> bytes:
    """The status key of a waybill of that slot."""
    return slot.to_bytes(2, "big") + b"\0\xff\0\xff\0\xff" + number


def event_key(key: bytes, at: int) -> bytes:
    """The key of an event of a waybill."""
    return key + at.to_bytes(ORDER_LENGTH, "big")


class Model:
    """The same in one dict of all rows."""

    def __init__(self, checkpoint: int) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.written = [checkpoint] * SLOTS

    def of(self, prefix: bytes) -> list[EventRow]:
        """See Ahead."""
        return sorted(row for row in self.rows.items() if row[0].startswith(prefix))

    def within(self, slot: int, end: int) -> list[EventRow]:
        """The rows of these slots."""
        return sorted(row for row in self.rows.items() if slot <= slot_of(row[0]) < end)

    def take(self, slot: int, slots: int, rows_max: int) -> tuple[list[EventRow], list[bytes], int]:
        """See Ahead."""
        last = end = min(slot + slots, SLOTS)
        for each in sorted({slot + 1, *map(slot_of, self.rows)}):
            if slot < each < last and len(self.within(slot, each + 1)) > rows_max:
                end = each
                break
        rows = self.within(slot, end)
        return rows, sorted({split_event_key(key)[0] for key, _ in rows}), end

    def waybills_after(self, key: bytes) -> list[bytes]:
        """See Ahead."""
        later = sorted({each for row in self.rows if (each := split_event_key(row)[0]) > key})
        return [each for each in later if slot_of(each) == slot_of(later[0])]


def check(one: Ahead, model: Model, rng: Random) -> None:
    """They say the same of everything."""
    assert one.count == len(model.rows)
    assert one.size == sum(len(key) + len(value) for key, value in model.rows.items())
    slot = rng.choice(HOMES)
    asked = (slot, rng.choice([1, 2, 300, SLOTS]), rng.choice([0, 1, 5, 30, 1_000]))
    assert one.take(*asked) == model.take(*asked)
    known = rng.choice([*model.rows, event_key(waybill(7), 7)])
    for key in (known, event_key(waybill(slot), rng.randrange(40)), known[:-1], known + b"\0"):
        assert one.get(key) == model.rows.get(key)
    for prefix in (split_event_key(known)[0], known[:8], known[:2], known, known + b"\0"):
        assert one.of(prefix) == model.of(prefix)
    for key in (b"", split_event_key(known)[0], known, waybill(slot), waybill(SLOTS - 1, b"\xff")):
        assert one.waybills_after(key) == model.waybills_after(key)


@settings(max_examples=60)
@given(st.integers(0, 2**64 - 1))
def test_it_is_a_dict_of_rows(seed: int) -> None:
    """Put, found, taken and written out, in any order and of any length."""
    rng = Random(seed)
    checkpoint = rng.choice([0, 5, 1 << 63])
    one, model = ahead(checkpoint), Model(checkpoint)
    homes = rng.sample(HOMES, rng.randint(1, len(HOMES)))
    numbers = [b"", b"A", b"AA", b"B", b"\xff"][: rng.randint(1, 5)]
    for _ in range(rng.randint(1, 12)):
        rows = {}
        for _ in range(rng.choice([0, 1, 8, 60, 200])):
            key = event_key(waybill(rng.choice(homes), rng.choice(numbers)), rng.randrange(10_000))
            if key not in model.rows:
                rows[key] = rng.randbytes(rng.choice(SIZES))
        one.put(list(rows.items()))
        model.rows |= rows
        check(one, model, rng)
        if rng.random() < 0.5:
            slot = rng.choice([0, *homes])
            written, _, end = one.take(slot, rng.choice([1, 3, SLOTS]), rng.choice([1, 50]))
            position = rng.randrange(1 << 64)
            one.written_out(slot, end, position)
            model.written[slot:end] = [position] * (end - slot)
            for key, _ in written:
                del model.rows[key]
            check(one, model, rng)
    assert list(one.written) == model.written
    one.written_out(0, SLOTS, 9)
    assert (one.count, one.size, set(one.written)) == (0, 0, {9})


@pytest.mark.parametrize("count", [1, 2, 23, 24, 25, 26, 300])
def test_many_rows_of_a_slot_come_in_order(count: int) -> None:
    """Put in any order; the waybills each once, also those whose keys begin alike."""
    keys = [waybill(9, number) for number in (b"A", b"A\x01", b"AB", b"B")]
    rows = [(event_key(keys[n % 4], n * 7_919 % 1_000), bytes(n)) for n in range(count)]
    one = ahead()
    one.put(rows)
    assert one.take(0, 100, 1_000) == (sorted(rows), sorted(keys[:count]), 100)
    assert one.take(9, 1, 0) == (sorted(rows), sorted(keys[:count]), 10)
    assert one.take(10, 5, 10) == ([], [], 15)
    for key in keys:
        assert one.of(key + b"\0") == sorted(row for row in rows if row[0][:-ORDER_LENGTH] == key)


def test_what_was_taken_and_not_written_is_taken_again() -> None:
    """A stalled write: the rows stay, and those that came meanwhile go with them."""
    one = ahead()
    first, later = (event_key(waybill(3), 2), b"first"), (event_key(waybill(3), 1), b"later")
    one.put([first])
    assert one.take(3, 1, 10)[0] == [first]
    one.put([later])
    assert one.take(3, 1, 10)[0] == [later, first]
    one.written_out(3, 4, 2)
    assert (one.take(0, SLOTS, 10), one.count) == (([], [], SLOTS), 0)
    one.put([first])
    assert one.take(0, SLOTS, 10) == ([first], [waybill(3)], SLOTS)


def test_its_room_is_used_again() -> None:
    """Round after round, short rows and long ones, without one turning up in another's place."""
    one = ahead()
    rng = Random(4)
    for round_number in range(20):
        rows = {}
        for number in range(300):
            key = event_key(waybill(number * 211), round_number)
            rows[key] = rng.randbytes(rng.choice(SIZES))
        one.put(list(rows.items()))
        assert one.take(0, SLOTS, 1_000)[0] == sorted(rows.items())
        one.written_out(0, SLOTS, round_number)
        assert (one.count, one.size) == (0, 0)
