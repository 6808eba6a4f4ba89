"""Every law, mode and storage type on torch tensors with odd strides, by the project's conformance kit.

The kit is a program in Rust (command.py). It tries 2 random cases for each law; LORA_PRO_CASES=100 makes it thorough,
in about ten minutes a test.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND, ROOT, needs_command

CASES = int(os.environ.get("LORA_PRO_CASES", "2"))
BACKENDS = [("cpu", "padded"), ("torch", "transposed")]
DTYPES = ["f64", "f32", "bf16", "f16"]
METHODS = ["lora", "sgd", "efficient", "factored", "full"]

pytestmark = needs_command


def conform(subject: list[str], options: list[str], report: Path) -> tuple[int, str, list[dict]]:
    """The kit's exit code, what it printed, and the cells of its record."""
    subject = [sys.executable, str(Path(__file__).with_name("conformance_subject.py")), *subject]
    command = [*COMMAND, "conform", "--command", shlex.join(subject), "--report", str(report), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    record = report / "record.jsonl"
    lines = map(json.loads, record.read_text().splitlines()) if record.exists() else []
    return done.returncode, done.stdout, [line for line in lines if line["kind"] == "cell"]


@pytest.mark.parametrize("backend, strides", BACKENDS)
def test_every_law_holds(backend, strides, tmp_path):
    options = [f"--cases={CASES}", "--dtype=f64", "--dtype=f32"]  # 16 bits leave the laws no digit to look at
    code, printed, cells = conform(["--backend", backend, "--strides", strides], options, tmp_path)
    assert code == 0, printed
    for law in {cell["check"] for cell in cells} - {"differential"}:
        verdicts = {cell["verdict"] for cell in cells if cell["check"] == law}
        assert verdicts == {"PASS"} or (law == "law-20-decay" and verdicts == {"PASS", "UNSUPPORTED"}), law


@pytest.mark.parametrize("backend, strides", BACKENDS)
def test_every_number_of_a_step_is_the_references(backend, strides, tmp_path):
    options = [f"--cases={10 * CASES}", "--check=differential", *(f"--dtype={dtype}" for dtype in DTYPES)]
    code, printed, cells = conform(["--backend", backend, "--strides", strides], options, tmp_path)
    assert code == 0, printed
    compared = {(cell["method"], cell["dtype"]): cell["cases"] for cell in cells if cell["check"] == "differential"}
    assert compared.keys() == {(method, dtype) for method in METHODS for dtype in DTYPES}
    assert min(compared.values()) >= 2 * CASES  # the package is not asked for what it does not offer


@pytest.mark.parametrize("bug, law", [("scale", "orthogonality"), ("gradient", "orthogonality"), ("state", "resume")])
def test_the_laws_see_a_planted_bug(bug, law, tmp_path):
    options = ["--cases", "5", "--dtype", "f32", "--method", "factored", "--check", law]
    code, printed, cells = conform(["--bug", bug], options, tmp_path)
    verdicts = {cell["check"]: cell["verdict"] for cell in cells}
    assert code != 0 and next(v for check, v in verdicts.items() if law in check) == "FAIL", printed
