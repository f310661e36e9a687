"""``python -m slimnet`` is the same as ``slimnet``."""

from __future__ import annotations

from slimnet.cli import main

if __name__ == "__main__":
    main()
