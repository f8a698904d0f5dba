"""Large messages between machines go in pieces, few at a time and in order."""

from __future__ import annotations

import numpy as np
import pytest

from ifog.transport.pieces import PIECE, Pieces


class Piece:
    def __init__(self):
        self.through = False

    def test(self):
        return self.through


@pytest.mark.parametrize("nbytes", [PIECE + 1, 2 * PIECE, 5 * PIECE - 3])
def test_a_message_is_all_its_pieces_in_order_and_few_are_under_way(nbytes):
    data = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    posted, under_way = [], []

    def post(piece):
        posted.append(piece)
        under_way.append(Piece())
        return under_way[-1]

    message = Pieces(post, data, 2)
    while not message.test():
        assert sum(not piece.through for piece in under_way) <= 2
        assert len(posted) == len(under_way)
        next(piece for piece in under_way if not piece.through).through = True
    assert all(piece.through for piece in under_way)
    assert np.concatenate(posted).tolist() == data.tolist()


def test_a_piece_that_is_through_early_waits_for_those_before_it():
    under_way = []
    message = Pieces(lambda _: under_way.append(Piece()) or under_way[-1], np.zeros(3 * PIECE), 2)
    under_way[1].through = True
    assert not message.test()
    assert len(under_way) == 2
    under_way[0].through = True
    assert not message.test()
    assert len(under_way) == 3
    under_way[2].through = True
    assert message.test()


def test_an_error_of_a_piece_is_one_of_the_message():
    class Broken:
        def test(self):
            raise RuntimeError("the wire broke")

    message = Pieces(lambda _: Broken(), np.zeros(2 * PIECE, np.uint8), 2)
    with pytest.raises(RuntimeError, match="broke"):
        message.test()
