"""Writes peft_targets.json: which modules PEFT adapts, with which rank and scale.

Renew it with `python candle/tests/peft_targets.py` where torch, transformers and peft are
installed. PEFT itself judges every case, on small models with random weights.
"""

import copy
import json
import pathlib
import warnings

import peft
import transformers
from peft.tuners.lora import LoraLayer
from torch import nn

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 16}
COMMON = {"r": 4, "lora_alpha": 6.0}


def named(names):
    """A module tree with these linear modules."""
    root = nn.Module()
    for name in names:
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.add_module(last, nn.Linear(4, 4))
    return root


def models():
    bert = transformers.BertConfig(num_hidden_layers=12, **SIZES)
    llama = transformers.LlamaConfig(num_hidden_layers=3, **SIZES)
    projections = ("gate", "up", "down")
    experts = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}"
        for layer in range(3)
        for expert in range(2)
        for part in projections
    ]
    odd = ["query", "x.query", "x.y.query", "querystring", "a.b", "aXb", "blocks.1.0.fc", "head.fc"]
    return {
        "bert": (transformers.BertForSequenceClassification(bert), "SEQ_CLS", "classifier"),
        "llama": (transformers.LlamaForCausalLM(llama), "CAUSAL_LM", "lm_head"),
        "experts": (named(experts + ["encoder.h.0.fc", "encoder.h.1.fc"]), None, None),
        "odd": (named(odd), None, None),
    }


BERT_TARGETS = [
    ["query"],
    ["query", "value"],
    ["attention.self.key"],
    ["self.query", "intermediate.dense"],
    ["dense"],
    ["output.dense"],
    ["bert.encoder.layer.3.attention.self.query"],
    ["bert.encoder.layer.3.attention.self.query", "value"],
    ["uery"],
    ["quer"],
    ["query "],
    ["Query"],
    ["nothing"],
    ["nothing", "key"],
    ["classifier"],
    ["layer.1.attention.self.query"],
    ["1.attention.self.query"],
    "all-linear",
    "ALL-Linear",
    r".*\.query",
    r".*query|.*value",
    r"query",
    r"bert\.encoder\.layer\.\d\.attention\.self\.(query|key)",
    r".*layer\.(1|11)\..*(query|key|value)",
    r".*layer\.(?!0\.|1\.).*query",
    r".*(?<!1)\.attention\.self\.query",
    r".*\.(?P<part>key|value)",
    r"bert.encoder.layer.[02468].output.dense",
    r"(?i).*QUERY",
    r".*quer",
    r".*quer[^y]",
    r"",
]
LLAMA_TARGETS = [
    ["q_proj", "v_proj"],
    ["proj"],
    ["mlp.down_proj"],
    ["lm_head"],
    "all-linear",
    r".*self_attn\..*_proj",
    r".*\.(q|k|v|o)_proj",
    r"model\.layers\.[01]\.mlp\.(gate|up)_proj",
]
EXCLUDES = [
    ["query"],
    ["layer.0.attention.self.query"],
    ["0.attention.self.query", "1.attention.self.query"],
    ["uery"],
    ["dense"],
    r".*layer\.(0|1|2)\..*",
    r".*query",
    r"query",
    r".*",
    [],
]
LAYERS = [0, 11, 99, [], [0], [1, 3], [10, 11, 12]]
PATTERNS = [None, [], "", "layer", ["layer"], ["layers"], ["layers", "layer"], "encoder.layer", "h", "lay.r"]
RANKS = [
    {"query": 2},
    {"layer.1.attention.self.query": 2},
    {"uery": 2},
    {"^bert.encoder.layer.1.attention.self.query": 2},
    {r"layer\.[0-4]\..*": 3, "query": 2},
    {"query": 2, r"layer\.[0-4]\..*": 3},
    {"layer.1.*query": 2},
    {"query|value": 5},
    {"self.query": 5, "key": 7},
    {"quer.": 6},
    {"bert.encoder.layer.1.attention.self": 6},
]
SAVED = [["classifier"], ["layer.1"], ["query"], ["bert"], ["layer.1", "layer.2"], [r"layer\.\d"], ["pooler"]]


