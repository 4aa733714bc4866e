"""What keeps fine-tuning from forgetting, and other ways to use a teacher."""

import csv

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from phystrain import config, datasets
from phystrain.augment import pull_perturb
from phystrain.augment._relabel import relabel
from phystrain.config import Sharpness, Window
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.saving import load_model, read_state
from phystrain.train.made import outside, replay_weight
from phystrain.train.optimisation import factors, make_optimiser
from phystrain.train.run import Run
from phystrain.train.sharpness import worst_nearby
from phystrain.train.step import TrainingStep


def train(settings, folder):
    lines = []
    model = Run(config.check(settings), folder, say=lines.append).train()
    return load_model(model), lines


def weights(folder, stage):
    return read_state(folder / "model" / f"{stage}.safetensors")[0]


@pytest.fixture
def frames():
    return read(datasets.path("silica")).structures.select(np.arange(4))


@pytest.fixture
def network(frames):
    torch.manual_seed(0)
    statistics = compute(frames, 3.5, reference_energies(frames))
    return build({"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.5}, statistics)


def test_a_prior_is_added_and_stays_what_it_was(settings, tmp_path, frames):
    settings["stages"][2] |= {"prior": "teacher", "init_from": None, "replay": None}
    del settings["stages"][1]
    saved, _ = train(settings, tmp_path / "run")
    teacher = load_model(tmp_path / "run" / "model" / "teacher.safetensors")
    inner, prior = teacher.potential.terms["model"], saved.potential.terms["prior"]
    for name, value in inner.state_dict().items():
        assert torch.equal(prior.potential.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    graph = GraphStore(frames, saved.potential.cutoff).graph([0, 1])
    total = evaluate(saved.potential, graph).forces
    parts = [
        evaluate(saved.potential.terms[name], graph.within(saved.potential.terms[name].cutoff)).forces
        for name in ("model", "prior")
    ]
    assert torch.allclose(total, sum(parts), atol=1e-5)
    assert parts[1].abs().max() > 0.1


def test_a_prior_for_other_elements_is_refused(settings, tmp_path):
    settings["stages"] = settings["stages"][:1]
    train(settings, tmp_path / "silica")
    other = settings | {"data": {"train": str(datasets.path("nbmotaw")), "use": 4, "valid_fraction": 0.0}}
    other["stages"] = [{"name": "delta", "prior": str(tmp_path / "silica"), "objectives": {"forces": {}}, "steps": 2}]
    with pytest.raises(UserError, match="other elements"):
        train(other, tmp_path / "metal")


def test_staying_near_holds_the_weights(settings, tmp_path):
    moved = {}
    for weight in (None, 1e4):
        settings["stages"][2]["stay_near"] = {"weight": weight} if weight else None
        folder = tmp_path / str(weight)
        train(settings, folder)
        before, after = weights(folder, "pretrain"), weights(folder, "finetune")
        moved[weight] = max(
            float((after[name] - before[name]).abs().max()) for name in after if name.startswith("terms.model")
        )
    assert moved[1e4] < 0.5 * moved[None]


def test_the_penalty_is_half_the_squared_distance(network, frames):
    from phystrain.data.graphs import GraphStore
    from phystrain.objectives import parse

    batch = GraphStore(frames, 3.5).batch([0])
    objectives = parse({"energy": {}})
    step = TrainingStep(network, objectives, stay_near=3.0)
    with torch.no_grad():
        name, parameter = next((n, p) for n, p in network.named_parameters() if p.requires_grad)
        parameter.add_(0.1)
    with_penalty, _ = step(batch)
    without, _ = TrainingStep(network, objectives)(batch)
    half_squared = 0.5 * 0.01 * parameter.numel()
    assert float((with_penalty - without).detach()) == pytest.approx(3.0 * half_squared, rel=1e-4), name


def test_rates_by_pattern(network):
    names = [name for name, _ in network.named_parameters()]
    pattern = names[0].split(".")[0] + "*"
    found = factors(network, {"*": 0.5, pattern: 0.0})
    assert {found[name] for name in names if name.startswith(pattern[:-1])} == {0.0}
    assert {value for name, value in found.items() if not name.startswith(pattern[:-1])} == {0.5}
    with pytest.raises(UserError, match="no parameter matches 'nothing'"):
        factors(network, {"nothing": 1.0})


def test_a_rate_of_zero_holds_parameters(settings, tmp_path):
    settings["stages"][2]["optimiser"] = {"rates": {"*": 0.0, "*.readout*": 1.0}}
    train(settings, tmp_path / "run")
    before, after = weights(tmp_path / "run", "pretrain"), weights(tmp_path / "run", "finetune")
    changed = {name for name in after if not torch.equal(before[name], after[name]) and "reference" not in name}
    assert changed
    assert all("readout" in name for name in changed)


@pytest.mark.parametrize("adaptive", [True, False])
def test_sharpness_moves_as_published_and_returns(adaptive):
    """Against pytorch-optimizer's SAM."""
    published = pytest.importorskip("pytorch_optimizer").SAM
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(4, 3).double(), torch.nn.Linear(4, 3).double()
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(7, 4).double(), torch.randn(7, 3).double()
    for model in (ours, theirs):
        torch.nn.functional.mse_loss(model(x), y).backward()
    optimiser = published(list(theirs.parameters()), torch.optim.SGD, lr=0.1, rho=0.05, adaptive=adaptive, use_gc=False)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    optimiser.first_step(zero_grad=False)
    with worst_nearby(ours.parameters(), Sharpness(radius=0.05, adaptive=adaptive)):
        for name, value in ours.state_dict().items():
            assert torch.allclose(value, theirs.state_dict()[name], atol=1e-8), name
            assert not torch.equal(value, before[name])
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_training_with_sharpness_lowers_the_error(settings, tmp_path):
    stage = settings["stages"][2] | {"steps": 60, "init_from": None, "replay": None}
    stage["objectives"] = {"energy": {}, "forces": {"weight": 10.0}}
    stage["optimiser"] = {"learning_rate": 1e-3, "sharpness": {"radius": 0.005}}
    settings["stages"] = [stage]
    train(settings, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(rows[-1]["valid_forces_mae"]) < 0.85 * float(rows[0]["valid_forces_mae"])


def test_the_optimiser_goes_on(settings, tmp_path):
    """Two halves with the state kept equal one whole, at a constant rate and without averaging."""
    labels = {"energy": {}, "forces": {"weight": 10.0}}
    stage = {"name": "whole", "objectives": labels, "steps": 8, "batch_size": 4, "average": 0.0, "select": "last"}
    stage["optimiser"] = {"schedule": "constant"}
    halves = [
        stage | {"name": "first", "steps": 4},
        stage | {"name": "second", "steps": 4, "init_from": "first", "keep_optimiser": True},
    ]
    settings["data"]["use"] = 6
    train(settings | {"stages": [stage]}, tmp_path / "whole")
    train(settings | {"stages": halves}, tmp_path / "halves")
    halves[1]["keep_optimiser"] = False
    train(settings | {"stages": halves}, tmp_path / "fresh")
    whole, kept, fresh = (
        weights(tmp_path / name, stage)
        for name, stage in (("whole", "whole"), ("halves", "second"), ("fresh", "second"))
    )
    # the second half begins its epochs anew, one batch an epoch: the batches are the same
    assert all(torch.allclose(whole[name], kept[name], atol=1e-6) for name in whole)
    assert any(not torch.allclose(whole[name], fresh[name], atol=1e-6) for name in whole)


def test_the_optimiser_of_a_stage_further_back_is_refused(settings, tmp_path):
    settings["stages"][2] |= {"init_from": "teacher", "keep_optimiser": True}
    with pytest.raises(UserError, match="right before it"):
        train(settings, tmp_path / "run")


def test_the_window_keeps_what_labels_do_not_cover(frames):
    recipe = pull_perturb.Config(rounds=3, pull=1.2, perturb=0.0, pairs=1)
    made = recipe(frames, 0)
    chosen = outside(made, frames, Window(short=0.95, expanded=10.0))
    strong = [number for number in range(len(made)) if made.info["round"][number] == "0"]
    still = [number for number in range(len(made)) if made.info["round"][number] == "2"]
    assert set(chosen) & set(strong)
    assert not set(chosen) & set(still)
    from phystrain.augment import dimers

    pairs = dimers.Config(points=10)(frames, 0)
    # two atoms alone are closer or lonelier than any labelled ones, but for those at a bond's length
    assert 0.9 * len(pairs) < len(outside(pairs, frames, Window())) < len(pairs)
    with pytest.raises(UserError, match="widen it"):
        outside(frames, frames, Window())


def test_replay_falls_with_the_error_of_the_teacher():
    assert replay_weight(0.03, 0.9) == 0.03
    good, fair, useless = (replay_weight("auto", error) for error in (0.1, 0.5, 1.0))
    assert good > fair > useless > 0
    assert good / fair == pytest.approx(4.0)
    assert replay_weight("auto", None) == useless


def test_weak_losses_on_the_replayed_structures(settings, tmp_path):
    settings["stages"][2]["replay"] |= {"objectives": {"pitc": {}, "pisc": {}, "forces": {}}, "weight": "auto"}
    settings["stages"][2]["objectives"] = {"energy": {}, "forces": {}}
    _, lines = train(settings, tmp_path / "run")
    row = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))[-1]
    assert float(row["train_replay_pitc"]) > 0
    assert float(row["train_replay_pisc"]) > 0
    assert "train_pitc" not in row or not row["train_pitc"]
    assert any("the teacher is wrong by" in line for line in lines)


def test_a_fitted_stage_teaches(settings, tmp_path):
    settings["stages"][0] = {"name": "teacher", "potential": {"kind": "morse"}, "fit": {}}
    saved, lines = train(settings, tmp_path / "run")
    teacher = load_model(tmp_path / "run" / "model" / "teacher.safetensors")
    assert 0 < teacher.meta["quality"]["relative force error"] < 1
    assert any("fitted in" in line for line in lines)
    assert saved.potential.cutoff == 3.5


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"fit": {}, "potential": {"kind": "painn"}}, "is a network"),
        ({"fit": {}}, "fit.choose"),
        ({"fit": {}, "potential": {"kind": "eam"}, "steps": 5}, "steps means nothing"),
        ({"objectives": {"energy": {}}, "steps": 5, "stay_near": {}}, "give init_from too"),
        ({"objectives": {"energy": {}}, "steps": 5, "prior": "nothing"}, "neither an earlier stage"),
    ],
)
def test_settings_that_make_no_sense(settings, tmp_path, stage, message):
    from phystrain.pipeline import run

    settings["stages"] = [{"name": "only", **stage}]
    with pytest.raises(UserError, match=message):
        run(config.check(settings), tmp_path / "run", say=lambda line: None)


