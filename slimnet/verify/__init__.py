"""Check a finished folder again, at another place and time."""

from slimnet.verify.verify import verify

__all__ = ["verify"]
