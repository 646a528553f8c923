"""What is checked before a run begins: the `trainer` node, where every key is a field of RewardConfig and every plain
value of its type; and what the model's small files and the first rows tell together. No torch here.
"""

import ast
import difflib
import importlib.util
import itertools
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.data.render import NO_TEMPLATE
from rmlab.messages import UserError, check_all, check_at_least, check_one_of, check_seed
from rmlab.runner.suites import entries

if TYPE_CHECKING:
    from rmlab.data.config import Columns
    from rmlab.data.sets import Rows
    from rmlab.losses import Term
    from rmlab.model.config import ModelConfig
    from rmlab.runner.config import Config

# Fields of RewardConfig that the runner sets from elsewhere in the config.
SET_ELSEWHERE = {
    "output_dir": "run.dir",
    "seed": "seed",
    "report_to": "logger",
    "run_name": "run.name",
    "max_length": "data.max_length",
    "overlong": "data.overlong",
    "identical": "data.identical",
    "duplicates": "data.duplicates",
    "empty": "data.empty",
    "prompt_overlap": "data.prompt_overlap",
    "pair_weighting": "data.pair_weighting",
    "dataset_num_proc": "run.num_proc",
    "cache_dir": "run.cache_dir",
    "model_init_kwargs": "model.init_kwargs",
    "trust_remote_code": "model.trust_remote_code",
    "chat_template_path": "model.chat_template",
    "eos_token": "model.eos_token",
    "pad_token": "model.pad_token",
    "center_rewards_coefficient": "loss.center.weight",
    "layout": "scoring.layout",
    "group_by_prompt": "data.group_by_prompt",
    "train_last_layers": "model.train_last_layers",
    "head": "model.head",
    "head_init": "model.head_init",
    "feature_cache_gb": "run.feature_cache_gb",
}


REFUSED = {
    "resume_from_checkpoint": "a run goes on from its own last checkpoint by itself",
    "ignore_data_skip": "a resumed run would train on other rows than a whole one",
    "do_train": "a run always trains",
    "do_eval": "a run always evaluates, on what data.eval or data.eval_fraction give",
    "do_predict": "the rewards of a run are in scores/",
}
LEVELS = ("passive", "detail", "debug", "info", "warning", "error", "critical")
WORDS = {"log_level": LEVELS, "log_level_replica": LEVELS}
LEAST: dict[str, float] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), 1),
    **dict.fromkeys(("gradient_accumulation_steps", "tokens_per_batch", "early_stopping_patience"), 1),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "adam_epsilon"), 0),
    **dict.fromkeys(("logging_steps", "save_steps", "eval_steps", "num_train_epochs", "save_total_limit"), 0),
    **dict.fromkeys(("dataloader_num_workers", "adam_beta1", "adam_beta2", "eval_delay"), 0),
    "max_steps": -1,
}


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """UserError naming each wrong key, and the nearest known one."""
    known = trainer_fields()
    check_all(*(partial(check_option, key, value, known) for key, value in trainer.items()))


def check_option(key: str, value: Any, known: Mapping[str, set[str]]) -> None:
    """UserError for a key that is not known or is set elsewhere, and for a value that is of no use."""
    if key in REFUSED and value not in (None, False):
        raise UserError(f"trainer.{key}: {REFUSED[key]}; leave it out")
    if key in SET_ELSEWHERE:
        raise UserError(f"trainer.{key} is set by {SET_ELSEWHERE[key]}; set that instead")
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else " (transformers.TrainingArguments lists them)"
        raise UserError(f"trainer has no option {key!r}{hint}")
    kinds = known[key]
    if kinds and not matches(value, kinds):
        raise UserError(f"trainer.{key} must be {' or '.join(sorted(kinds))}, not {value!r}")
    if key in WORDS:
        check_one_of(f"trainer.{key}", value, WORDS[key])
    if not is_finite(value):
        raise UserError(f"trainer.{key} is {value}; it must be finite")
    if key in LEAST and isinstance(value, int | float):
        check_at_least(f"trainer.{key}", value, LEAST[key])
    if key == "data_seed":  # the other seed is set elsewhere
        check_seed(f"trainer.{key}", value)


