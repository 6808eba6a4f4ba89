"""LoRA-Pro for PyTorch and PEFT.

`LoraPro` is a `torch.optim.Optimizer`; `create_lorapro_optimizer(model, lr=...)` makes one for a PEFT
model; `gap(model)` measures how far a step of any optimizer is from full fine-tuning's.
`python -m lorapro.doctor` says what works on this machine.
"""

from ._lorapro import NonFiniteError, __version__
from .factory import LoraProFactory, create_lorapro_optimizer
from .gap import gap
from .optimizer import LoraPro

__all__ = ["LoraPro", "LoraProFactory", "NonFiniteError", "__version__", "create_lorapro_optimizer", "gap"]
