"""Rated sentences of the sentiment study by Hutto & Gilbert (ICWSM 2014), as TSV."""

from __future__ import annotations

import csv
import io
import tarfile

FOLDER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "film": "movieReviewSnippets",
    "tweet": "tweets",
    "product": "amazonReviewSnippets",
    "editorial": "nytEditorialSnippets",
}
# Sentences that are hardly for or against have no label.
LEAST = 0.5


def make(part, archives) -> dict[str, bytes]:
    (file,) = part.files
    rated = list(read(archives, next(source for name, source in SOURCES.items() if file.startswith(name))))
    if "ratings" in file:
        return {file: table(("score", "text"), rated)}
    labelled = [(label(float(score)), text) for score, text in rated if abs(float(score)) >= LEAST]
    return {file: table(("label", "text"), labelled)}


def label(score: float) -> str:
    return "positive" if score > 0 else "negative"


def read(archives, name: str):
    """Ratings and sentences, each sentence once."""
    with archives.source("vaderSentiment") as outer:
        with tarfile.open(fileobj=outer.extractfile(FOLDER)) as archive:
            content = archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt").read()
    seen = set()
    for line in content.decode().splitlines():
        _, score, text = line.split("\t")
        if text not in seen:
            seen.add(text)
            yield score, text


def table(header: tuple, rows: list) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    return out.getvalue().encode()
