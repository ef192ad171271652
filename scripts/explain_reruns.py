"""Say why jobs would run again: the option, input or module that changed since they ran.

Plans the workflow (`snakemake --dry-run`) in the current folder and reads Snakemake's reasons. A job that only
follows another one is named with the files that it waits for. Where an input changed, Snakemake looks no further.

Examples:
    python scripts/explain_reruns.py --configfile config/config.yaml
    python scripts/explain_reruns.py --configfile config/study.yaml study
"""

import subprocess
import sys

from metantk.results.reruns import read_reruns
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import SCRIPTS, InputError


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("targets", nargs="*", help="targets of Snakemake [all]")
    parser.add_argument("--configfile", default="config/config.yaml", metavar="FILE")
    arguments = parser.parse_args()
    snakefile = SCRIPTS.parent / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--snakefile", snakefile]
    command += ["--configfile", arguments.configfile, "--", *arguments.targets]
    plan = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if plan.returncode:
        errors = [line for line in plan.stdout.splitlines() if line.startswith("error: ")]
        said = errors or plan.stdout.strip().splitlines()[-1:]
        raise InputError("\n".join(line.removeprefix("error: ") for line in said))
    reruns = read_reruns(plan.stdout)
    for rerun in reruns:
        print(rerun.job)
        for cause in rerun.causes:
            print(f"    {cause}")
    if not reruns:
        print("Nothing would run: all results are there and up to date.")


if __name__ == "__main__":
    run(main)
