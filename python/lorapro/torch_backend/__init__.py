"""The plain-torch backend: every method of LoRA-Pro by torch operations alone, on any device.

Adapters of one shape, dtype, device and set of hyper-parameters are stacked and stepped together, in
f64 whatever their storage type, since Gram matrices square the condition number.

`closed_form` has the formulas of the paper, `methods` what each method makes of them, `slot` what is
kept of an adapter, `batch` stacked adapters, `backend` the interface, `precision` types and rounding.
"""

from .backend import TorchBackend
from .precision import DTYPES

__all__ = ["DTYPES", "TorchBackend"]
