"""What a run costs before it is begun: arithmetic, time, memory, storage and money, on this machine or a rented one."""

from __future__ import annotations

from neuronmap.planning.coefficients import COEFFICIENTS, Coefficient
from neuronmap.planning.costplan import CostPlan, PlanRequest, plan_costs
from neuronmap.planning.hardware import DEVICES, Device, find_device
from neuronmap.planning.shapes import PUBLISHED, ModelShape, find_shape

__all__ = [
    "COEFFICIENTS",
    "DEVICES",
    "PUBLISHED",
    "Coefficient",
    "CostPlan",
    "Device",
    "ModelShape",
    "PlanRequest",
    "find_device",
    "find_shape",
    "plan_costs",
]