def test_make_optimiser_groups_by_factor(network):
    from phystrain.config import Optimiser

    optimiser = make_optimiser(network, Optimiser(rates={"*": 0.1}))
    assert [group["factor"] for group in optimiser.param_groups] == [0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": {"stage": "teacher"}}, "no term of the loss"),
        ({"replay": {"stage": "pretrain", "objectives": {}}}, "no term of the loss"),
        ({"keep_optimiser": True, "optimiser": {"amsgrad": True}}, "amsgrad must be as in"),
        ({"data": {"augment": [], "label_by": "teacher"}}, "augment"),
    ],
)
def test_stages_that_could_not_train_are_refused(settings, changes, message):
    settings["stages"][0] = {"name": "teacher", "potential": {"kind": "morse"}, "fit": {}}
    settings["stages"][2] |= changes
    with pytest.raises(UserError, match=message):
        config.check(settings)


def test_labels_themselves_are_replayed_at_full_weight(settings, tmp_path):
    settings["stages"] = [
        {"name": "first", "objectives": {"energy": {}}, "steps": 2},
        {
            "name": "second",
            "init_from": "first",
            "replay": {"stage": "first"},
            "objectives": {"energy": {}, "forces": {}},
            "steps": 2,
        },
    ]
    _, lines = train(settings, tmp_path / "run")
    assert any("replayed at weight 0.1" in line for line in lines)


