"""The command lora-pro: the one in LORA_PRO_KIT, or what cargo makes of this checkout."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = shlex.split(os.environ.get("LORA_PRO_KIT", "cargo run --quiet --release --package lora-pro-cli --"))

needs_command = pytest.mark.skipif(shutil.which(COMMAND[0]) is None, reason=f"it needs {COMMAND[0]}, which is not here")
