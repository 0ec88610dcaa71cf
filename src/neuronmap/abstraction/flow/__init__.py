"""SAE features followed through the layers: what stays, drifts, splits, merges, is new and vanishes, each against chance."""

from neuronmap.abstraction.flow.ablation import Place, ablation_effects
from neuronmap.abstraction.flow.carried import Carried, Carrier, carried_by
from neuronmap.abstraction.flow.codes import SharedCodes, encode_rows, encode_shared
from neuronmap.abstraction.flow.edges import COUNTED, Edge, PairFlow, flow_between, reproduced
from neuronmap.abstraction.flow.flow import SAEAtHook, feature_flow, flow_warnings

__all__ = [
    "COUNTED",
    "Carried",
    "Carrier",
    "Edge",
    "PairFlow",
    "Place",
    "SAEAtHook",
    "SharedCodes",
    "ablation_effects",
    "carried_by",
    "encode_rows",
    "encode_shared",
    "feature_flow",
    "flow_between",
    "flow_warnings",
    "reproduced",
]