def test_a_prior_is_neither_lost_nor_counted_twice(settings, tmp_path):
    teacher, pretrain, finetune = settings["stages"]
    beside = {**pretrain, "name": "beside", "data": None, "prior": "teacher"}
    for first, second, message in (
        (beside, {"init_from": "beside"}, "trained beside a prior"),
        (pretrain, {"init_from": "pretrain", "prior": "teacher"}, "would count twice"),
    ):
        changed = {**settings, "stages": [teacher, first, {**finetune, "replay": None, **second}]}
        with pytest.raises(UserError, match=message):
            train(changed, tmp_path / first["name"])


def test_forces_that_vanish_by_symmetry_leave_the_network_its_scale(tmp_path):
    frames = [bulk("Cu", a=3.5 + 0.02 * number) for number in range(8)]
    for frame in frames:
        energy = float(8 * (frame.get_volume() ** (1 / 3) - 2.28) ** 2 - 3.5)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=np.full((1, 3), 1e-15))
    write(tmp_path / "cu.xyz", frames)
    settings = {
        "potential": {"kind": "painn", "channels": 8, "layers": 1, "cutoff": 4.0},
        "data": {"train": str(tmp_path / "cu.xyz"), "valid_fraction": 0.0},
        "stages": [
            {"name": "teacher", "potential": {"kind": "morse"}, "fit": {}},
            {"name": "finetune", "prior": "teacher", "objectives": {"energy": {}}, "steps": 3},
        ],
        "reliability": {"enabled": False},
    }
    saved, lines = train(settings, tmp_path / "run")
    assert float(saved.potential.terms["model"].unit.scale) == 1.0
    assert not any("poor prior" in line for line in lines)


def test_replay_of_a_teacher_of_unknown_quality_is_careful():
    assert replay_weight("auto", float("nan")) == replay_weight("auto", None) < replay_weight("auto", 0.2)


