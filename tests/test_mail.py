"""Messages and loans between processes of one machine, here two ends in one process."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from ifog.errors import PeerFailedError
from ifog.transport import loans
from ifog.transport.loans import Loans, Pool
from ifog.transport.mail import LOANS, MOST_BYTES, SLOT_BYTES, Mail

pytestmark = pytest.mark.timeout(30)


def never():
    """Nobody has aborted."""


def pair(check=never):
    ends = [Mail(rank, (3, 5), check) for rank in (3, 5)]
    addresses = {end.rank: end.address for end in ends}
    for end in ends:
        end.open(addresses)
    for end in ends:
        end.opened()
    return ends


@pytest.fixture
def ends():
    ends = pair()
    yield ends
    for end in ends:
        end.close()


def received(end, source, tag):
    letter = end.receive(source, tag)
    assert letter.test()
    return bytes(letter.data)


def test_messages_arrive_in_order_and_byte_for_byte(ends):
    one, other = ends
    texts = [b"", b"x", bytes(range(256)) * 4, b"y" * SLOT_BYTES, b"z" * (SLOT_BYTES + 1)]
    texts += [b"small", bytes(range(256)) * 1024, b"x" * MOST_BYTES, b"last"]
    for text in texts:
        assert one.send(text, 5, tag=7).test()
    assert [received(other, 3, 7) for _ in texts] == texts


def test_tags_are_matched_whatever_the_order_of_the_receives(ends):
    one, other = ends
    for tag in (1, 2, 1):
        one.send(b"%d" % tag, 5, tag)
    assert received(other, 3, 2) == b"2"
    assert [received(other, 3, 1) for _ in range(2)] == [b"1", b"1"]
    assert not other.receive(3, 1).test()


def test_large_messages_of_other_tags_are_kept_and_their_slots_are_free_again(ends):
    one, other = ends
    for turn in range(3):
        texts = {tag: bytes([turn, tag]) * 50_000 for tag in range(4)}
        assert all(one.send(text, 5, tag).test() for tag, text in texts.items())
        assert [received(other, 3, tag) for tag in (3, 1, 0, 2)] == [texts[k] for k in (3, 1, 0, 2)]


def test_large_messages_wait_for_room_and_hold_up_what_comes_after(ends):
    one, other = ends
    texts = [bytes([k]) * (100_000 if k % 3 else 10) for k in range(30)]
    requests = [one.send(text, 5, tag=0) for text in texts]
    assert not requests[-1].test()
    got = []
    for _ in texts:
        letter = other.receive(3, 0)
        while not letter.test():
            for request in requests:
                request.test()
        got.append(bytes(letter.data))
    assert got == texts
    assert all(request.test() for request in requests)


def test_both_directions_are_apart(ends):
    one, other = ends
    one.send(b"there", 5, 1)
    other.send(b"back", 3, 1)
    assert received(one, 5, 1) == b"back"
    assert received(other, 3, 1) == b"there"


def test_a_full_ring_delays_the_sender_and_loses_nothing(ends):
    one, other = ends
    requests = [one.send(b"%d" % k, 5, tag=k % 3) for k in range(100)]
    assert requests[0].test()
    assert not requests[-1].test()
    got = {tag: [] for tag in range(3)}
    for k in range(100):
        letter = other.receive(3, k % 3)
        while not letter.test():
            requests[-1].test()
        got[k % 3].append(int(letter.data))
    assert requests[-1].test()
    assert got == {tag: list(range(tag, 100, 3)) for tag in range(3)}


def test_a_message_wakes_who_sleeps_for_it(ends):
    one, other = ends
    awake = threading.Event()

    def sleep():
        other.sleep(20.0)
        awake.set()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    one.send(b"up", 5, 1)
    assert awake.wait(10.0)
    sleeper.join(timeout=10.0)


def test_who_waits_hears_that_a_rank_has_aborted():
    def check():
        raise PeerFailedError("rank 3 stopped: boom", 3, "boom")

    _, other = pair(check)
    with pytest.raises(PeerFailedError, match="boom"):
        other.receive(3, 1).test()


@pytest.fixture
def bank(ends):
    pids = {end.rank: end.address[0] for end in ends}
    return [Loans(end, Pool(2), pids) for end in ends]


def test_a_loan_is_a_copy_that_the_reader_sees_until_it_gives_it_back(bank):
    lender, reader = bank
    data = np.arange(100_000, dtype=np.uint32).view(np.uint8)
    loan = lender.lend(data, [5])
    assert not loan.lives
    data[:] = 0
    seen = reader.borrow(3, loan.token, data.size).view(np.uint32)
    assert seen.tolist() == list(range(100_000))
    assert loan.unread() == (5,)
    reader.give_back(3, loan.token)
    assert loan.unread() == ()


def test_a_loan_that_was_read_stays_read_when_its_row_serves_the_next_one(bank):
    lender, reader = bank
    data = np.zeros(5000, np.uint8)
    first = lender.lend(data, [5])
    reader.give_back(3, first.token)
    second = lender.lend(data, [5])
    assert second.row == first.row
    assert first.unread() == ()
    assert second.unread() == (5,)


def test_what_lives_in_the_pool_is_lent_where_it_is(ends):
    one, other = ends
    pool = Pool(2)
    pids = {end.rank: end.address[0] for end in ends}
    lender, reader = Loans(one, pool, pids), Loans(other, Pool(2), pids)
    room = pool.room(50_000)
    room[:] = 1
    loan = lender.lend(room[10_000:20_000], [5])
    assert loan.lives
    room[10_000] = 9  # no copy was made
    assert reader.borrow(3, loan.token, 10_000)[:2].tolist() == [9, 1]


def test_blocks_are_used_again_when_all_have_read_and_when_an_array_is_gone(bank):
    lender, reader = bank
    tokens = set()
    for value in range(20):
        loan = lender.lend(np.full(70_000, value, np.uint8), [5])
        tokens.add(loan.token[8:])
        assert reader.borrow(3, loan.token, 70_000)[0] == value
        reader.give_back(3, loan.token)
    assert len(tokens) == 1
    pool = Pool(1)
    places = set()
    for _ in range(20):
        room = pool.room(70_000)
        places.add(pool.find(room))
        del room
    assert len(places) == 1


def resident(pool):
    return sum(os.fstat(file.descriptor).st_blocks * 512 for file in pool._files)


def test_memory_that_is_not_used_any_more_goes_back_when_other_sizes_are_needed():
    pool, sizes = Pool(1), (3_000_000, 5_000_000, 9_000_000, 14_000_000)
    kept = pool.room(2_000_000)
    kept[:] = 7
    for nbytes in sizes:
        room = pool.room(nbytes)
        room[:] = 1
        assert resident(pool) < 2_000_000 + nbytes * 1.3
        del room
    assert (kept == 7).all()
    again = pool.room(sizes[0])
    assert not again.any()  # its pages were gone
    again[:] = 1
    del again
    same = pool.room(sizes[0])
    assert same.all()  # and now it is used again as it is


def test_who_goes_through_many_sizes_has_room_for_each(monkeypatch):
    pool = Pool(1)
    monkeypatch.setattr(pool, "_limit", 40_000_000)
    for megabytes in [*range(1, 30), *range(1, 30)]:  # 435 MB in all, one at a time
        room = pool.room(megabytes * 1_000_000)
        assert room is not None
        room[:] = 1
        assert resident(pool) < 40_000_000
        del room
    held = [pool.room(8_000_000) for _ in range(4)]
    assert all(room is not None for room in held)
    assert pool.room(8_000_000) is None  # what is in use counts
    del held[0]
    assert pool.room(7_000_000) is not None  # and what is free gives way


def test_what_has_not_been_used_for_long_goes_back_and_what_is_used_stays(monkeypatch):
    time = 100.0
    monkeypatch.setattr(loans, "monotonic", lambda: time)
    pool = Pool(1)
    for nbytes in (6_000_000, 2_000_000, 6_000_000):  # both sizes have blocks with pages
        room = pool.room(nbytes)
        room[:] = 1
        del room
    assert resident(pool) > 8_000_000
    for _ in range(1000):  # what is used in turn stays, however often the others are
        room = pool.room(2_000_000)
        room[0] = 1
        del room
    assert resident(pool) > 8_000_000
    for _ in range(40):
        room = pool.room(2_000_000)
        room[0] = 1
        del room
        time += 0.2
    assert 2_000_000 <= resident(pool) < 3_000_000
    for _ in range(40):
        room = pool.room(2_000_000)
        assert room[1] == 1  # never given back meanwhile
        del room


def test_without_a_free_row_or_memory_nothing_is_lent(bank):
    lender, _ = bank
    data = np.zeros(5000, np.uint8)
    assert all(lender.lend(data, [5]) for _ in range(LOANS))
    assert lender.lend(data, [5]) is None
    lender.drop()
    assert Pool(1 << 40).take(5000) is None


def test_ranks_elsewhere_are_no_readers(bank):
    lender, _ = bank
    data = np.zeros(5000, np.uint8)
    assert lender.lend(data, [4]) is None
    assert tuple(lender.lend(data, [4, 5]).readers) == (5,)
