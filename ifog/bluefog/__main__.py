"""``python -m ifog.bluefog [FILE]``: write the table of names, into a page or to the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from ifog.bluefog.names import markdown, replaced


def main() -> None:
    """Write the table."""
    if len(sys.argv) > 1:
        page = Path(sys.argv[1])
        page.write_text(replaced(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(markdown() + "\n")


if __name__ == "__main__":
    main()
