"""``python -m distort.cli``."""

from __future__ import annotations

import sys

from distort.cli import main

if __name__ == "__main__":
    sys.exit(main())
