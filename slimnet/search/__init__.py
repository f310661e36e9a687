"""The search for channels that can go: proposals, the oracle, the objective, the budget."""

from slimnet.search.latency import LayerTimer
from slimnet.search.search import search

__all__ = ["LayerTimer", "search"]
