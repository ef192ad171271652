"""The library behind the stages. For programs of one's own, three lines from a trained model to features:

    sys.path.insert(0, "path/of/this/repository/scripts")
    model = metantk.load("results/birds/5cells-8ch/metantk/seed0/rfs")
    features = model.features(pictures)

`metantk.load` takes the folder of a model, or a file of export_backbone.py, and pictures are uint8
`(pictures, height, width, 3)`, red before green before blue.
"""

import importlib


def load(path: object) -> object:
    """A `metantk.exported.Extractor`; see there."""
    # By name: whatever imports a module of this library would depend on all of its networks.
    return importlib.import_module("metantk.exported").Extractor(path)