def is_finite(value: Any) -> bool:
    """Whether all numbers in a value are, at any depth."""
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def trainer_fields() -> dict[str, set[str]]:
    """Field name -> names of its plain types (empty: anything), of TrainingArguments and RewardConfig.

    The sources are read, not imported: importing them takes four seconds, and an error should not.
    """
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    ours = Path(__file__).parent.parent / "training" / "config.py"
    files = [Path(spec.submodule_search_locations[0]) / "training_args.py", ours]
    classes = [
        node
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("TrainingArguments", "RewardConfig")
    ]
    annotated = [
        (statement.target.id, ast.unparse(statement.annotation))
        for node in classes
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    return {name: plain_types(kind) for name, kind in annotated}


def plain_types(annotation: str) -> set[str]:
    """Names of the types in an annotation; none if some type is not plain, and then any value passes."""
    parts = {part.strip() for part in annotation.strip("'\"").split("|")}
    return parts if parts <= {"None", "bool", "int", "float", "str"} else set()


def matches(value: Any, kinds: set[str]) -> bool:
    """Whether the value is of one of these types; an int also passes for a float, but a bool for neither."""
    names = {type(value).__name__ if value is not None else "None"}
    if names == {"int"}:
        names.add("float")
    return bool(names & kinds)


def build_loss(config: "Config") -> tuple[list["Term"], "Columns"]:
    """The terms of `loss` on the head's outputs, and the columns that they read. The first call imports torch."""
    from rmlab import losses
    from rmlab.model.head_files import outputs_of

    terms = losses.build_loss(config.loss, outputs_of(config.model))
    return terms, tuple((column.name, column.kind) for column in losses.columns_read(terms))


# ---- what files tell ----


def check_run(config: "Config") -> None:
    """`config.check()`, with its suites. Where the model's files are at fault, what the first rows tell is said too."""
    check_all(config.check_values, lambda: entries(config.eval, config.data.eval))
    try:
        config.check_model()
    except UserError:
        check_all(config.check_model, lambda: check_first_rows(config))
        raise


def check_first_rows(config: "Config") -> None:
    """UserError for the columns of the first row of each JSON file, and for chats without a chat template.

    Before all rows are read, which takes its time.
    """
    parts = {"train": config.data.train, "eval": config.data.eval}
    named = [(f"data.{part}.{name}", name, spec) for part, specs in parts.items() for name, spec in specs.items()]
    check_all(*(partial(check_first_row, config.model, *source) for source in named))


def check_first_row(model: "ModelConfig", where: str, name: str, spec: Any) -> None:
    """The same of one entry of data.train or data.eval, which `where` names."""
    from rmlab.data import DATASETS
    from rmlab.data.config import SourceConfig
    from rmlab.data.json_files import is_json
    from rmlab.data.rated import is_rated
    from rmlab.data.sources import has_two_responses
    from rmlab.data.texts import JsonRows

    source = SourceConfig.of(spec, where, DATASETS.names())
    path, columns, separator = (source.options.get(key) for key in ("path", "columns", "prompt_separator"))
    if source.source != "load" or not isinstance(path, str) or not isinstance(columns or {}, Mapping):
        return
    file = Path(path).expanduser()
    if not file.is_file() or not is_json(file):
        return
    rows = (row for row, _ in JsonRows([file], columns or {}, separator))
    left = filter(has_two_responses, rows) if source.options.get("uncompared") == "drop" else rows
    first = next(left, None)
    if first is not None and not is_rated(first):
        check_row(model, first, name)


def check_row(model: "ModelConfig", row: Mapping[str, Any], name: str) -> None:
    """UserError for columns that are no format, and for a chat where the tokenizer has no chat template."""
    from rmlab.data.columns import where_of
    from rmlab.data.rows import check_columns, to_comparison

    check_columns(row, name)
    comparison = to_comparison(row, where_of(name, 0))
    texts = [comparison.prompt, *comparison.responses]
    if not comparison.tokenised and not all(isinstance(text, str) for text in texts) and not model.has_chat_template():
        raise UserError(NO_TEMPLATE)


def check_templates(model: "ModelConfig", rows: "Rows") -> None:
    """The same of rows that have been read, whatever they come from; not of streams."""
    from rmlab.data.columns import read_row

    sources = [source for source in (*rows.train, *rows.eval) if hasattr(source.rows, "__len__")]
    check_all(*(partial(check_row, model, read_row(source.rows[0]), source.name) for source in sources))


def check_outputs(rows: "Rows", columns: "Columns", model: "ModelConfig") -> None:
    """UserError where rows of a set hold another number of values per response than the head has outputs."""
    from rmlab.model.head_files import outputs_of

    wanted = [name for name, kind in columns if kind == "output"]
    sources = [source for source in (*rows.train, *rows.eval) if hasattr(source.rows, "__len__")]
    for name, source in itertools.product(wanted, sources):
        found, where = first_width(source.name, source.rows, name)
        if found not in (None, outputs := len(outputs_of(model))):
            raise UserError(
                f"{where}: {name} holds {found} numbers per response, but model.head has {outputs} outputs; make them "
                "agree: model/head=attributes has an output for each name in model.head.attributes.names"
            )


def first_width(source: str, rows: Any, name: str) -> tuple[int | None, str]:
    """(how many numbers of a response the first row holds that knows any, which it is); None: none does."""
    from rmlab.data.columns import read_rows, where_of
    from rmlab.data.config import Options
    from rmlab.data.extra import widths
    from rmlab.data.rows import to_comparison

    how = Options(columns=((name, "output"),), complete=False)
    for n, row in enumerate(read_rows(rows)):
        where = where_of(source, n)
        if found := widths(to_comparison(row, where, how).columns):
            return found[name], where
    return None, ""
