"""The Python code in the README files and in the book runs, each file from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from peft_models import make


ROOT = Path(__file__).parents[2]
FILES = ["README.md", "python/README.md", "docs/chapters/pytorch.md"]


@pytest.mark.parametrize("file", FILES)
def test_the_code_runs(file):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks, f"{file} has no Python code"
    model, batch = make("linear")
    before = [p.detach().clone() for p in model.parameters()]
    names = {
        "peft_model": model,
        "batches": [batch, batch],
        "loss_of": lambda model, batch: model(batch).square().mean(),
    }
    for block in blocks:
        exec(compile(block, file, "exec"), names)
    assert any((p != old).any() for p, old in zip(model.parameters(), before, strict=True))
