"""The posterior of a linear head: against autograd, simulation and the evidence; and the features it is made of."""

import json
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import kwise_rows, make_model, make_pairs
from scipy.optimize import minimize_scalar

from rmlab import RewardModel, UserError
from rmlab.commands import lab
from rmlab.data.config import Options
from rmlab.data.drafts import to_trees
from rmlab.data.rows import to_comparison
from rmlab.data.sets import Sets
from rmlab.lab.bayes import posterior_of, sets_of, write
from rmlab.lab.features import differences, read_features
from rmlab.lab.laplace import Information, Posterior, moderated
from rmlab.metrics.evaluate import sigmoid
from rmlab.model.head_files import take
from rmlab.runner.directory import RunDirectory


def informed(z, weights):
    found = Information.none(len(weights))
    for part in np.array_split(np.arange(len(z)), 3):  # as batches come
        found.add(z[part], z[part] @ weights)
    return found


def test_the_posterior_is_that_of_the_hessian_of_the_loss():
    """d = 3: second derivatives of the negative log posterior by autograd, in float64."""
    rng = np.random.default_rng(0)
    z, weights, new = rng.normal(size=(20, 3)), rng.normal(size=3), rng.normal(size=(5, 3))

    def loss(w):
        return torch.nn.functional.softplus(-torch.tensor(z) @ w).sum() + 0.7 / 2 * (w @ w)

    hessian = torch.autograd.functional.hessian(loss, torch.tensor(weights)).numpy()
    expected = np.sqrt(np.einsum("pi,ij,pj->p", new, np.linalg.inv(hessian), new))
    posterior = Posterior.of(informed(z, weights), weights, prior=0.7)
    assert posterior.sd(new) == pytest.approx(expected, rel=1e-10)


def trained(z, labels, prior):
    """The weights of the most posterior probability, by Newton's method."""
    w = np.zeros(z.shape[1])
    for _ in range(30):
        p = sigmoid(z @ w)
        hessian = (z * (p * (1 - p))[:, None]).T @ z + prior * np.eye(len(w))
        w += np.linalg.solve(hessian, z.T @ (labels - p) - prior * w)
    return w


def test_true_gaps_lie_within_two_sd_as_often_as_they_should():
    """Weights drawn from the prior, labels from Bradley-Terry: 300 trainings, 20 new pairs each."""
    rng, inside = np.random.default_rng(1), []
    for _ in range(300):
        true, z, new = rng.normal(size=4), rng.normal(size=(60, 4)), rng.normal(size=(20, 4))
        w = trained(z, rng.random(60) < sigmoid(z @ true), prior=1.0)
        sd = Posterior.of(informed(z, w), w, prior=1.0).sd(new)
        inside.append(np.abs(new @ (w - true)) < 1.96 * sd)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_the_prior_is_the_one_of_the_most_evidence():
    """log evidence of lambda at fixed weights: d/2 log lambda - lambda/2 |w|^2 - 1/2 log det H."""
    rng = np.random.default_rng(2)
    z, weights = rng.normal(size=(200, 5)), rng.normal(size=5)
    found = informed(z, weights)

    def against(log):
        prior = np.exp(log)
        return -2.5 * log + prior / 2 * weights @ weights + np.linalg.slogdet(found.matrix + prior * np.eye(5))[1] / 2

    best = np.exp(minimize_scalar(against, bounds=(-8, 8), method="bounded", options={"xatol": 1e-9}).x)
    posterior = Posterior.of(found, weights, prior=None)
    assert posterior.prior == pytest.approx(best, rel=1e-4)
    assert posterior.determined == pytest.approx(posterior.prior * weights @ weights, rel=1e-6)


def test_moderated_probabilities_are_the_mean_over_the_posterior():
    """Of normal gaps by simulation; MacKay's formula is within a hundredth."""
    gap, sd = np.array([0.5, 2.0, -3.0]), np.array([1.0, 2.0, 0.5])
    drawn = gap + sd * np.random.default_rng(3).normal(size=(200_000, 3))
    assert sigmoid(moderated(gap, sd)) == pytest.approx(sigmoid(drawn).mean(0), abs=0.01)


def test_weights_of_which_nothing_is_known_have_no_prior():
    with pytest.raises(UserError, match="give one: --prior 1"):
        Posterior.of(Information.none(3), np.ones(3), None)


def trees_of(rows, tokenizer):
    """Rows as a set of token trees has them."""
    comparisons = [(to_comparison(row, "row"), n, "row") for n, row in enumerate(rows)]
    return [tree.row() for tree in to_trees(comparisons, tokenizer, Options())]


