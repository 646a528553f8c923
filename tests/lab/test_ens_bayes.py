"""The posterior of a linear head: against autograd, simulation and the evidence; and the features it is made of."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_pairs
from scipy.optimize import minimize_scalar

from rmlab import RewardModel, UserError
from rmlab.data.config import Options
from rmlab.data.drafts import to_trees
from rmlab.data.rows import to_comparison
from rmlab.lab.features import differences, read_features
from rmlab.lab.laplace import Information, Posterior, moderated
from rmlab.metrics.evaluate import sigmoid


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


@pytest.mark.parametrize("kind", ["qwen3", "bert", "roberta"])
def test_features_are_what_the_last_layer_reads(kind, tokenizer):
    """So that weights times their difference is the gap, and rewards are as before."""
    rows = make_pairs(7)
    model = RewardModel.of(make_model(kind).eval(), tokenizer)
    expected = model.score(rows)
    comparisons = [(to_comparison(row, "row"), n, "row") for n, row in enumerate(rows)]
    trees = [tree.row() for tree in to_trees(comparisons, tokenizer, Options())]
    weights, found = read_features(model), {}
    for scored, z in differences(model, trees, "rows"):
        for one, difference in zip(scored, z, strict=True):
            found[one.index] = one.rewards, difference
    rewards, z = (np.array([found[n][part] for n in range(len(rows))]) for part in (0, 1))
    assert rewards == pytest.approx(expected, abs=1e-5)
    assert z @ weights == pytest.approx(expected[:, 0] - expected[:, 1], abs=1e-5)
    assert z.shape == (7, 32)
