"""Class splits that papers have published for few-shot learning, of sets that come without one.

Those of Meta-Dataset (Triantafillou et al., 2020), from its published lists: the code of meta-dataset names
training, validation and test classes of these sets; what is not listed here is for training.
"""

from metantk.runtime.files import InputError

META_DATASET: dict[str, dict[str, list[str]]] = {
    "DTD": {
        "val": ["gauzy", "grid", "lined", "paisley", "porous", "scaly", "spiralled"],
        "test": ["banded", "bumpy", "crosshatched", "knitted", "sprinkled", "stratified", "woven"],
    },
    "FGVCAircraft": {
        "val": [
            "737-900",
            "757-300",
            "767-200",
            "A310",
            "A320",
            "BAE 146-300",
            "CRJ-900",
            "DC-10",
            "DC-8",
            "DC-9-30",
            "DHC-8-300",
            "Gulfstream V",
            "SR-20",
            "Tornado",
            "Yak-42",
        ],
        "test": [
            "737-400",
            "737-800",
            "757-200",
            "767-400",
            "ATR-42",
            "BAE-125",
            "Beechcraft 1900",
            "Boeing 717",
            "CRJ-200",
            "CRJ-700",
            "E-170",
            "L-1011",
            "MD-90",
            "Saab 2000",
            "Spitfire",
        ],
    },
    # By number: names differ between lists of this set.
    "Flowers102": {
        "val": [f"{k:03d}" for k in (10, 16, 17, 23, 26, 47, 53, 56, 57, 62, 82, 83, 86, 97, 102)],
        "test": [f"{k:03d}" for k in (5, 9, 15, 19, 35, 40, 41, 42, 45, 46, 65, 85, 89, 94, 96, 98)],
    },
}


def split(names: list[str], listed: dict[str, list[str]], *, source: str) -> dict[str, list[str]]:
    """Classes of each part, in order of name; a listed class is known by its name, or by the number before it.

    Raises:
        InputError: a listed class is not there.
    """
    known = {name: name for name in names} | {name.partition(" ")[0]: name for name in names}
    missing = [name for part in listed.values() for name in part if name not in known]
    if missing:
        raise InputError(f"{source}: has no class {missing[0]!r}, which its published split names; fetch it again")
    chosen = {part: sorted(known[name] for name in part_names) for part, part_names in listed.items()}
    taken = {name for part in chosen.values() for name in part}
    return {"train": sorted(set(names) - taken), **chosen}