@pytest.mark.parametrize("kind", ["qwen3", "bert", "roberta"])
def test_features_are_what_the_last_layer_reads(kind, tokenizer):
    """So that weights times their difference is the gap, and rewards are as before."""
    rows = make_pairs(7)
    model = RewardModel.of(make_model(kind).eval(), tokenizer)
    expected = model.score(rows)
    weights, found = read_features(model), {}
    for scored, z in differences(model, trees_of(rows, tokenizer), "rows"):
        for one, difference in zip(scored, z, strict=True):
            found[one.index] = one.rewards, difference
    rewards, z = (np.array([found[n][part] for n in range(len(rows))]) for part in (0, 1))
    assert rewards == pytest.approx(expected, abs=1e-5)
    assert z @ weights == pytest.approx(expected[:, 0] - expected[:, 1], abs=1e-5)
    assert z.shape == (7, 32)


def test_a_run_has_a_file_of_gaps_and_their_sd(tokenizer, tmp_path, monkeypatch):
    """In the order of the set; the head is a folded one, of quantiles."""
    monkeypatch.setattr("rmlab.lab.coverage.save_figure", lambda *_: None)  # tested with the tables of a study
    train, test = make_pairs(30, seed=1).to_list(), [*kwise_rows(5), *make_pairs(9)]
    model = make_model("qwen3")
    take(model, {"quantile": {"levels": [0.25, 0.75]}}, 0.5)
    model = RewardModel.of(model, tokenizer)
    expected = model.score(test)
    sets = Sets(trees_of(train, tokenizer), {"eval": trees_of(test, tokenizer)})
    told, words = posterior_of(model, sets, prior=2.0)
    assert words.startswith("Prior: lambda 2; 30 training preferences decide")
    write(told, words, "run", 1.0, tmp_path)
    found = pd.read_parquet(tmp_path / "eval.bayes.parquet")
    assert found["comparison"].is_monotonic_increasing
    places = zip(found["comparison"], found["better"], found["worse"], strict=True)
    gaps = [expected[n, better] - expected[n, worse] for n, better, worse in places]
    assert found["gap"].to_numpy() == pytest.approx(np.array(gaps), abs=1e-5)
    pieces = {c.index: (c, z) for c, z in each(model, sets)}
    z = np.concatenate([pieces[n][1] for n in sorted(pieces)])
    information = Information.none(32)
    for scored, of in differences(model, sets.train, "train"):
        information.add(of, np.array([c.rewards[0] - c.rewards[1] for c in scored]))
    inverse = np.linalg.inv(information.matrix + 2.0 * np.eye(32))
    assert found["gap_sd"].to_numpy() == pytest.approx(np.sqrt(np.einsum("pi,ij,pj->p", z, inverse, z)), rel=1e-4)
    assert "its mean over the posterior" in (tmp_path / "bayes.md").read_text()


def each(model, sets):
    """(comparison, its differences) of the evaluation set."""
    for scored, z in differences(model, sets.eval["eval"], "eval"):
        ends = np.cumsum([0, *(len(c.better) for c in scored)])
        yield from ((c, z[low:high]) for c, low, high in zip(scored, ends, ends[1:], strict=False))


def test_sets_are_those_of_the_run(composed, tmp_path):
    """Rows that the model had no positions for, and training prompts, were left out of it."""
    rows = [{"prompt": f"ask {n} ", "chosen": "good", "rejected": "bad", "id": f"r{n}"} for n in range(4)]
    rows[1]["chosen"] *= 30
    for name, those in (("train", rows[:3]), ("test", rows[2:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, those)))
    config = deepcopy(composed)
    of = {name: {"rows": {"source": "load", "path": str(tmp_path / f"{name}.jsonl")}} for name in ("train", "test")}
    config["data"].update(train=of["train"], eval=of["test"], max_length="auto", prompt_overlap="drop", limit=None)
    config["model"]["config"] = {"model_type": "bert", "max_position_embeddings": 60}
    out = RunDirectory(tmp_path / "run")
    out.write_config(config)
    sets = sets_of(out)
    assert (sets.train["id"][:], sets.eval["rows"]["id"][:]) == (["r0", "r2"], ["r3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "nowhere is no finished run"), (["nowhere", "--prior", "0"], "--prior is 0.0")],
)
def test_a_run_that_has_no_posterior_is_named(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        lab.main(["bayes", *arguments])
    assert message in capsys.readouterr().err
