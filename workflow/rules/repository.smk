"""Where this workflow's files are, its library and its Python; the check of a file before Snakemake reads it."""

import contextlib
import gc
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from snakemake.sourcecache import HostingProviderFile, LocalSourceFile


def find_repository():
    """The folder of this workflow's files; `workflow.basedir` is another's where that uses this one as a module.

    It is relative to where Snakemake runs, so that commands read the same on every machine and in a container.
    """
    own = workflow.current_basedir.join("../..")
    if isinstance(own, LocalSourceFile):
        return Path(os.path.relpath(own))
    if isinstance(own, HostingProviderFile):
        return check_out(own.hosted_repo.repo, own.ref)
    print(f"error: {own}: a module is used from a folder, or with github() or gitlab()", file=sys.stderr)
    sys.exit(2)


def check_out(repository, ref):
    """All files of a version that Snakemake has cloned for github() or gitlab(): it hands out single ones only."""
    commit = repository.commit(ref).hexsha
    folder = Path(".snakemake", f"metantk-{commit}")
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished, tempfile.TemporaryFile() as archive:
            repository.archive(archive, commit)
            archive.seek(0)
            tarfile.open(fileobj=archive).extractall(f"{unfinished}/files", filter="data")
            # Another Snakemake may have been faster.
            with contextlib.suppress(OSError):
                Path(unfinished, "files").rename(folder)
    return folder


# Of the outermost workflow `is_module` is true as well.
IS_MODULE = workflow.modifier.parent_modifier is not None
# Snakemake's jobs live to its end: looking for garbage among them is a tenth of the time that a large plan takes.
if not IS_MODULE:
    gc.set_threshold(1_000_000)
REPOSITORY = find_repository()
SCRIPTS = REPOSITORY / "scripts"
sys.path.insert(0, str(SCRIPTS.resolve()))

import metantk.options.config
import metantk.runtime.files
import metantk.runtime.programs

metantk.runtime.programs.put_own_programs_first()


def stop(error):
    """One line for each problem and exit code 2, as every script does it, instead of a traceback."""
    for line in str(error).split("\nerror: "):
        print(f"error: {metantk.runtime.files.shorten(line)}", file=sys.stderr)
    sys.exit(2)


def check_configfiles(*paths):
    """Refuse what Snakemake would read otherwise than it looks: code, and keys that stand twice."""
    try:
        for path in paths:
            metantk.options.config.read_yaml(Path(path))
    except metantk.runtime.files.InputError as error:
        stop(error)
