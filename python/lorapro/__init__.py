"""LoRA-Pro for PyTorch and PEFT.

`LoraPro` is a `torch.optim.Optimizer`; `create_lorapro_optimizer(model, lr=...)` makes one for a PEFT
model. `python -m lorapro.doctor` says what works on this machine.
"""

from ._lorapro import NonFiniteError, __version__
from .factory import LoraProFactory, create_lorapro_optimizer
from .optimizer import LoraPro

__all__ = ["LoraPro", "LoraProFactory", "NonFiniteError", "__version__", "create_lorapro_optimizer"]
