"""The only operators a released model may use; the device's hardened load reads this list (spec 5.12)."""

from __future__ import annotations

OPSET = 17  # default domain only
IR_VERSION = 8
ALLOWED_OPS = (
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "Concat",
    "Gather",
    "IsNaN",
    "MatMul",
    "Mul",
    "ReduceSum",
    "Relu",
    "Sigmoid",
    "Slice",
    "Squeeze",
    "Sub",
    "Tanh",
    "Unsqueeze",
    "Where",
)
INPUT = "features"
OUTPUTS = ("pd", "score", "contributions")
