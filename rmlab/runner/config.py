"""The whole config of a run, typed: a part per room, which checks itself; and the hash that names a run. No torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmlab.data.config import DataConfig
from rmlab.messages import UserError, check_all, check_at_least, check_one_of, check_seed, did_you_mean, first_line
from rmlab.model.config import ModelConfig
from rmlab.model.identity import weights_of_run
from rmlab.runner.check import check_trainer
from rmlab.runner.earlier import earlier_run
from rmlab.runner.published import ReportConfig
from rmlab.runner.renamed import renamed, without_neutral
from rmlab.scoring.config import ScoringConfig
from rmlab.secrets import masked, secrets_of, without_masks
from rmlab.upstream import share_config_store

PACKAGE = Path(__file__).parent.parent
# In a wheel conf/ lies inside the package, in a checkout (and an editable install) beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# Config nodes that say where a run is kept and how it is watched and reported, not what it computes. `plugins` only
# make names known; a changed plugin file is noticed by its hash. Suites of `eval` may be scored at any time.
PLACES = ("study", "question", "report", "plugins", "run", "logger", "eval", "hydra")

# Nodes whose keys are options of others (TrainingArguments, a loss term, a peft config, a model config): rmlab checks
# them itself, with the nearest name, so that nobody has to write +trainer.warmup_ratio=0.1.
OPEN = (
    *("trainer", "loss", "peft", "logger", "eval"),
    *("model.config", "model.head", "model.init_kwargs", "model.quantization"),
    *("data.train", "data.eval", "data.columns", "data.chat_template_kwargs"),
)

KEPT = ("model", "changes", "checkpoints")  # what run.keep may name


@dataclass
class RunConfig:
    """The `run` node: where a run is kept, and on what it computes."""

    name: str = "run"
    id: str = ""
    dir: str = ""
    redo: bool = False
    cache_dir: str | None = "runs/.cache"
    feature_cache_gb: float = 2.0
    num_proc: int | None = None
    threads: int | None = None
    verbose: bool = False
    keep: list[str] = field(default_factory=lambda: ["model"])
    began: str | None = None  # what made the run of model.init_from, its seed apart: for names of arms
    choices: dict[str, Any] = field(default_factory=dict)  # the options chosen of each config group, for names of arms

    def check(self) -> None:
        """UserError for a negative feature_cache_gb, for threads and num_proc below 1, and for what cannot be kept."""
        for name in self.keep:
            check_one_of("run.keep", name, KEPT)
        if {"model", "changes"} <= set(self.keep):
            raise UserError("run.keep: the changes are in the model already; name one of model and changes")
        check_at_least("run.feature_cache_gb", self.feature_cache_gb, 0)
        check_at_least("run.threads", self.threads, 1)
        check_at_least("run.num_proc", self.num_proc, 1)

    @property
    def cache(self) -> Path | None:
        """The folder of what runs share, such as tokenised data, ~ expanded; None: nothing is cached."""
        return None if self.cache_dir is None else Path(self.cache_dir).expanduser()


@dataclass(frozen=True)
class LoggerConfig:
    """The `logger` node: where curves go besides the run directory. All but `report_to` is of W&B."""

    report_to: str = "none"
    mode: str = "offline"
    project: str = "rmlab"
    entity: str | None = None
    job_type: str = "train"
    tags: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> "LoggerConfig":
        """UserError for an option that the logger does not have."""
        known = [f.name for f in fields(cls)] if node.get("report_to") == "wandb" else ["report_to"]
        for key in node:
            if key not in known:
                raise UserError(f"logger has no option {key!r}{did_you_mean(key, known)}")
        project = str(node.get("project") or "")
        if any(sign in project for sign in "/\\#?%:"):
            raise UserError(f"logger.project is {project!r}; W&B takes no / \\ # ? % : in it")
        return cls(**{str(k): v for k, v in node.items()})


@dataclass
class Config:
    """A run. The nodes of open keys (OPEN) are checked by what they are options of."""

    study: str = "default"
    question: str | None = None
    seed: int = 0
    plugins: list[str] = field(default_factory=list)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: dict[str, Any] = field(default_factory=dict)
    eval: dict[str, Any] = field(default_factory=dict)  # benchmark suites by name, see suites.py
    peft: dict[str, Any] = field(default_factory=dict)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    report: ReportConfig = field(default_factory=ReportConfig)

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> "Config":
        """Of a resolved mapping, as config.yaml holds it. UserError naming a key that is unknown or of a wrong type."""
        try:
            given = renamed(without_masks(mapping))
            config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
        except OmegaConfBaseException as error:
            raise UserError(named(error)) from error
        except UserError:
            raise
        except (TypeError, ValueError, AttributeError, RecursionError) as error:  # of what OmegaConf has no word for
            raise UserError(f"the config cannot be read: {first_line(error)}") from error
        assert isinstance(config, cls)
        return config

    def as_dict(self) -> dict[str, Any]:
        """Nested dicts of plain values."""
        return asdict(self)

    def as_written(self) -> dict[str, Any]:
        """The same as config.yaml and W&B hold it: secrets masked."""
        whole = self.as_dict()
        return masked(whole, secrets_of(whole))

    def check(self) -> None:
        """Check what can be checked without torch, rows or a model. Raises UserError naming the key of each mistake."""
        check_all(self.check_values, self.check_model)

    def check_values(self) -> None:
        """The same without a look at the model's files, and so at once."""
        check_all(
            lambda: check_seed("seed", self.seed),
            lambda: check_trainer(self.trainer),
            self.data.check,
            self.scoring.check,
            self.run.check,
            self.report.check,
            self.check_data_and_trainer,
            lambda: LoggerConfig.of(self.logger),
        )

    def check_model(self) -> None:
        """The `model` node and the small files of its checkpoint."""
        self.model.check(self.data.max_length)

    def check_data_and_trainer(self) -> None:
        """UserError for streams without an end, and for evaluations without a set."""
        if self.data.streams and "max_steps" not in self.trainer:
            raise UserError("streaming data has no length; set trainer.max_steps")
        if self.trainer.get("eval_strategy", "no") not in ("no", False) and not self.data.evaluates:
            raise UserError("trainer.eval_strategy is set, but data.eval is empty and data.eval_fraction 0")


