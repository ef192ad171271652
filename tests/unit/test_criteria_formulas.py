"""Criteria on the two tiny networks of the fixtures, and their formulas on arrays, against the fixtures' values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.criteria import formulas, gradients, synaptic
from metantk.criteria.networks import Networks, alone, backward, forward, weight_gradients
from metantk.criteria.patterns import Agreements, Columns
from metantk.criteria.zen import Variances
from metantk.space.supernet import Convolution, Layer

FOLDER = Path(__file__).parents[1] / "fixtures" / "criteria"
PLAIN, SUPERNETS = sorted(FOLDER.glob("plain_*.npz")), sorted(FOLDER.glob("supernet_*.npz"))
GRAM = tuple(formulas.GRAM_SUMMARIES)
LOSS = ("grad_norm", "snip", "fisher", "zico")


def test_the_fixtures_are_there():
    assert [path.stem for path in PLAIN + SUPERNETS] == [
        f"{network}_{norm}_seed0" for network in ("plain", "supernet") for norm in ("batch", "group")
    ]


def norm_of(kind: str, x: Tensor, count: int = 1) -> Tensor:
    """The fixtures' norms, over `(candidates * images, channels, height, width)`."""
    if kind == "none":
        return x
    grouped = x.unflatten(0, (count, -1))
    over = (1, 3, 4) if kind == "batch" else (3, 4)
    variance, mean = torch.var_mean(grouped, over, correction=0, keepdim=True)
    return ((grouped - mean) / (variance + 1e-5).sqrt()).flatten(0, 1)


class Plain(nn.Module):
    """Three convolutions and a head; what its ReLUs and norms read is kept."""

    def __init__(self, data, norm: str) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(12, 10, 1, bias=False)
        self.fc = nn.Linear(10, 5)
        self.double()
        self.load_state_dict({key[7:]: torch.from_numpy(data[key]) for key in data if key.startswith("weight/")})

    def features(self, images: Tensor) -> Tensor:
        x, self.relus, self.normed = images, [], []
        for convolution in (self.conv1, self.conv2, self.conv3):
            self.normed.append(convolution(x))
            self.relus.append(norm_of(self.norm, self.normed[-1]))
            x = functional.relu(self.relus[-1])
        return x

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))


class Tiny(nn.Module):
    """Stem, two mixed edges and a head, for all candidates at once: they share the weights."""

    def __init__(self, data, norm: str, masks: Tensor) -> None:
        super().__init__()
        self.norm, self.masks = norm, masks
        self.stem = Convolution(3, 6, (3, 3))
        for edge in ("edge1", "edge2"):
            self.add_module(f"{edge}_conv", Convolution(6, 6, (3, 3)))
            self.add_module(f"{edge}_dw", Convolution(6, 6, (3, 3), groups=6))
            self.add_module(f"{edge}_pw", Convolution(6, 6))
        self.fc = nn.Linear(12, 5, bias=False)
        self.double()
        for key in data:
            if key.startswith("weight/"):
                name = key[7:].replace(".ops.1.", "_").replace(".ops.2.", "_")
                self.get_parameter(name).data = torch.from_numpy(data[key]).clone()

    def watched_norm(self, x: Tensor, used: Tensor) -> Tensor:
        self.normed.append((x[:, None], used[:, None].long()))
        return norm_of(self.norm, x, len(self.masks))

    def relu(self, x: Tensor, used: Tensor) -> Tensor:
        self.relus.append((x[:, None], used[:, None].long()))
        return functional.relu(x)

    def edge(self, x: Tensor, index: int) -> Tensor:
        one, two, pool = (self.masks[:, index, operation] for operation in (1, 2, 3))
        conv, depthwise, pointwise = (getattr(self, f"edge{index + 1}_{name}") for name in ("conv", "dw", "pw"))
        outputs = [
            x,
            self.watched_norm(conv(self.relu(x, one)), one),
            self.watched_norm(pointwise(depthwise(self.relu(x, two))), two),
            self.watched_norm(functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False), pool),
        ]
        weights = self.masks[:, index].double() / self.masks[:, index].sum(1, keepdim=True)
        stacked = torch.stack(outputs, 1).unflatten(0, (len(self.masks), -1))
        return torch.einsum("co,cno...->cn...", weights, stacked).flatten(0, 1)

    def features(self, images: Tensor) -> Tensor:
        self.relus, self.normed = [], []
        every = torch.ones(len(self.masks), dtype=torch.bool)
        x = self.watched_norm(self.stem(images.repeat(len(self.masks), 1, 1, 1)), every)
        middle = self.edge(x, 0)
        return self.relu(torch.cat([middle, self.edge(middle, 1)], 1), every)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))


class Case:
    """A fixture's network as `Networks`, for any norm, with its images."""

    def __init__(self, path: Path, candidates: slice = slice(None)) -> None:
        self.data = dict(np.load(path))
        self.norm = path.stem.split("_")[1]
        self.candidates, self.path = candidates, path
        self.images, self.images2, self.noise = (self.tensor(name) for name in ("images", "images2", "noise"))
        self.labels, self.labels2 = self.tensor("labels"), self.tensor("labels2")
        self.is_plain = path.stem.startswith("plain")
        self.count = 1 if self.is_plain else len(self.data["masks"][candidates])

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return self.images, self.labels

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.data[name])

    def network(self, norm: str | None = None) -> nn.Module:
        if self.is_plain:
            return Plain(self.data, norm or self.norm)
        return Tiny(self.data, norm or self.norm, self.tensor("masks")[self.candidates])

    def networks(self, norm: str | None = None) -> Networks:
        return self.of(self.network(norm))

    def of(self, network: nn.Module) -> Networks:
        if self.is_plain:
            return alone(network)
        modules = [m for m in network.modules() if isinstance(m, Convolution | nn.Linear)]
        return Networks(network, [Layer(module, module, None, None) for module in modules], self.count)

    def value(self, name: str) -> np.ndarray:
        value = self.data[f"value/{name}"]
        return value[None] if self.is_plain else value[self.candidates]

    def inside(self, name: str) -> np.ndarray:
        array = self.data[f"inside/{name}"]
        return array if self.is_plain else array[self.candidates]

    def agrees(self, measured: dict, *names: str, tolerance: float = 1e-8) -> None:
        for name in names:
            np.testing.assert_allclose(measured[name].values, self.value(name), rtol=tolerance, err_msg=name)


