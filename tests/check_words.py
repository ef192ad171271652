"""Part of `make lint`: the field's words, and short sentences in the guides. Needs the standard library alone.

Prints each line that has a word of the project's former English, with the word of the field, and the mean length of
sentences of each guide. Exit code 1 where a word is found or a guide's sentences have 20 words or more on average.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_MEAN = 20  # words of a sentence
GUIDES = ("README.md", "CONTRIBUTING.md", "config/README.md", "workflow/README.md", "docs/*.md")
SOURCES = (
    *GUIDES,
    *(
        f"{folder}/**/*.{suffix}"
        for folder in ("scripts", "workflow", "config", "tests")
        for suffix in ("py", "md")
    ),
    *("config/**/*.yaml", "workflow/**/*.yaml", "workflow/**/*.smk", "workflow/**/*.rst", "Makefile"),
)
# Former words, and the field's.
FORMER = {
    r"[Pp]ictures?": "image",
    r"Moment": "StepContext",
    r"Bill": "CostMeter",
    r"[Yy]ardsticks?": "baseline",
    r"[Cc]ertificates?": "comparison with random architectures",
    r"[Ss]trangers?": "user-defined",
    r"beyond chance": "significant",
    r"(inner|learning|meta|weight|outer|head)_rates?": "lr",
}
# Files with `generator("pictures")`: the string seeds random numbers, and stays.
SEEDED = (
    "scripts/metantk/criteria/inputs.py",
    "tests/benchmarks/bench_adaptation.py",
    "tests/unit/test_backbones.py",
    "tests/unit/test_backbones_frozen.py",
    "tests/unit/test_backbones_resnet12.py",
)
# Where such a word is the right one: the path's beginning, and what may stand there.
ALLOWED = {
    "scripts/build_container.py": r"certificates?",  # of a registry
    # Former names that are refused with the present ones, and strings that seed random numbers.
    **dict.fromkeys(("scripts/metantk/options/base.py", "tests/unit/test_config.py"), r".*"),
    **dict.fromkeys(("tests/workflow/test_bad_input.py",), r"learning_rate"),
    "scripts/metantk/searches/bayesian_optimisation.py": r"certificate",
    **dict.fromkeys(SEEDED, r"pictures"),
    "tests/check_words.py": r".*",
    "tests/unit/test_check_words.py": r".*",
}


def main() -> int:
    problems = [*find_words(REPOSITORY), *find_long_guides(REPOSITORY)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return min(1, len(problems))


def files_of(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern)})


def find_words(root: Path) -> Iterator[str]:
    """One line for each former word."""
    former = re.compile("|".join(rf"(?P<w{index}>\b{word}\b)" for index, word in enumerate(FORMER)))
    words = list(FORMER.values())
    for path in files_of(root, SOURCES):
        name = path.relative_to(root).as_posix()
        allowed = re.compile("|".join(found for start, found in ALLOWED.items() if name.startswith(start)))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for match in former.finditer(line):
                if not allowed.fullmatch(match[0]):
                    yield f"{name}:{number}: {match[0]}: say {words[int(match.lastgroup[1:])]}"


def find_long_guides(root: Path) -> Iterator[str]:
    """Print the mean length of sentences of each guide; a line for each whose mean is too long."""
    for path in files_of(root, GUIDES):
        name = path.relative_to(root)
        lengths = [len(sentence.split()) for sentence in sentences(path.read_text(encoding="utf-8"))]
        mean = sum(lengths) / max(1, len(lengths))
        print(f"{name}: {mean:.1f} words a sentence, {len(lengths)} sentences")
        if mean >= LONGEST_MEAN:
            yield f"{name}: sentences have {mean:.1f} words on average; below {LONGEST_MEAN} are wanted"


def sentences(markdown: str) -> list[str]:
    """Those of paragraphs and of items of lists; code, tables, headings and figures are left out."""
    text = re.sub(r"^```.*?^```", "\n\n", markdown, flags=re.M | re.S)
    text = re.sub(r"<[^>\n]+>|!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"^\s*(#.*|\|.*|---.*)$", "\n", text, flags=re.M)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n", text, flags=re.M)
    paragraphs = re.split(r"\n\s*\n", text)
    found = [one for paragraph in paragraphs for one in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))]
    return [sentence for sentence in found if re.search(r"\w", sentence)]


if __name__ == "__main__":
    sys.exit(main())