def cases():
    for target in BERT_TARGETS:
        yield "bert", {"target_modules": target}
    for target in LLAMA_TARGETS:
        yield "llama", {"target_modules": target}
    for exclude in EXCLUDES:
        for target in (["query"], ["query", "value"], r".*(query|key)"):
            yield "bert", {"target_modules": target, "exclude_modules": exclude}
    yield "bert", {"target_modules": "all-linear", "exclude_modules": ["dense"]}
    yield "llama", {"target_modules": "all-linear", "exclude_modules": r".*mlp.*"}
    for layers in LAYERS:
        yield "bert", {"target_modules": ["query"], "layers_to_transform": layers}
        yield "llama", {"target_modules": ["q_proj"], "layers_to_transform": layers}
    for pattern in PATTERNS:
        for layers in (1, [2, 11]):
            yield "bert", {
                "target_modules": ["key"],
                "layers_to_transform": layers,
                "layers_pattern": pattern,
            }
    whole = "bert.encoder.layer.3.attention.self.query"
    yield "bert", {"target_modules": [whole, "value"], "layers_to_transform": [5]}
    yield "bert", {"target_modules": r".*query", "layers_to_transform": [5]}
    yield "bert", {"target_modules": ["query"], "layers_pattern": "layer"}
    yield "bert", {"target_modules": ["pooler.dense"], "layers_to_transform": [0]}
    for layers in (0, [1], [1, 2]):
        for pattern in (None, "experts", "layers", ["h"], "mlp.experts"):
            yield "experts", {
                "target_modules": ["gate", "fc"],
                "layers_to_transform": layers,
                "layers_pattern": pattern,
            }
    for target in (["query"], ["x.query"], ["y.query"], r"query", r".*query", r"a.b", ["a.b"], ["fc"]):
        yield "odd", {"target_modules": target}
    yield "odd", {"target_modules": ["fc"], "layers_to_transform": [0]}
    yield "odd", {"target_modules": ["fc"], "layers_to_transform": [1]}
    for ranks in RANKS:
        yield "bert", {"target_modules": ["query", "key", "value"], "rank_pattern": ranks}
        yield "bert", {"target_modules": r".*(query|key)", "alpha_pattern": ranks}
    yield "bert", {
        "target_modules": ["query", "key"],
        "rank_pattern": {"query": 2},
        "alpha_pattern": {"key": 3.0},
        "use_rslora": True,
    }
    yield "odd", {"target_modules": r".*query", "rank_pattern": {"x.query": 2, "query": 3}}
    yield "odd", {"target_modules": r".*query", "rank_pattern": {"query": 3, "x.query": 2}}
    yield "odd", {"target_modules": r".*query", "rank_pattern": {"^query": 3, "y.query": 2}}
    for saved in SAVED:
        yield "bert", {"target_modules": ["query", "dense"], "modules_to_save": saved}
    yield "bert", {"target_modules": "all-linear", "modules_to_save": ["layer.0", "classifier"]}


def judge(model, task, fields):
    """PEFT's adapters: `{module: [r, s]}`, or None where it refuses."""
    try:
        config = peft.LoraConfig(**COMMON, task_type=task, **copy.deepcopy(fields))
        tuned = peft.LoraModel(copy.deepcopy(model), config, "default")
    except ValueError:
        return None
    return {
        name: [module.r["default"], module.scaling["default"]]
        for name, module in tuned.model.named_modules()
        if isinstance(module, LoraLayer)
    }


def main():
    warnings.simplefilter("ignore")
    made = models()
    linear = {
        key: [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        for key, (model, _, _) in made.items()
    }
    table = {
        "peft": peft.__version__,
        "models": {key: {"linear": linear[key], "head": made[key][2]} for key in made},
        "cases": [
            {"model": key, "config": {"peft_type": "LORA", **COMMON, **fields}, "adapters": judge(*made[key][:2], fields)}
            for key, fields in cases()
        ],
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n".join(json.dumps(case) for case in table.pop("cases"))
    head = json.dumps(table)[:-1]
    path.write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
    print(path, lines.count("\n") + 1, "cases")


if __name__ == "__main__":
    main()
