"""Found first where ``PYTHONPATH`` says so: makes ``import bluefog.torch`` give ifog's stand-in."""

from __future__ import annotations

from ifog.bluefog import install

install()
