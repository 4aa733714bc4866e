"""Recommended stages: what ``init`` proposes, ``demo`` compares and the benchmarks measure.

The settings are the ones that the studies in ``benchmarks/`` favour; see docs/decisions.md.
"""

from typing import Any

VARIANTS = {
    "labels only": "the network and the labels, nothing else",
    "labels only, longer": "the same for as many steps as fit into the time that all physics takes",
    "weak losses": "with PITC and PISC beside the labels",
    "pretrained": "pretrained on a teacher, fine-tuned with its labels replayed",
    "prior": "a fitted classical potential is added and held fixed; the network learns what it leaves, and only there",
    "committee-taught": "three networks beside a fitted prior teach a fourth, which then learns the labels",
    "all physics": "pretrained, fine-tuned with replay, PITC and PISC",
}

ENERGY_WEIGHT = 10.0
LEARNING_RATE = 2e-3
LONGER = 5
"""Steps of labels only that take as long as one step of all physics, its share of pretraining included."""
FEW = 100
"""Labelled structures up to which several trainings in place of one are worth their time."""
TRUST = 0.6
"""Cross-validated error of a prior, of the size of the forces, beyond which it does harm: see docs/decisions.md."""
COUNTED = 2.0
"""Decay of the density by which atoms of a molecule are judged to be lonely: see docs/decisions.md."""
REPLAY = 0.1
"""Weight of a teacher's forces beside energies alone: see docs/decisions.md."""
MEMBERS = 3
"""Networks of a committee: four gained little more in docs/decisions.md."""
WEAK = {"pitc": {"displacement": 0.05}, "pisc": {"displacement": 0.05}}


def recommended(quantities: tuple[str, ...], periodic: bool, labelled: int, teacher: str | None = None) -> str:
    """The variant that ``init`` proposes: the cheapest of those that did best in docs/decisions.md.

    The weak losses double the time and change nothing for conservative networks, whose forces are the gradient of
    their energy already; the run file says how to add them.

    Args:
        quantities: labels in the data; from energies alone a classical potential learns too little to teach.
        periodic: whether the structures are; classical pair forms are poor priors for molecules.
        labelled: number of labelled structures; where they are few, training is short and may be repeated.
        teacher: of another theory, if there is one for such structures.
    """
    if "forces" not in quantities:
        return "labels only" if teacher is None else "pretrained"
    if not periodic:
        return "pretrained"
    return "committee-taught" if labelled <= FEW else "prior"


def supervised(quantities: tuple[str, ...]) -> dict[str, Any]:
    """Terms of the loss for the labels there are.

    Args:
        quantities: any of energy, forces, stress.
    """
    terms: dict[str, Any] = {"energy": {"weight": ENERGY_WEIGHT}}
    if "forces" in quantities:
        terms["forces"] = {"weight": 1.0}
    if "stress" in quantities:
        terms["stress"] = {"weight": 1.0}
    return terms


def teacher_stage() -> dict[str, Any]:
    """The classical potential, fitted to the same few labels."""
    return {"name": "teacher", "potential": {"kind": "eam"}, "fit": {}}


def pretrain_stage(steps: int, batch_size: int, teacher: str = "teacher") -> dict[str, Any]:
    """The network on the teacher's labels of pulled and perturbed structures; a foreign one sees rattled ones, too."""
    pulled: dict[str, Any] = {"kind": "pull_perturb", "rounds": 5}
    rattled = {"kind": "rattle", "amplitude": 0.1, "copies": 10}
    return {
        "name": "pretrain",
        "data": {"augment": pulled if teacher == "teacher" else [pulled, rattled], "label_by": teacher},
        "objectives": supervised(("energy", "forces")),
        "steps": steps,
        "batch_size": batch_size,
        "optimiser": {"learning_rate": LEARNING_RATE},
    }


def committee_stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Networks beside a prior, and one more that learns their mean forces near the labels before the labels.

    See docs/teachers.md.

    Args:
        training: a stage on labels with a prior.
    """
    near = {"kind": "rattle", "amplitude": 0.05, "copies": 20}
    made = training | {"objectives": supervised(("energy", "forces"))}
    return [
        training | {"name": "committee", "members": MEMBERS},
        made | {"name": "taught", "data": {"augment": near, "label_by": "committee"}},
        training | {"init_from": "taught", "replay": {"stage": "taught", "weight": 0.3}},
    ]


def stages(
    variant: str,
    *,
    quantities: tuple[str, ...] = ("energy", "forces"),
    steps: int = 1200,
    pretrain_steps: int = 1000,
    batch_size: int = 4,
    families: str | list[str] = "auto",
    teacher: str | None = None,
) -> list[dict[str, Any]]:
    """The stages of a variant, as they would stand in a run file.

    Args:
        variant: one of :data:`VARIANTS`.
        quantities: labels in the data.
        steps: of training on the labels.
        pretrain_steps: of training on the teacher.
        batch_size: structures a step.
        families: of classical potentials that a prior is chosen from.
        teacher: what labels the made structures, such as ``gfn2-xtb``; a fitted EAM if not given.
    """
    finetune: dict[str, Any] = {
        "name": "finetune",
        "objectives": supervised(quantities),
        "steps": steps,
        "batch_size": batch_size,
        "optimiser": {"learning_rate": LEARNING_RATE},
    }
    if variant in ("weak losses", "all physics"):
        finetune["objectives"] |= WEAK
    if variant == "labels only, longer":
        finetune["steps"] = LONGER * steps
    if variant in ("labels only", "labels only, longer", "weak losses"):
        return [finetune]
    if variant in ("prior", "committee-taught"):
        fitted = {"name": "teacher", "fit": {"choose": families, "trust": TRUST}}
        beside = finetune | {"prior": "teacher", "confine": {}}
        return [fitted, beside] if variant == "prior" else [fitted, *committee_stages(beside)]
    replay: dict[str, Any] = {"stage": "pretrain"}
    if "forces" not in quantities:  # then nothing tells how wrong the teacher's are, and they are all there is
        replay |= {"weight": REPLAY, "objectives": {"forces": {"weight": 1.0}}}
    finetune |= {"init_from": "pretrain", "replay": replay}
    if teacher is not None:
        # pairs of atoms alone and broken molecules are where a teacher of another theory fails: a wall stands there
        wall = {"name": "wall", "potential": {"kind": "wall"}, "fit": {}}
        beside = {"prior": "wall", "confine": {"counted": COUNTED}}
        return [wall, pretrain_stage(pretrain_steps, batch_size, teacher) | beside, finetune | beside]
    return [teacher_stage(), pretrain_stage(pretrain_steps, batch_size), finetune]
