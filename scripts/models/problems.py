"""Generated problems in the manner of GSM8K, from the templates of reasoning-gym, as JSON lines.

Whole templates are held out: a model that has only learned the templates by heart fails on those.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile

FOLDER = "reasoning_gym/arithmetic/gsm_symbolic/"
FILES = ("reasoning_gym/utils.py", FOLDER + "generators_00_49.py", FOLDER + "generators_50_99.py")

# Left out: what the authors list as not working yet, and what ends "#### 16.0" where the answer is 16.
UNFINISHED = {32, 35, 37, 61, 63, 65, 74, 76, 77, 79, 86, 87, 90, 97, 98}
INCONSISTENT = {25, 27, 84, 89}
TEMPLATES = sorted(set(range(100)) - UNFINISHED - INCONSISTENT)
HELD_OUT = set(random.Random("held out").sample(TEMPLATES, 16))


def make(part, archives) -> dict[str, bytes]:
    generators = load(archives)
    trained, held_out = part.files
    return {
        trained: lines(generators, [t for t in TEMPLATES if t not in HELD_OUT], 64),
        held_out: lines(generators, sorted(HELD_OUT), 16),
    }


def load(archives) -> dict:
    """The templates' functions. Their two modules need nothing else of the package but `utils.py`."""
    with tempfile.TemporaryDirectory(dir=archives.folder) as folder, archives.wheel("reasoning-gym") as archive:
        archive.extractall(folder, FILES)
        sys.path.insert(0, folder)
        modules = [importlib.import_module(file[:-3].replace("/", ".")) for file in FILES[1:]]
        sys.path.remove(folder)
    return {t: getattr(modules[t // 50], f"generate_{t}") for t in TEMPLATES}


def lines(generators: dict, templates: list[int], count: int) -> bytes:
    problems = [problem for template in templates for problem in draw(template, generators[template], count)]
    return "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems).encode()


def draw(template: int, generate, count: int) -> list[dict]:
    """Different problems of one template."""
    drawn = {}
    seed = 0
    while len(drawn) < count:
        drawn_now = generate(random.Random(f"template {template}, seed {seed}"), 1.0)
        seed += 1
        drawn[drawn_now["question"]] = {
            "prompt": f"Question: {drawn_now['question']}\nAnswer:",
            "completion": " " + drawn_now["metadata"]["answer_cot"].strip(),
            "answer": drawn_now["answer"],
            "template": template,
        }
    return list(drawn.values())
