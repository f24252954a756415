#!/bin/sh
# The short form of tests/proofs/kills.py.
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
exec python3 "$(dirname "$0")/proofs/kills.py" "$1" --kills 8 --ranks 1,2 --steps 12
