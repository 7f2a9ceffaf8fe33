"""Any user's network as a supernet: capture, units that change together, checks, space and supernet."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.graph.convert import NothingElasticError, make_elastic
    from ofa.graph.genes import ChoiceRule
    from ofa.graph.importance import l1_importance, taylor_importance
    from ofa.graph.iterative_pruning import iterative
    from ofa.graph.one_step_pruning import one_step
    from ofa.graph.reconstruction import Reconstructor
    from ofa.graph.space import GraphSpace
    from ofa.graph.supernet import GraphSupernet
    from ofa.graph.supernet_file import load_graph_supernet, save_graph_supernet

__all__ = [
    "ChoiceRule",
    "GraphSpace",
    "GraphSupernet",
    "NothingElasticError",
    "Reconstructor",
    "iterative",
    "l1_importance",
    "load_graph_supernet",
    "make_elastic",
    "one_step",
    "save_graph_supernet",
    "taylor_importance",
]

__getattr__ = lazy_names(
    __name__,
    {
        "convert": ["NothingElasticError", "make_elastic"],
        "genes": ["ChoiceRule"],
        "importance": ["l1_importance", "taylor_importance"],
        "iterative_pruning": ["iterative"],
        "one_step_pruning": ["one_step"],
        "reconstruction": ["Reconstructor"],
        "space": ["GraphSpace"],
        "supernet": ["GraphSupernet"],
        "supernet_file": ["load_graph_supernet", "save_graph_supernet"],
    },
)