def cases():
    """All networks: plain ones, supernets with all candidates at once, in a few, and one by one."""
    for path in PLAIN:
        yield pytest.param(Case(path), id=path.stem)
    for path in SUPERNETS:
        yield pytest.param(Case(path), id=f"{path.stem}-together")
        yield pytest.param(Case(path, slice(3, 7)), id=f"{path.stem}-four")
        for index in range(12):
            yield pytest.param(Case(path, slice(index, index + 1)), id=f"{path.stem}-{index}")


every_case = pytest.mark.parametrize("case", list(cases()))


@every_case
def test_criteria_of_the_loss(case):
    batches = [case.batch, (case.images2, case.labels2)]
    case.agrees(gradients.measure_losses(case.networks(), batches, LOSS), *LOSS)


@every_case
def test_grasp_without_second_derivatives_and_weights_stay(case):
    network = case.network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    case.agrees(gradients.measure_grasp(case.of(network), [case.batch], ["grasp"]), "grasp")
    assert all(map(torch.equal, before, network.parameters()))


@every_case
def test_criteria_of_single_images(case):
    """Each image alone has the statistics of a norm per image and channel."""
    parts = ("gradsign", "knas")
    measured = gradients.measure_single_images(case.networks("group"), [case.batch], parts)
    np.testing.assert_array_equal(measured["gradsign"].values, case.value("gradsign"))
    np.testing.assert_allclose(measured["knas"].values, case.value("knas_mgm_loss"), rtol=1e-8)


@every_case
def test_criteria_of_the_jacobian(case):
    parts = ("jacob_cov", "epe_nas")
    case.agrees(gradients.measure_jacobians(case.networks(), [case.batch], parts), *parts)


@every_case
def test_synflow_and_its_logarithm(case):
    network = case.network("none")
    for parameter in network.parameters():
        parameter.data.abs_()
    ones = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    parts = ("synflow", "logsynflow")
    case.agrees(synaptic.measure_networks(case.of(network), ones, parts), *parts)


@every_case
def test_gram_of_the_outputs_gradients(case):
    """With group norm, where rows are the gradients of single images."""
    if case.norm == "batch":
        pytest.skip("images mix")
    networks, grams = case.networks(), torch.zeros(case.count, 12, 12, dtype=torch.float64)

    def consume(seen, gradient):
        rows = weight_gradients(seen.layer, seen.input, gradient, len(gradient)).flatten(1)
        rows = rows.unflatten(0, (case.count, -1))
        grams.add_(rows @ rows.transpose(1, 2))

    done = forward(networks, case.images)
    backward(done, done.answers.sum(), consume)
    np.testing.assert_allclose(grams.squeeze(0) if case.is_plain else grams, case.inside("ntk"), rtol=1e-8)
    for name in GRAM:
        np.testing.assert_allclose(formulas.GRAM_SUMMARIES[name](grams), case.value(f"ntk_{name}"), rtol=1e-8)


@every_case
def test_patterns_and_absent_units(case):
    network, agreements, columns = case.network(), Agreements(), Columns(12)
    with torch.no_grad():
        network(case.images)
    for relu in network.relus:
        x, used = (relu[:, None], torch.ones(1, 1, dtype=torch.long)) if case.is_plain else relu
        agreements(x, used)
        columns(x, used)
    found = formulas.log_determinants(agreements.kernel)
    np.testing.assert_allclose(found, case.value("naswot"), rtol=1e-8)
    np.testing.assert_array_equal(columns.count(case.count), case.value("swap"))


@every_case
def test_relus_that_read_the_same_count_once_where_they_are_fused(case):
    if case.is_plain:
        pytest.skip("no two ReLUs read the same")
    network, agreements = case.network(), Agreements()
    with torch.no_grad():
        network(case.images)
    first = {}
    for x, used in network.relus:  # the two ReLUs of an edge read the same; the identity edge passes A on to B
        key = next((k for k in first if torch.equal(first[k][0], x)), len(first))
        first[key] = (x, torch.maximum(used, first[key][1]) if key in first else used)
    for x, used in first.values():
        agreements(x, used)
    # Candidates 9 to 11 have one ReLU on each state: alone they are equal anyway.
    found = formulas.log_determinants(agreements.kernel)
    np.testing.assert_allclose(found, case.value("naswot_shared_relus"), rtol=1e-8)


@every_case
def test_zen(case):
    network, variances = case.network(), Variances()
    with torch.no_grad():
        features = network.features(case.images)
        for norm in network.normed:
            variances(*((norm[:, None], torch.ones(1, 1, dtype=torch.long)) if case.is_plain else norm))
        change = (features - network.features(case.images + 0.01 * case.noise)).abs().flatten(1).sum(1)
    logs = change.unflatten(0, (case.count, -1)).mean(1).log()
    np.testing.assert_allclose(logs, case.value("zen_log_difference"), rtol=1e-8)
    if case.norm == "batch":
        np.testing.assert_allclose(logs + variances.total, case.value("zen"), rtol=1e-8)
