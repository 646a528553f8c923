"""The arms of throughput.py: TRL's and rmlab's trainers, each in a process of its own, measured turn by turn."""

import contextlib
import functools
import multiprocessing
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from throughput_data import TRL_ARMS, Batches, Setting

PARTS = ("data", "forward", "backward", "optimizer", "Trainer")  # of a step
TRAINING = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "max_length": None,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


def build_model(setting: Setting) -> Any:
    """A Qwen3 with random weights, the same at every call."""
    transformers.set_seed(0)
    config = transformers.Qwen3Config(**setting.config)
    with torch.device(setting.device):
        dtype = getattr(torch, setting.weights)
        return transformers.AutoModelForSequenceClassification.from_config(config, dtype=dtype)


def build_trainer(arm: str, setting: Setting, model: Any, batches: Batches, tokenizer: Any, out: Path) -> Any:
    """TRL's or rmlab's trainer, which takes `batches` in their order, one per optimizer step."""
    import trl
    from peft import LoraConfig

    import rmlab

    settings = {
        **TRAINING,
        "output_dir": str(out),  # where nothing is saved
        "per_device_train_batch_size": len(batches[0]),
        "max_steps": len(batches),
        "bf16": setting.dtype == "bfloat16",
        "use_cpu": setting.device == "cpu",
        "gradient_checkpointing": setting.lora or arm == "trl",
    }
    # Batches are fetched one ahead. With one more than are trained on, the last step fetches as the others do.
    rows = [row for batch in [*batches, batches[0]] for row in batch]
    parts = {"model": model, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    if setting.lora:
        linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        parts["peft_config"] = LoraConfig(r=16, target_modules=linear, modules_to_save=["score"], task_type="SEQ_CLS")
    if arm in TRL_ARMS:
        trainer = trl.RewardTrainer(args=trl.RewardConfig(**settings), **parts)
    else:
        loss = {"bradley_terry": {"margin": 0.0}}
        trainer = rmlab.RewardTrainer(args=rmlab.RewardConfig(**settings, layout=arm), loss=loss, **parts)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def quiet() -> None:
    disable_progress_bars()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


# Processes start from one that has imported everything and computed nothing.
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTS = ["trl.trainer.reward_trainer", "rmlab.training.trainer", "rmlab.runner.run", "peft", "hydra", "rich.table"]
CONTEXT.set_forkserver_preload([*IMPORTS, "transformers.models.qwen3.modeling_qwen3"])


class Arm:
    """A trainer in a process of its own, as its users have it, which does `setting.steps` steps in every `turn`."""

    def __init__(self, name: str, setting: Setting, batches: Batches, tokenizer: Any, out: Path) -> None:
        self.name, self.setting = name, setting
        self.seconds: list[float] = []  # of each turn
        self.found: dict[str, Any] = {}  # `Turns.found`, at the end
        self.error: str | None = None
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=train, args=(name, setting, batches, tokenizer, out, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is heard
        self._hear()  # that the trainer is built

    def turn(self, timing: bool) -> None:
        started = time.perf_counter()
        self.pipe.send(timing)
        self._hear()
        self.seconds.append(time.perf_counter() - started)

    def finish(self) -> None:
        if not self.error:
            self.pipe.send(False)
            self._hear()
        self.process.join()

    def _hear(self) -> None:
        try:
            self.found = self.pipe.recv()
        except EOFError:  # the system ends a process that takes too much memory
            self.found = {"error": "its process was ended: out of memory?"}
        self.error = self.found.get("error")
        if self.error:
            print(f"  {self.name} failed: {self.error}", flush=True)


def train(name: str, setting: Setting, batches: Batches, tokenizer: Any, out: Path, pipe: Connection) -> None:
    """What the process of an arm does."""
    quiet()
    torch.set_num_threads(setting.threads)
    try:
        turns = Turns(build_trainer(name, setting, build_model(setting), batches, tokenizer, out), setting, pipe)
        turns.wait()
        turns.trainer.train()
        pipe.send(turns.found())
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


class Turns(transformers.TrainerCallback):
    """Trains when its turn comes, and measures: tokens, memory and the time of each part of a step."""

    def __init__(self, trainer: Any, setting: Setting, pipe: Connection) -> None:
        self.trainer, self.setting, self.pipe = trainer, setting, pipe
        self.tokens = [0]  # that the model embedded in each step: padding too, and what proves a layout in the first
        self.parts: Counter[str] = Counter()  # seconds in each part of a step, while `timing`
        self.timing = False
        self._wrap(trainer, "get_batch_samples", "data")  # fetches, collates and moves a batch
        self._wrap(trainer, "compute_loss", "forward")
        self._wrap(trainer.accelerator, "backward", "backward")
        self._wrap(trainer, "_clip_grad_norm", "optimizer")
        trainer.model.get_input_embeddings().register_forward_hook(self._count)
        trainer.add_callback(self)
        self.memory = memory(setting.device)  # of a process that holds the model

    def wait(self) -> None:
        synchronize(self.setting.device)
        self.pipe.send({})
        self.timing = self.pipe.recv()

    def found(self) -> dict[str, Any]:
        losses = [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]
        layout = getattr(self.trainer, "layout", None)  # the one that rmlab has settled on
        return {
            "layout": layout,
            "losses": losses,
            "tokens": self.tokens,
            "parts": dict(self.parts),
            "peak_mib": (self.peak - self.memory) / 2**20,
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wrap(kwargs["optimizer"], "step", "optimizer")
        self._wrap(self.trainer.model_wrapped, "zero_grad", "optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand over. Between two such ends every step fetches one batch, trains and logs once."""
        self.tokens.append(0)
        if state.global_step == self.setting.counted.start:
            forget_peak(self.setting.device)
        if state.global_step == self.setting.counted.stop:
            self.peak = peak_memory(self.setting.device)
        if state.global_step % self.setting.steps == 0:
            self.wait()

    def _count(self, module: Any, inputs: tuple[torch.Tensor], output: Any) -> None:
        self.tokens[-1] += inputs[0].numel()

    def _wrap(self, owner: Any, method: str, part: str) -> None:
        """Make `owner.method` add its time to `part` while `timing`."""
        inner = getattr(owner, method)

        @functools.wraps(inner)  # with the mark that the learning rate schedule leaves on an optimizer's `step`
        def outer(*args: Any, **kwargs: Any) -> Any:
            if not self.timing:
                return inner(*args, **kwargs)
            synchronize(self.setting.device)
            started = time.perf_counter()
            result = inner(*args, **kwargs)
            synchronize(self.setting.device)
            self.parts[part] += time.perf_counter() - started
            return result

        setattr(owner, method, outer)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def memory(device: str) -> int:
    """Bytes that this process holds."""
    return torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")


def peak_memory(device: str) -> int:
    """The most bytes that this process held since `forget_peak`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> int:
    """Bytes of this process now (VmRSS) or at most (VmHWM). ru_maxrss will not do: it begins at the parent's size."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
