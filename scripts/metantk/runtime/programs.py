"""Which programs jobs run. Imports no torch."""

import os
import sys
from pathlib import Path


def put_own_programs_first() -> None:
    """Let jobs find this interpreter and its programs first: `.venv/bin/snakemake` needs no activation."""
    own, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if own not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([own, path])
