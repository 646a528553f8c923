"""The final model on disk, also where `fully_shard` has spread it over several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_model
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from rmlab.data.tokenizer import build_tokenizer
from rmlab.model.export import export, gathered
from rmlab.model.head import base_of
from rmlab.model.head_files import take

IDS = torch.tensor([[5, 6, 7, 2]])


def build(kind):
    model = make_model()
    torch.manual_seed(0)
    if kind == "head":
        take(model, {"two_head": {}}, 0.5)
    if kind != "adapter":
        return model
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="SEQ_CLS")
    return get_peft_model(model, config)


def shard_and_export(place, kind):
    """What every rank of a sharded run does at its end."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    model = build(kind)
    base = base_of(model)
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    weights = gathered(model)
    if os.environ["RANK"] == "0":
        export(model, build_tokenizer(), place / "model", weights)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in ("whole", "head", "adapter")])
def test_a_sharded_model_is_gathered_by_all_ranks_and_equals_the_whole_one(kind, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([*launch, str(tmp_path), kind], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = build(kind).eval()(input_ids=IDS).logits[0, 0].item()
    if kind == "adapter":
        assert "the adapter is not merged into its base model" in done.stdout
        loaded = PeftModel.from_pretrained(make_model(), str(tmp_path / "adapter"))
    else:
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert loaded.eval()(input_ids=IDS).logits.item() == pytest.approx(expected, abs=1e-5)


def test_a_whole_model_has_nothing_to_gather():
    assert gathered(make_model()) is None


def test_a_saved_model_has_a_card(tmp_path):
    export(make_model(), build_tokenizer(), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    assert "qwen3, trained by rmlab" in card


if __name__ == "__main__":
    place, kind = sys.argv[1:]
    torch.distributed.init_process_group("gloo")
    shard_and_export(Path(place), kind)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