def named(error: OmegaConfBaseException) -> str:
    """One sentence with the key, and the nearest known one for a key that does not exist."""
    key = str(error.full_key or "")
    *nodes, last = key.split(".")
    part: Any = Config
    for node in nodes:
        found = [f.type for f in fields(part) if f.name == node] if is_dataclass(part) else []
        part = found[0] if found else None
    known = [f.name for f in fields(part)] if is_dataclass(part) else []
    if known and last not in known:
        return f"{'.'.join(nodes) or 'the config'} has no {last!r}{did_you_mean(last, known)}"
    return f"{key}: {first_line(error)}"


# ---- Hydra ----


def register() -> None:
    """Tell Hydra the schema, and OmegaConf the resolvers that start with rmlab_. Idempotent."""
    share_config_store()
    ConfigStore.instance().store(name="schema", node=schema())
    OmegaConf.register_new_resolver("rmlab_id", lambda *, _root_: id_or_none(_root_), replace=True)
    OmegaConf.register_new_resolver("rmlab_run", earlier_run, replace=True)
    OmegaConf.register_new_resolver("rmlab_name", lambda option: str(option).replace("/", "-"), replace=True)


def schema() -> DictConfig:
    """`Config` with its OPEN nodes open to new keys."""
    whole = OmegaConf.structured(Config)
    for path in OPEN:
        OmegaConf.update(whole, path, {}, merge=False)
        OmegaConf.set_struct(OmegaConf.select(whole, path), False)
    return whole


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Plain resolved Python values; below this line nobody sees OmegaConf. A `???` left over is a UserError."""
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"the config needs {missing[0]}; give it on the command line: {missing[0]}=...")
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(named(error)) from error
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items()}


# ---- the id of a run ----


def id_or_none(config: DictConfig) -> str:
    """`run_id`, or `unresolved`: Hydra asks for it before the task, which says in a sentence what does not resolve."""
    try:
        return run_id(config)
    except OmegaConfBaseException:
        return "unresolved"


def run_id(config: DictConfig) -> str:
    """8 hex digits of sha256 over the resolved config without the `PLACES` (study, run, logger, ...).

    0 and 0.0 are the same value; the order of mixed sources is not, for it orders the rows.
    """
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    run = {**content.get("run", {}), "id": "", "dir": ""}  # the id cannot hash itself
    whole = OmegaConf.create({**{k: v for k, v in content.items() if k != "hydra"}, "run": run})
    resolved = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(resolved, dict)
    return content_id({str(k): v for k, v in resolved.items()})


def content_id(config: Mapping[str, Any]) -> str:
    """The id of a resolved config. The weights that it begins from count, and not where they lie."""
    kept = {**computed(config), "sources": list(config.get("data", {}).get("train", []))}
    if begins := (config.get("model") or {}).get("init_from"):
        kept["model"] = {**kept["model"], "init_from": weights_of_run(begins) or begins}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that says what is computed: without `PLACES`, and without values of secret keys.

    Not without those of the environment: a run's id must not depend on what else a machine knows. Of the run that
    `model.init_from` names, what made it.
    """
    kept = {k: canonical(masked(without_neutral(v, k))) for k, v in config.items() if k not in PLACES}
    began = (config.get("run") or {}).get("began")
    return {**kept, "model": {**kept["model"], "init_from": began}} if began else kept


def canonical(value: Any) -> Any:
    """Whole floats as ints, at any depth."""
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def flatten(node: Any, name: str = "") -> dict[str, Any]:
    """One level: {"trainer.learning_rate": 0.001}. Lists and empty nodes are values."""
    if not isinstance(node, dict) or not node:
        return {name: node}
    prefix = f"{name}." if name else ""
    return {key: value for k, child in node.items() for key, value in flatten(child, f"{prefix}{k}").items()}
