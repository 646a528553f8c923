"""A run that begins where another has ended, and the ids of runs."""

import copy
import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import ROOT, make_model
from hydra import compose, initialize_config_dir

from rmlab import RewardModel, UserError, run
from rmlab.model.load import load_model
from rmlab.model.tokenizer import load_tokenizer
from rmlab.runner.begin import begun, with_beginning
from rmlab.runner.config import Config, content_id, register
from rmlab.runner.directory import RunDirectory

ROWS = [{"prompt": "tell me about chess", "chosen": "chess is a game", "rejected": "rivers are long"}]
BASE = {"path": None}  # of the model of both runs, when it has been made
GAUSSIAN = {"head": {"gaussian": {}}}


def of(composed, model=None, **others):
    config = copy.deepcopy(composed)
    config["model"].update(model or {})
    return {**config, **others}


@pytest.fixture(scope="module")
def first(composed, tmp_path_factory):
    """A finished run of a gaussian head, with an adapter that was merged."""
    folder = tmp_path_factory.mktemp("first")
    make_model().save_pretrained(folder / "base")
    BASE.update(path=str(folder / "base"), config={})
    peft = {"method": "lora", "r": 2, "target_modules": "all-linear"}
    run(
        of(composed, {**BASE, **GAUSSIAN}, peft=peft, trainer={**composed["trainer"], "max_steps": 2}), folder / "first"
    )
    return folder / "first"


def rewards(model_config):
    model = RewardModel.of(load_model(model_config, 1), load_tokenizer(model_config))
    return model.score(ROWS)


@pytest.mark.parametrize("kept", ["model", "adapter"])
@pytest.mark.parametrize("head", [{"linear": {}}, GAUSSIAN["head"]])
def test_a_run_begins_with_the_rewards_of_the_run_that_it_names(kept, head, first, composed, tmp_path):
    """Of its merged model, and of an adapter alone; the head as it was, or folded into one layer."""
    place = tmp_path / "first"
    shutil.copytree(first, place)
    shutil.rmtree(place / {"model": "adapter", "adapter": "model"}[kept])
    config = Config.of(of(composed, {**BASE, "init_from": str(place), "head": head}))
    model = begun(config.model)
    assert np.allclose(rewards(model), RewardModel(str(first)).score(ROWS), atol=1e-5)
    assert not np.allclose(rewards(model), rewards(config.model), atol=1e-3)
    assert not hasattr(load_model(model, 0), "peft_config")


def test_it_is_a_run_of_its_own_that_tells_what_it_has_begun_with(first, composed, tmp_path, capsys):
    config = of(composed, {**BASE, "init_from": str(first)})
    config["trainer"]["max_steps"] = 1
    metrics = run(config, tmp_path / "second")
    assert "the head `gaussian` goes on as one linear layer" in capsys.readouterr().out
    out = RunDirectory(tmp_path / "second")
    assert out.config()["model"]["init_from"] == str(first)
    began = out.config()["run"]["began"]
    assert began.startswith("x-")  # run.name of the first
    assert out.environment()["config"]["model"]["init_from"] == began
    assert run(config, out.path) == metrics
    assert "it is finished" in capsys.readouterr().out


def moved(first, place, **changes):
    """The run elsewhere, with other values at the top of its config."""
    shutil.copytree(first, place)
    config = yaml.safe_load((place / "config.yaml").read_text())
    (place / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    return str(place)


def test_the_id_is_that_of_the_weights_and_not_of_their_place(first, composed, tmp_path):
    here, there = str(first), moved(first, tmp_path / "there")
    id_of = {place: content_id(of(composed, {**BASE, "init_from": place})) for place in (here, there)}
    assert id_of[here] == id_of[there] != content_id(of(composed, BASE))
    made = json.loads((tmp_path / "there" / "environment.json").read_text())
    made["files"]["model/model.safetensors"][1] = "another hash"
    (tmp_path / "there" / "environment.json").write_text(json.dumps(made))
    assert content_id(of(composed, {**BASE, "init_from": there})) != id_of[here]


def test_seeds_of_an_arm_begin_with_seeds_of_one_arm(first, composed, tmp_path):
    def began(place):
        return with_beginning(Config.of(of(composed, {**BASE, "init_from": place}))).run.began

    assert began(str(first)) == began(moved(first, tmp_path / "seed", seed=7))
    assert began(str(first)) != began(moved(first, tmp_path / "loss", loss={"bradley_terry": {"margin": 1.0}}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda place: (place / "metrics.json").unlink(), "is half-done, not finished; train it to its end first"),
        (lambda place: shutil.rmtree(place), "is no run directory; name one of runs/STUDY/"),
        (
            lambda place: [shutil.rmtree(place / name) for name in ("model", "adapter")],
            "is a run that has kept no model",
        ),
        (
            lambda place: moved(place, place.with_name("other"), model={"path": "gpt2"}) and None,
            "has model.path='gpt2', this run '.*base'; choose the same model for both",
        ),
    ],
)
def test_a_run_that_cannot_be_begun_with_is_refused_before_a_model_loads(harm, message, first, composed, tmp_path):
    shutil.copytree(first, tmp_path / "first")
    harm(tmp_path / "first")
    place = tmp_path / ("other" if (tmp_path / "other").exists() else "first")
    with pytest.raises(UserError, match=message):
        run(of(composed, {**BASE, "init_from": str(place)}), tmp_path / "second")


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        ((), "9529d47a"),
        (("loss=margin", "seed=1"), "19e7ba73"),
        (("model=pretrained", "model.path=x", "data=files", "data.train.files.path=y", "peft=lora"), "e20745ae"),
    ],
)
def test_runs_of_the_version_before_heads_have_the_ids_that_they_had(overrides, known):
    """Written down then: its finished runs stay finished."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*overrides, "run.name=x", "run.dir=x"])
        other = compose("train", [*overrides, "run.name=x", "run.dir=x", "model/head=gaussian"])
    assert config.run.id == known != other.run.id
