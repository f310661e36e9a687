"""The search for channels that can go: proposals, the oracle, the budget."""

from slimnet.search.search import search

__all__ = ["search"]
