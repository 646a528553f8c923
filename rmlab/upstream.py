"""What rmlab takes of other libraries beyond their documented interface, all of it in this file.

Each function rests on one assumption about a library's inside, and tests/test_upstream.py has a canary for each. When
an upgrade breaks rmlab, the canary says which assumption fell, and this file is where to mend it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, Trainer

# ---- datasets ----


def fingerprint(dataset: Any) -> str | None:
    """datasets: `_fingerprint` is a hash of the content of a data set and of all that was done to it."""
    return getattr(dataset, "_fingerprint", None)


# ---- transformers: tokenizers ----


def batch_ids(tokenizer: Any, texts: list[str]) -> list[list[int]] | None:
    """Ids of texts without special tokens, and without all else that a tokenizer would say of them, which takes time.

    transformers: a tokenizer of the class `PreTrainedTokenizerFast` that overrides neither `__call__` nor
    `_encode_plus` gives what its `backend_tokenizer` gives, after a call has set truncation and padding there. None for
    another tokenizer.
    """
    from transformers import PreTrainedTokenizerFast

    own, base = type(tokenizer), PreTrainedTokenizerFast
    names = ("__call__", "_encode_plus")
    if not isinstance(tokenizer, base) or any(getattr(own, name) is not getattr(base, name) for name in names):
        return None
    tokenizer(texts[:1], add_special_tokens=False, verbose=False)
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


# ---- torch ----


def version_of(tensor: "Tensor") -> int:
    """torch: `_version` counts the changes of a tensor in place."""
    return tensor._version


@contextlib.contextmanager
def replaced(module: "nn.Module", name: str, value: Any) -> Iterator[None]:
    """torch: what stands in the `__dict__` of one module hides the attribute of its class. Inside, then as before."""
    before = {name: vars(module)[name]} if name in vars(module) else {}
    vars(module)[name] = value
    try:
        yield
    finally:
        del vars(module)[name]
        vars(module).update(before)


def replace_forward(module: "nn.Module", forward: Callable[..., Any]) -> None:
    """torch: `module.forward` is what calling a module calls. For good.

    As a bound method, because accelerate binds it anew (`forward.__func__`) where it adds mixed precision.
    """
    module.forward = MethodType(forward, module)


def wrap_forward(module: "nn.Module", wrapper: Callable[..., Any]) -> None:
    """The same around the forward that is there: `wrapper(forward, *args, **kwargs)`.

    A partial can be copied with its model, a closure would keep the weights of the original.
    """
    module.forward = functools.partial(wrapper, module.forward)


# ---- transformers ----


@contextlib.contextmanager
def attention_named(config: "PreTrainedConfig", name: str) -> Iterator[None]:
    """transformers: `_attn_implementation` of a config decides, in each forward, which attention function is called.

    The public `set_attn_implementation` looks for kernels and walks all modules: made for once, not for every forward.
    """
    parts = {key: getattr(config, key, None) for key in config.sub_configs}
    before = {key: part._attn_implementation for key, part in parts.items() if part is not None}
    before[""] = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def load_trained(trainer: "Trainer", checkpoint: str, best: bool) -> None:
    """transformers: Trainer's own loading of a checkpoint's weights, without training on (it would take one more step).

    `best`: then those of the best checkpoint that its state names.
    """
    trainer._load_from_checkpoint(checkpoint)
    if best:
        trainer._load_best_model()


def loss_since_log(trainer: "Trainer") -> tuple[float, int]:
    """transformers: (the loss of this rank summed over the steps since the last log, the step of that log)."""
    return trainer._tr_loss.item(), trainer._globalstep_last_logged


def set_loss_since_log(trainer: "Trainer", loss: float, logged: int) -> None:
    """transformers: both are set to nothing at the beginning of training, before `on_train_begin`."""
    trainer._tr_loss.fill_(loss)
    trainer._globalstep_last_logged = logged


# ---- accelerate ----


@contextlib.contextmanager
def without_mixed_precision(model: "nn.Module") -> Iterator[None]:
    """accelerate: a prepared model runs under autocast by a `forward` of its own, and keeps the other one beside it."""
    original = vars(model).get("_original_forward")
    if original is None:
        yield
        return
    with replaced(model, "forward", original):
        yield


# ---- peft ----


def train_and_save(model: "PeftModel", module: str) -> None:
    """peft: what `modules_to_save` does to a module when an adapter is made, done to one that is there."""
    from peft.utils.other import _set_trainable

    _set_trainable(model, model.active_adapter, [module], inference_mode=False)


# ---- Hydra ----


def share_config_store() -> None:
    """Hydra: the store of all plugins' schemas is copied for each group that --help lists, and no copy is ever changed.

    So a copy of it may be itself, which takes one to two seconds off --help and tab completion.
    """
    from hydra.core.config_store import ConfigStore

    store: Any = ConfigStore.instance()
    store.__deepcopy__ = lambda memo: store


@contextlib.contextmanager
def launchers(wrap: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    """Hydra: every sweeper gets its launcher from `Plugins.instantiate_launcher`; inside, from there through `wrap`.

    wrap(launcher, config_loader, config) returns the launcher to use.
    """
    from hydra.core.plugins import Plugins

    make = Plugins.instantiate_launcher

    def instantiate_launcher(self: Plugins, hydra_context: Any, task_function: Any, config: Any) -> Any:
        launcher = make(self, hydra_context=hydra_context, task_function=task_function, config=config)
        return wrap(launcher, hydra_context.config_loader, config)

    Plugins.instantiate_launcher = instantiate_launcher  # type: ignore[method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = make  # type: ignore[method-assign]


def returned(job: Any) -> Any:
    """Hydra: `_return_value` of a finished job; the public property raises for one that failed, with its error."""
    return job._return_value
