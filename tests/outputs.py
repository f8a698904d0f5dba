"""What ranks showed, made up for tests of folding and rendering."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from typing import NamedTuple

from ifog.magics.failures import failures, released
from ifog.magics.fold import Fold
from ifog.magics.render import output_text, prefix_width
from ifog.why import Explanation


class Output(NamedTuple):
    rank: int
    kind: str
    text: str
    data: Mapping = MappingProxyType({})


class RankError(NamedTuple):
    ename: str
    evalue: str
    line: int | None = None
    where: str = ""
    peer: int | None = None
    traceback: str = "line 1"


class Result(NamedTuple):
    ranks: tuple[int, ...] = (0, 1, 2, 3)
    seconds: float = 3.16
    rounds: int = 300
    nbytes: int = 230_000_000
    wait: float = 0.23
    status: str = "ok"
    errors: Mapping = MappingProxyType({})
    finished: Mapping = MappingProxyType({})
    why: Explanation | None = None


def folded(*outputs):
    fold = Fold()
    fold.feed([Output(*output) for output in outputs])
    fold.finish()
    return fold


def text_of(fold, errors=None, width=0):
    errors = errors or {}
    blocks = fold.blocks
    width = prefix_width([b.ranks for b in blocks])
    return output_text(blocks, failures(errors), released(errors), width)


# Numbers


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = []
        self.texts = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the base class's form
        self.seen.append(tag)
        if tag not in ("img", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # noqa: ARG002 - the base class's form
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags
