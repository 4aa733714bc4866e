"""Settings of a stage in the run file: what is trained, on what, with which loss, for how long."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from phystrain import registry
from phystrain.augment import Augmentation
from phystrain.data.packing import Budget
from phystrain.fitting import FitSettings
from phystrain.objectives import Objective, Weight
from phystrain.potentials import PotentialConfig
from phystrain.potentials.confined import Margins
from phystrain.reliability import ReliabilityTest


def named(settings: Any) -> Any:
    """``{"pitc": {...}}`` to ``{"pitc": {"kind": "pitc", ...}}``: an objective's name is its kind unless it says so."""
    if not isinstance(settings, dict):
        return settings
    return {
        name: {"kind": name, **(value or {})} if isinstance(value, dict | None) else value
        for name, value in settings.items()
    }


if TYPE_CHECKING:
    AnyPotential = PotentialConfig
    AnyAugmentation = Augmentation
    Objectives = dict[str, Objective]
    Tests = dict[str, ReliabilityTest]
else:  # unions over all plug-ins: made when this module is imported, which a type checker does not see
    AnyPotential = registry.union("potentials")
    AnyAugmentation = registry.union("augment")
    Objectives = Annotated[dict[str, registry.union("objectives")], BeforeValidator(named)]
    Tests = Annotated[dict[str, registry.union("reliability")], BeforeValidator(named)]


FIGURES = ("loss", *(f"{label}_{error}" for label in ("energy", "forces", "stress") for error in ("mae", "rmse")))
"""What is measured at a validation; see :func:`phystrain.train.validation.validate`."""


SNAPSHOTS_FROM = (0.3, 0.7)
"""Part of a stage from which weights are kept: late enough to be good, while the learning rate still moves them."""


class Section(BaseModel):
    """Base of every part of the run file: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StageData(Section):
    """Structures that a stage makes for itself."""

    augment: AnyAugmentation | Annotated[list[AnyAugmentation], Field(min_length=1)] = Field(
        description="how structures are made from train"
    )
    label_by: str | dict[str, Any] = Field(
        description="teacher: a stage, a model file or run folder, or {calculator: module:attribute, ...}"
    )
    steep: float | None = Field(
        10.0,
        gt=0,
        description="structures whose largest force exceeds this many times the RMS force of the labels count by their "
        "relative error: the walls must not drown the rest; null counts all alike",
    )


class Window(Section):
    """Which replayed structures are outside what the labels know: closer, or further apart."""

    short: float = Field(
        1.0, gt=0, description="keep structures with a pair closer than this times the pair's shortest labelled one"
    )
    expanded: float = Field(
        1.15, gt=0, description="and those with an atom this many times more lonely than the loneliest labelled one"
    )


class Replay(Section):
    """Teacher labels that stay in the loss, so that what pretraining taught is not forgotten."""

    stage: str = Field(description="stage whose data are replayed")
    weight: Weight = Field(
        "auto", description="factor of that stage's loss; auto lowers it with the measured error of the teacher"
    )
    batch_size: int | None = Field(None, gt=0, description="structures a step; those of the stage if not given")
    window: Window | None = Field(None, description="replay only what the labels do not cover; all if not given")
    objectives: Objectives | None = Field(
        None, description="terms of the loss on them, PITC and PISC for example; those of the stage if not given"
    )


class Unlabelled(Section):
    """Structures without labels whose loss is added: weak losses act on them as on any others."""

    augment: AnyAugmentation | Annotated[list[AnyAugmentation], Field(min_length=1)] | None = Field(
        None, description="how structures are made from train, beside those of data.unlabelled or instead of them"
    )
    objectives: Objectives = Field(min_length=1, description="terms of the loss on them; none that needs labels")
    weight: float = Field(1.0, ge=0, description="factor of their loss")
    batch_size: int | None = Field(None, gt=0, description="structures a step; those of the stage if not given")
    ratio: float | None = Field(None, gt=0, description="structures a step for each labelled one, not batch_size")

    @model_validator(mode="after")
    def _no_labels_needed(self) -> "Unlabelled":
        if self.batch_size is not None and self.ratio is not None:
            raise ValueError("give either batch_size or ratio")
        for name, objective in self.objectives.items():
            if objective.needs:
                raise ValueError(
                    f"objective {name!r} needs {sorted(objective.needs)[0]}, which unlabelled structures lack: name "
                    "terms without labels, such as pitc"
                )
        recipes = self.augment if isinstance(self.augment, list) else [self.augment] if self.augment else []
        for recipe in recipes:
            if recipe.needs_teacher:
                raise ValueError(f"{recipe.kind} runs dynamics of a teacher, and here there is none: use another kind")
        return self

    def size(self, labelled: int) -> int:
        """Structures a step beside ``labelled`` ones."""
        return self.batch_size or max(1, round((1.0 if self.ratio is None else self.ratio) * labelled))


class Balance(Section):
    """How terms with ``weight: auto`` are held at a share of the rest; see :mod:`phystrain.train.balance`."""

    share: float = Field(0.1, gt=0, description="norm of the term's gradient over that of the terms with labels")
    every: int = Field(25, ge=1, description="steps between measurements, each one more derivative for every term")
    smoothing: float = Field(
        0.75, ge=0, lt=1, description="share of the old weight in the new one, of their logarithms"
    )
    largest: float = Field(
        100.0, gt=0, description="weight that is never exceeded: a loss that has vanished must not be inflated"
    )


class Confine(Margins, Section):
    """The network fades outside the range of local densities that the labels hold; the prior stands alone there."""


class StayNear(Section):
    """A penalty on leaving the weights that the stage starts from (L2-SP; Li et al. 2018, arXiv 1802.01483)."""

    weight: float = Field(1e-3, gt=0, description="half of it multiplies the squared distance of the weights")


class Sharpness(Section):
    """Minimise the loss where it is worst nearby (SAM, arXiv 2010.01412; adaptive: ASAM, arXiv 2102.11600)."""

    radius: float = Field(5e-3, gt=0, description="how far nearby is")
    adaptive: bool = Field(True, description="measure in units of each weight's own size")


class Optimiser(Section):
    """AdamW and its schedule."""

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    amsgrad: bool = False
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    final: float = Field(0.01, ge=0, le=1, description="learning rate at the end of the cosine, as a fraction")
    patience: int = Field(10, gt=0, description="validations without gain before the plateau schedule lowers the rate")
    factor: float = Field(0.8, gt=0, lt=1, description="by which the plateau schedule lowers the rate")
    minimum: float = Field(1e-6, ge=0, description="lowest rate of the plateau schedule")
    clip: float | None = Field(10.0, gt=0, description="largest norm of the gradient")
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="factors of the learning rate by pattern of parameter names, such as '*embedding*': 0.1; 0 holds",
    )
    sharpness: Sharpness | None = Field(None, description="sharpness-aware minimisation; two passes a step")


class EarlyStopping(Section):
    """Stop when the validation metric no longer falls."""

    patience: int = Field(20, gt=0, description="validations without gain before the stage ends")
    minimum_gain: float = Field(0.0, ge=0, description="relative gain that counts")


class Gate(Section):
    """Tests of the weights while they are trained: of those that live, the most accurate are kept."""

    every: int = Field(10, ge=1, description="validations between tests; the last one is tested too")
    tests: Tests = Field(
        default={"dimers": {}, "survival": {"multiples": [2.0], "replicas": 4, "picoseconds": 0.5}},
        validate_default=True,
        min_length=1,
        description="reliability tests by kind, kept short: each tells how well the weights do, from 0 to 1",
    )
    tolerance: float = Field(
        0.05, gt=0, le=1, description="weights whose mean score differs by less count as equal; the error decides"
    )


class Stage(Section):
    """One training: what is trained, on what, with which loss, for how long; or one fit of a classical potential."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    potential: AnyPotential | None = Field(None, description="what is trained; the run's potential if not given")
    fit: FitSettings | None = Field(
        None, description="fit a classical potential by least squares; a stage with it needs no objectives and steps"
    )
    members: int = Field(
        1,
        ge=1,
        le=32,
        description="networks trained alike from other random starts; as a teacher or a guide their mean speaks, in "
        "the last stage the first is the model and their spread its uncertainty",
    )
    init_from: str | None = Field(None, description="stage or model file whose weights are the start")
    keep_optimiser: bool = Field(False, description="go on with the optimiser's state of the stage of init_from")
    prior: str | None = Field(
        None, description="stage or model file whose potential is added and held fixed (delta learning)"
    )
    confine: Confine | None = Field(
        None, description="let the prior stand alone where atoms are closer or lonelier than in the labels"
    )
    stay_near: StayNear | None = None
    data: StageData | None = Field(None, description="made structures; the labelled ones if not given")
    replay: Replay | None = None
    unlabelled: Unlabelled | None = None
    guide: str | dict[str, Any] | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="whose forces stand beside the labels, for terms that ask for them (forces with of: guide, weak "
        "losses anchored on it): an earlier stage, a model file or run folder, a teacher such as gfn2-xtb, a list of "
        "them for their mean, or average for the averaged weights of the training itself",
    )
    objectives: Objectives = Field({}, description="terms of the loss by kind")
    balance: Balance = Field(Balance(), description="of terms with weight: auto")
    epochs: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0, description="steps of the optimiser; instead of epochs")
    batch_size: int = Field(4, gt=0, description="structures a step")
    batch_atoms: int | None = Field(
        None, gt=0, description="instead of batch_size: as many structures a step as hold this many atoms at most"
    )
    batch_edges: int | None = Field(
        None, gt=0, description="the same for directed edges; beside batch_atoms both are kept"
    )
    optimiser: Optimiser = Optimiser()
    compiled: bool | None = Field(
        None, description="compile the passes of a step (a minute, once); null: where enough steps are ahead"
    )
    average: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights a step; 0 turns averaging off")
    validate_every: int = Field(0, ge=0, description="steps between validations; 0 means about fifty a stage")
    metric: str = Field("loss", description=f"validation figure that selects the best weights: {', '.join(FIGURES)}")
    select: Literal["best", "last"] = Field("best", description="weights that the stage hands on")
    early_stopping: EarlyStopping | None = None
    gate: Gate | None = Field(
        None, description="test the weights in dynamics on the way; select: best then takes those that live first"
    )
    snapshots: int = Field(
        0,
        ge=0,
        le=32,
        description="weights kept from the middle of the stage, whose spread tells the uncertainty; 8 are good",
    )

    @model_validator(mode="after")
    def _one_length(self) -> "Stage":
        if self.fit is not None:
            return self._only_fitted()
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if not self.objectives:
            raise ValueError("objectives is empty; name energy or forces at least")
        if self.budget is not None and self.batch_size != Stage.model_fields["batch_size"].default:
            raise ValueError("batch_atoms and batch_edges fill batches instead of batch_size: leave batch_size out")
        if self.metric not in FIGURES:
            raise ValueError(f"unknown metric {self.metric!r}: {registry.did_you_mean(self.metric, FIGURES)}")
        if self.init_from is None and (self.keep_optimiser or self.stay_near is not None):
            field = "keep_optimiser" if self.keep_optimiser else "stay_near"
            raise ValueError(f"{field} refers to the weights that the stage starts from: give init_from too")
        if self.confine is not None and self.prior is None:
            raise ValueError("confine leaves nothing outside the labels but a prior: give prior too")
        first, last = SNAPSHOTS_FROM
        if self.steps is not None and self.snapshots > (last - first) * self.steps:
            raise ValueError(f"snapshots: {self.snapshots} are too many for {self.steps} steps: lower it")
        _auto_has_a_measure(self)
        _guide_is_used(self)
        return self

    @property
    def budget(self) -> Budget | None:
        """What a batch may hold, where that is limited rather than the number of structures."""
        if self.batch_atoms is None and self.batch_edges is None:
            return None
        return Budget(self.batch_atoms, self.batch_edges)

    @property
    def each(self) -> list["Stage"]:
        """The trainings of this stage, one for each member, each with a name of its own."""
        names = [self.name, *(f"{self.name}.{number}" for number in range(2, self.members + 1))]
        return [self.model_copy(update={"name": name, "members": 1}) for name in names]

    @property
    def own_objectives(self) -> list[Objective]:
        """Every term that this section names, of whatever structures."""
        extra = [part.objectives for part in (self.replay, self.unlabelled) if part is not None and part.objectives]
        return [term for terms in (self.objectives, *extra) for term in terms.values()]

    @property
    def guides(self) -> list[str | dict[str, Any]]:
        """What forms the guide, one by one; its mean is taken."""
        if self.guide is None:
            return []
        return list(self.guide) if isinstance(self.guide, list) else [self.guide]

    def _only_fitted(self) -> "Stage":
        """Refuse what a fit by least squares would ignore."""
        allowed = {"name", "potential", "fit"}
        if ignored := sorted(
            self.model_fields_set - allowed - {n for n in self.model_fields_set if not _given(self, n)}
        ):
            raise ValueError(f"{ignored[0]} means nothing in a stage that fits by least squares: leave it or fit out")
        if self.potential is not None and not self.potential.trains_reference:
            raise ValueError(f"{self.potential.kind} is a network; a fit by least squares is for classical potentials")
        if self.potential is None and self.fit is not None and self.fit.choose is None:
            raise ValueError("give the classical potential that is fitted, or fit.choose: auto")
        return self


def _given(stage: Stage, name: str) -> bool:
    """Whether a field was set to something other than its default (a saved run file holds every field)."""
    return bool(getattr(stage, name) != Stage.model_fields[name].get_default())


RUNNING = "average"
"""Guide that stands for the averaged weights of the training itself."""


def guided(objective: Objective) -> bool:
    """Whether a term uses the forces of the guide."""
    return any(str(getattr(objective, name, "")).startswith("guide") for name in ("of", "anchor"))


def _guide_is_used(stage: Stage) -> None:
    """Refuse a guide without a term that uses it, a term without its guide, and an average that is not kept."""
    users = [objective for objective in stage.own_objectives if guided(objective)]
    if users and stage.guide is None:
        raise ValueError(f"{users[0].kind} asks for the forces of a guide: give guide, such as gfn2-xtb")
    if stage.guide is not None and not users:
        raise ValueError("no term of the loss uses the guide: add one, such as {kind: forces, of: guide}, or leave it")
    if RUNNING in stage.guides and isinstance(stage.guide, list):
        raise ValueError("guide: average stands alone, not in a list")
    if stage.guide == RUNNING and stage.average == 0:
        raise ValueError("guide: average needs averaged weights: set average above 0")


def require_heads(name: str, potential: PotentialConfig, terms: Iterable[Objective]) -> None:
    """Refuse denoising by a potential without a noise head, and gradient consistency by one without a force head."""
    parts = [potential, *getattr(potential, "terms", {}).values()]
    direct = any(getattr(part, "head", "conservative") == "direct" for part in parts)
    for objective in terms:
        if "noise" in objective.asks and not potential.denoises:
            raise ValueError(
                f"stages.{name}: {objective.kind} needs a potential with a noise head: "
                f"set 'denoise: true' in a painn potential, in every stage that shares its weights"
            )
        if "gradient" in objective.asks and not direct:
            raise ValueError(
                f"stages.{name}: {objective.kind} is for a direct force head; the forces of this potential are the "
                f"gradient of its energy: leave it out, or set 'head: direct'"
            )


def _auto_has_a_measure(stage: Stage) -> None:
    """Refuse automatic weights where there is nothing to measure them by."""
    automatic = [objective for objective in stage.own_objectives if objective.weight == "auto"]
    labelled = [objective for objective in stage.objectives.values() if objective.validated]
    if automatic and not any(objective.weight for objective in labelled):
        kind = automatic[0].kind
        raise ValueError(
            f"{kind} has weight: auto, a share of the terms with labels, of which there is none: give a number"
        )
    inherits = stage.replay is not None and not stage.replay.objectives  # the terms of the stage that is replayed
    if not automatic and not inherits and stage.balance != Balance():
        raise ValueError("balance is for terms with weight: auto, of which there is none: leave it out, or set one")
