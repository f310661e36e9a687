"""The search for the channels that can go within the budget."""

from slimnet.search.candidates import BRANCH
from slimnet.search.comparison import (
    FullOracle,
    order_by_each,
    places_among_all,
    places_by_group,
    sample_units,
)
from slimnet.search.latency_table import Cost, LayerTimer, read_latency_table, widths_of
from slimnet.search.objective import macs_cost, saved_by
from slimnet.search.path import EmptyPath, FoundState, SearchPath, unchanged_state
from slimnet.search.search import search, search_path
from slimnet.search.state import State, first_state