def test_members_differ_and_teach_by_their_mean(settings, tmp_path):
    _, pretrain, finetune = settings["stages"]
    first = {**finetune, "name": "first", "members": 3, "init_from": None, "replay": None, "steps": 4}
    taught = {**pretrain, "name": "taught", "data": {"augment": {"kind": "rattle", "copies": 2}, "label_by": "first"}}
    changed = {**settings, "stages": [first, taught]}
    train(changed, tmp_path / "run")
    files = [tmp_path / "run" / "model" / f"first{part}.safetensors" for part in ("", ".2", ".3")]
    members = [load_model(file).potential for file in files]
    frames = read(datasets.path("silica")).structures.select(np.arange(2)).without_labels()
    alone = [relabel(frames, member, use_cache=False) for member in members]
    together = relabel(frames, [str(file) for file in files], use_cache=False)
    assert not np.allclose(alone[0].forces, alone[1].forces)
    assert not np.allclose(alone[1].forces, alone[2].forces)
    np.testing.assert_allclose(together.forces, np.mean([one.forces for one in alone], axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(together.energy, np.mean([one.energy for one in alone], axis=0), rtol=1e-6)

    rows = [row["stage"] for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open())]
    assert {"first", "first.2", "first.3", "taught"} == set(rows)
    files[1].unlink()
    (tmp_path / "run" / "model" / "model.safetensors").unlink()
    lines = train(changed, tmp_path / "run")[1]
    assert any(line.startswith("stage first.2: done") for line in lines)
    assert not any(line.startswith("stage first.3: done") for line in lines)
    again = load_model(files[1]).potential
    torch.testing.assert_close(again.state_dict(), members[1].state_dict())


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"first": {"snapshots": 1, "steps": 9}, "last": {}}, "first.snapshots: they tell the spread of the last"),
        ({"first": {"members": 2}, "last": {"init_from": "first"}}, "several members"),
        ({"first": {"members": 2}, "last": {"prior": "first"}}, "several members"),
    ],
)
def test_one_network_where_one_is_wanted(settings, stages, message):
    plain = {"objectives": {"energy": {}}, "steps": 1}
    settings["stages"] = [{"name": name, **plain, **changes} for name, changes in stages.items()]
    with pytest.raises(UserError, match=message):
        config.check(settings)


def test_a_confined_network_leaves_the_prior_alone_outside_the_labels(settings, tmp_path, frames):
    settings["stages"][2] |= {"prior": "teacher", "confine": {}, "init_from": None, "replay": None}
    del settings["stages"][1]
    saved, _ = train(settings, tmp_path / "run")
    densities = saved.config["terms"]["model"]["densities"]
    assert set(map(int, densities)) == set(frames.elements)
    network, prior = saved.potential.terms["model"], saved.potential.terms["prior"]
    cutoff = float(saved.potential.cutoff)
    at_rest = GraphStore(frames, cutoff).graph(np.arange(len(frames)))
    assert (network.share(at_rest.within(network.cutoff)) == 1).float().mean() > 0.9  # one frame may be for validation
    squeezed = list(frames.frames())
    for frame in squeezed:
        frame.set_cell(0.8 * frame.cell, scale_atoms=True)
    graph = GraphStore(Structures.from_ase(squeezed), cutoff).graph(np.arange(len(squeezed)))
    assert not network.atomic_energies(graph.within(network.cutoff)).any()
    alone = evaluate(prior, graph.within(prior.cutoff)).forces
    assert torch.allclose(evaluate(saved.potential, graph).forces, alone)


def test_beside_a_wall_only_lonely_atoms_are_confined(settings, tmp_path, frames):
    settings["stages"][0]["potential"] = {"kind": "wall"}
    settings["stages"][2] |= {"prior": "teacher", "confine": {}, "init_from": None, "replay": None}
    del settings["stages"][1]
    saved, _ = train(settings, tmp_path / "run")
    assert saved.config["terms"]["prior"]["potential"]["kind"] == "wall"
    assert saved.config["terms"]["model"]["highest"] is None
    network = saved.potential.terms["model"]
    squeezed, stretched = list(frames.frames()), list(frames.frames())
    for group, factor in ((squeezed, 0.8), (stretched, 1.8)):
        for frame in group:
            frame.set_cell(factor * frame.cell, scale_atoms=True)
    shares = [
        network.share(GraphStore(Structures.from_ase(group), network.cutoff).graph(np.arange(len(group))))
        for group in (squeezed, stretched)
    ]
    assert shares[0].all()
    assert not shares[1].any()


def test_confining_needs_a_prior(settings):
    settings["stages"][2] |= {"confine": {}}
    with pytest.raises(UserError, match="give prior too"):
        config.check(settings)
