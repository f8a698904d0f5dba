"""Letters that come in envelopes: each is taken by its tag, in the order in which it was sent."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ifog.transport.base import TOKEN_BYTES
from ifog.transport.envelopes import ENVELOPE, Inbox, front, payload_at, record


def parts(letters):
    listed = b"".join(record(tag, head, len(text)) for tag, head, text in letters)
    texts = b"".join(text for _, _, text in letters)
    return listed, texts, listed.ljust(payload_at(len(listed)), b"\0") + texts


def envelope(letters):
    listed, texts, body = parts(letters)
    return bytearray(front(len(listed), len(texts), lent=False) + body)


def never(*_):
    raise AssertionError("nothing was lent")


@pytest.fixture
def inbox():
    return Inbox(3, never, never)


def drained(inbox, tag):
    found = []
    while (data := inbox.take(tag)) is not None:
        found.append(bytes(data))
    return found


def test_letters_are_taken_out_by_their_tags(inbox):
    inbox.put(ENVELOPE, envelope([(5, b"a", b"bc"), (6, b"", b""), (7, b"de", b"f")]))
    assert inbox.take(7) == b"def"
    assert inbox.take(8) is None
    assert inbox.take(5) == b"abc"
    assert inbox.take(6) == b""
    assert not inbox.letters
    assert not inbox.envelopes


@pytest.mark.parametrize("seed", range(30))
def test_letters_of_one_tag_keep_their_order_whether_in_envelopes_or_not(seed):
    chance, inbox, sent, got = random.Random(seed), Inbox(3, never, never), {}, {}
    count = 0
    for _ in range(60):
        letters = []
        for _ in range(chance.choice((1, 1, 4))):
            count += 1
            letters.append((chance.randrange(4), b"%d " % count, b"x" * chance.randrange(3)))
            sent.setdefault(letters[-1][0], []).append(letters[-1][1] + letters[-1][2])
        if len(letters) == 1:
            inbox.put(letters[0][0], bytearray(letters[0][1] + letters[0][2]))
        else:
            inbox.put(ENVELOPE, envelope(letters))
        for tag in chance.sample(range(4), 2):
            data = inbox.take(tag)
            if data is not None:
                got.setdefault(tag, []).append(bytes(data))
    for tag in range(4):
        got.setdefault(tag, []).extend(drained(inbox, tag))
    assert got == sent


def test_payloads_that_are_taken_as_they_lie_leave_the_rest(inbox):
    letters = [(k, b"h%d" % k, bytes([k]) * 4) for k in range(5)]
    inbox.put(ENVELOPE, envelope(letters))
    first, listed = inbox.envelopes[0], len(parts(letters[:2])[0])
    assert first.listed[:listed] == parts(letters[:2])[0]
    assert bytes(first.payloads(8)) == bytes([0] * 4 + [1] * 4)
    first.skip(listed, 8)
    inbox.tidy()
    assert inbox.take(0) is None
    assert inbox.take(2) == b"h2" + bytes([2] * 4)
    assert inbox.take(4) == b"h4" + bytes([4] * 4)
    assert inbox.take(3) == b"h3" + bytes([3] * 4)
    assert not inbox.envelopes


def test_no_record_is_the_beginning_of_another():
    records = {record(tag, head, 4) for tag in (1, 256) for head in (b"", b"a", b"ab", b"ab\0\0")}
    assert not any(a != b and a.startswith(b) for a in records for b in records)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_what_is_lent_is_given_back_once_when_all_of_it_is_read(order):
    letters = [(k, b"head", bytes([k]) * 4) for k in range(3)]
    listed, texts, body = parts(letters)
    memory, returned = np.frombuffer(body, np.uint8), []
    token = bytes(range(TOKEN_BYTES))

    def borrow(source, found, nbytes):
        assert (source, found, nbytes) == (3, token, len(body))
        return memory

    inbox = Inbox(3, borrow, lambda source, found: returned.append((source, found)))
    inbox.put(ENVELOPE, bytearray(front(len(listed), len(texts), lent=True) + token))
    for tag in order:
        assert inbox.take(tag) == b"head" + bytes([tag]) * 4
    assert inbox.take(0) is None
    assert returned == [(3, token)]
