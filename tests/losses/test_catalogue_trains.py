"""What reads more than rewards trains on the head that its config names, and terms compose on the command line."""

import math

import pytest
import yaml
from catalogue import configs, head_of, outputs_for
from conftest import ROOT
from hydra import compose, initialize_config_dir

from rmlab import run
from rmlab.losses import build_loss
from rmlab.runner.config import register, to_dict
from rmlab.runner.directory import RunDirectory

SMALL = [
    "debug=tiny", "logger=none", "run.dir=x", "run.name=x", "run.threads=1", "run.feature_cache_gb=0",
    "data.train.synthetic.prompts=48", "data.train.synthetic.responses=3", "trainer.save_strategy=no",
]  # fmt: skip
RATED = "data.train.synthetic.ratings={attributes: [gold], noise: 0.3, growth: 0.5}"
MORE = {  # what a config needs of the data, or of its head
    "targets/gaussian_nll": [RATED],
    "targets/ordinal_ce": [
        RATED, "loss.ordinal_ce.grades=[-20,0,20]", "model.head.ordinal.grades=[-20,0,20]",
    ],
    "targets/pinball": [RATED],
    "targets/regression": [RATED, "model.head.attributes={names: [gold], weights: [1.0]}"],
    "targets/reward_mse": [RATED],
}  # fmt: skip


def trained(place, *overrides):
    """What a run of two steps logged, each of two micro-batches."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*SMALL, *overrides, f"run.cache_dir={place / 'cache'}"])
    settings = to_dict(config)
    settings["trainer"]["gradient_accumulation_steps"] = 2
    run(settings, place / "run")
    return RunDirectory(place / "run").history()


def reads_more(config):
    """Than gaps of rewards, each of which is like the other to a trainer."""
    terms = build_loss(yaml.safe_load(config.read_text()), outputs_for(config))
    return any(term.built_in or term.columns or term.per != "pair" for term in terms)


@pytest.mark.slow
@pytest.mark.parametrize("config", filter(reads_more, configs()), ids=lambda config: config.stem)
def test_a_config_trains(config, tmp_path):
    name = config.relative_to(ROOT / "conf" / "loss").with_suffix("").as_posix()
    kind, *change = head_of(config)
    head = [f"model/head={kind}", *change]
    logged = trained(tmp_path, f"loss={name}", *head, *MORE.get(name, []))
    assert [line["step"] for line in logged] == [1, 2]
    assert all(math.isfinite(value) for line in logged for value in line.values())
    assert logged[0]["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["loss=margin", "+loss.center.weight=0.01", "+loss.l2.weight=0.001"], {"loss_center": 0.01, "loss_l2": 0.001}),
        (["loss=group/plackett_luce", "+loss.center.weight=0.01"], {"loss_center": 0.01}),
        (
            ["loss=pairwise/focal", "data.train.synthetic.tie_width=1.0", "+loss.batch_zero.weight=1.0"],
            {"loss_batch_zero": 1.0},
        ),
    ],
)
def test_terms_compose_on_the_command_line(overrides, weights, tmp_path):
    """The logged loss is the weighted sum of the logged terms; of the third one, soft labels and a term of the step."""
    logged = trained(tmp_path, *overrides, "data.train.synthetic.label_noise=0.1")
    for line in logged:
        terms = [weights.get(key, 1.0) * value for key, value in line.items() if key.startswith("loss_")]
        assert len(terms) == len(weights) + 1
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
