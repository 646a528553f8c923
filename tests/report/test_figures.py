"""Figures and the HTML page, from a small study whose run directories are written here and whose numbers are known."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from rmlab.messages import UserError
from rmlab.metrics.evaluate import evaluate
from rmlab.metrics.scored import ScoredComparison
from rmlab.report import figures
from rmlab.report.figures import arms
from rmlab.report.figures import items as of_items
from rmlab.report.figures.look import STYLE, Look, look_of
from rmlab.report.items import METRICS, Items, load_items, set_names
from rmlab.report.page import write_page
from rmlab.report.study import load_study
from rmlab.report.tables import Table, Words
from rmlab.runner.directory import RunDirectory

PROMPTS = 40


def write_run(study, loss, seed, right, rate=0.001, sets=("eval",), history=True, error=""):
    """A run directory as a run leaves it. right: on how many of the prompts the better response gets more reward."""
    out = RunDirectory(study / f"{loss.strip('<>')}-s{seed}-{rate}")
    choices = {"loss": loss, "data": "synthetic"}
    config = {"study": study.name, "question": "Which <loss>?", "seed": seed, "run": {"name": loss, "choices": choices}}
    out.write_config({**config, "loss": {loss: {}}, "trainer": {"learning_rate": rate}})
    if error:
        out.write_error(UserError(error))
        return
    out.write_environment({"code": "1", "packages": {}, "seconds": 90.0})
    items = {name: make_items(right, seed, graded=place == 0) for place, name in enumerate(sets)}
    for name, of_set in items.items():
        out.write_scores(name, of_set)
    if history:
        out.write_history(make_history(right / PROMPTS))
    out.write_metrics({"eval": {name: evaluate(of_set) for name, of_set in items.items()}, "train": {}})


def make_items(right, seed, graded):
    """One pair per prompt; the gap's size differs by seed. graded: strengths 1, 2, 3."""
    generator = np.random.default_rng(seed)
    items = []
    for prompt in range(PROMPTS):
        gap = generator.uniform(0.2, 1.5) * (1 if prompt < right else -1)
        pair = {"better": [1], "worse": [0], "strength": [1.0 + prompt % 3 * graded], "probability": [1.0]}
        names = {"index": prompt, "id": "", "prompt_id": f"p{prompt}", "subset": ""}
        lengths = [10 + prompt, 12]
        items.append(ScoredComparison(**names, **pair, rewards=[0.0, gap], lengths=lengths, gold=[0.0, 1.0]))
    return items


def make_history(last):
    entries = []
    for step in (10, 20):
        accuracy = last - 0.1 * (step == 10)
        entries.append({"loss": 0.6, "accuracy": accuracy, "gap_mean": 0.1, "epoch": step / 20, "step": step})
        entries.append({"eval_loss": 0.6, "eval_accuracy": accuracy, "eval_nll": 0.6, "epoch": step / 20, "step": step})
    return entries


def make_rows(study, items):
    """A comparison as `compare` gives it, with made-up intervals."""
    rows = []
    for name, of_set in items.items():
        for m, metric in enumerate(METRICS):
            for arm in [arm for arm in study.arms if arm in of_set.arm]:
                mean = np.nanmean(of_set.values()[of_set.arm == arm, m])
                one = {
                    "set": name,
                    "subset": "",
                    "metric": metric,
                    "arm": arm,
                    "mean": mean,
                    "low": mean - 0.1,
                    "high": mean + 0.1,
                }
                paired = {"difference": 0.05, "diff_low": 0.01, "diff_high": 0.09, "verdict": "better"}
                rows.append(one if arm == study.baseline else {**one, **paired})
    return pd.DataFrame(rows)


def load(folder):
    study = load_study(folder)
    return study, {name: load_items(study, name) for name in set_names(study)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two losses by two rates, two seeds; the runs of one cell failed."""
    folder = tmp_path_factory.mktemp("runs") / "grid"
    for seed, more in ((0, 0), (1, 2)):
        write_run(folder, "plain", seed, 24 + more)
        write_run(folder, "plain", seed, 30 + more, rate=0.002)
        write_run(folder, "margin", seed, 36 + more)
        write_run(folder, "margin", seed, 0, rate=0.002, error="OutOfMemoryError: 3 TiB <here>")
    return load(folder)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One run per arm, without history, on two evaluation sets; an arm whose name is HTML."""
    folder = tmp_path_factory.mktemp("runs") / "single"
    write_run(folder, "plain", 0, 24, sets=("a", "b"), history=False)
    write_run(folder, "<b>", 0, 30, sets=("a", "b"), history=False)
    write_run(folder, "centered", 0, 0, error="OutOfMemoryError: 3 TiB <here>")
    return load(folder)


@pytest.fixture(scope="module")
def report(single, tmp_path_factory):
    """(folder, figures, page) of the single study."""
    folder = tmp_path_factory.mktemp("report")
    study, items = single
    drawn = figures.draw(study, items, make_rows(study, items), folder / "figures")
    table = pd.DataFrame({"arm": ["plain (baseline)", "<b>"], "mean": ["0.60", "0.75"], "verdict": ["", "better"]})
    page = write_page(
        study, [Table("Accuracy", table)], drawn, folder, Words("t", ["p: corrected by Holm"], study.notes)
    )
    return folder, drawn, page.read_text(encoding="utf-8")


def check_files(drawn, folder):
    starts = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}
    for figure in drawn:
        for kind, start in starts.items():
            content = (folder / f"{figure.name}.{kind}").read_bytes()
            assert content.startswith(start)
            assert len(content) > 2000
        assert "seed" in figure.caption
        assert "preferences" in figure.caption


def test_every_figure_of_a_study_with_all_data_in_three_formats(grid, tmp_path):
    study, items = grid
    drawn = figures.draw(study, items, make_rows(study, items), tmp_path)
    assert [figure.name for figure in drawn] == [
        *("accuracy", "heatmap", "learning_curves", "strength", "length", "rewards")
    ]
    check_files(drawn, tmp_path)


def test_figures_without_data_are_left_out_and_those_of_several_sets_are_named_after_them(report):
    folder, drawn, _ = report
    kinds = ("accuracy", "length", "rewards")  # no history, no grid; b has one strength only
    assert {figure.name for figure in drawn} == {f"{kind}_{name}" for kind in kinds for name in "ab"} | {"strength_a"}
    check_files(drawn, folder / "figures")
    assert len(list((folder / "figures").iterdir())) == 3 * len(drawn)


def test_heat_map_cells_are_means_over_seeds(grid):
    study, items = grid
    cells = arms.heat_cells(study, "eval")
    assert (cells.index.name, cells.columns.name) == ("loss", "learning_rate")
    assert cells.loc["plain", 0.001] == pytest.approx((24 / 40 + 26 / 40) / 2)
    assert cells.loc["plain", 0.002] == pytest.approx((30 / 40 + 32 / 40) / 2)
    assert cells.loc["margin", 0.001] == pytest.approx((36 / 40 + 38 / 40) / 2)
    assert np.isnan(cells.loc["margin", 0.002])
    drawing = arms.heatmap(study, "eval", items["eval"])
    written = {text.get_text() for text in drawing.canvas.axes[0].texts}
    assert written == {"0.625", "0.775", "0.925", "missing"}
    assert "missing" in drawing.caption


def test_no_heat_map_unless_two_keys_vary_in_every_arm(single, grid):
    assert arms.heat_cells(single[0], "a") is None
    study = load_study(grid[0].folders)
    study.values = {arm: {"loss": "l", f"{arm} rate": 1} for arm in study.arms}
    assert arms.heat_cells(study, "eval") is None


def test_curves_are_means_and_sds_over_seeds(grid):
    points = arms.curve(grid[0].arms["plain learning_rate=0.001"], ["eval_accuracy"])
    assert points["x"].tolist() == [0.5, 1.0]
    assert points["mean"].tolist() == pytest.approx([0.525, 0.625])
    assert points["sd"].tolist() == pytest.approx([0.05 / np.sqrt(2)] * 2)


def test_standard_error_of_prompts_and_seeds():
    correct = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])  # two seeds; two prompts with two items each
    mean, error = of_items.mean_and_error(correct, np.array([0, 0, 1, 1]))
    assert mean == 0.75
    assert error**2 == pytest.approx((0.5**2 + 0.5**2) / 4**2 + 0.5**2 / 2 / 2)  # of prompts, of seeds


def test_strength_bins_are_the_values_or_quartiles():
    bins, names = of_items.strength_bins(np.array([2.0, 1.0, 2.0]))
    assert (bins.tolist(), names) == ([1, 0, 1], ["1", "2"])
    bins, names = of_items.strength_bins(np.arange(101.0))
    assert np.bincount(bins).tolist() == [26, 25, 25, 25]
    assert names == ["0–25", "26–50", "51–75", "76–100"]  # noqa: RUF001


def test_a_response_of_several_preferences_counts_once():
    better, worse = np.array([[3.0, 3.0, 2.0]]), np.array([[2.0, 1.0, 1.0]])  # of three responses with rewards 1, 2, 3
    length = np.array([[30, 30, 20], [20, 10, 10]])
    one = np.ones(3)
    items = Items([], np.array(["a"]), np.array([0]), better, worse, length, np.zeros(3, int), one, one, one)
    rewards, tokens = of_items.responses(items)
    assert sorted(zip(rewards[0], tokens, strict=True)) == [(1, 10), (2, 20), (3, 30)]


def test_chosen_and_rejected_swap_sides_below_one_half():
    better, worse = np.full((1, 20), 1.0), np.full((1, 20), 5.0)
    one, arm = np.ones(20), np.array(["a"])
    items = Items([], arm, np.array([0]), better, worse, np.ones((2, 20)), np.arange(20), one, one * 0.2, one)
    look = Look(["a"], "a", {"a": "#404040"}, {"a": "o"}, "", {"a": "a"}, False)
    fills = [patch for patch in of_items.rewards(items, look).canvas.axes[0].patches if patch.get_fill()]
    chosen, rejected = (np.mean(patch.get_xy()[patch.get_xy()[:, 1] > 0, 0]) for patch in fills)
    assert (chosen, rejected) == pytest.approx((5, 1), abs=0.2)


@pytest.mark.parametrize(
    ("values", "apart", "legend"),
    [
        ([{"lr": 0.1 * n} for n in range(12)], False, "0.1"),  # one number: a sequential colour each, named by it
        ([{"loss": f"l{n}"} for n in range(12)], True, "arm 1"),
        ([{"lr": 0.1 * n} for n in range(6)], False, "arm 1"),
    ],
)
def test_how_many_arms_are_told_apart(grid, values, apart, legend):
    study = load_study(grid[0].folders)
    run = study.finished[0]
    study.arms, study.baseline = {f"arm {n}": [run] for n in range(len(values))}, "arm 0"
    study.values = dict(zip(study.arms, values, strict=True))
    look = look_of(study)
    assert look.apart == apart
    assert look.names["arm 1"] == legend
    if not apart:
        assert len(set(look.colours.values())) == len(values)


def test_the_same_data_give_the_same_bytes(grid, tmp_path):
    study, items = grid
    with mpl.rc_context(STYLE):
        for name in ("one", "two"):
            figures.save(arms.heatmap(study, "eval", items["eval"]).canvas, tmp_path, name)
    for kind in ("pdf", "png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    assert b"/CreationDate" not in (tmp_path / "one.pdf").read_bytes()


# ---- the page ----


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_page_needs_nothing_but_itself(report):
    folder, drawn, text = report
    page = Page(text)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(links) == 1 + 4 * len(drawn)  # the icon; of each figure itself and three files
    for link in links:
        assert link.startswith("data:image/svg+xml;base64,") or (folder / link).is_file()
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import|https?://", text)


def test_page_shows_figures_with_captions(report):
    folder, drawn, text = report
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    for figure, image in zip(drawn, images, strict=True):
        content = base64.b64decode(image["src"].partition(",")[2])
        assert content == (folder / "figures" / f"{figure.name}.svg").read_bytes()
        assert image["alt"] == f"{figure.title}. {figure.caption}"
        assert figure.caption in page.text


def test_page_escapes_names(report):
    page = Page(report[2])
    assert "b" not in {tag for tag, _ in page.tags}
    assert "<b>" in page.text
    assert "Which <loss>?" in page.text


def test_page_shows_notes_failed_runs_and_verdicts(report, single):
    page = Page(report[2])
    assert any(attributes.get("class") == "notes" for _, attributes in page.tags)
    for note in single[0].notes:
        assert note in page.text
    runs = page.text[page.text.index("All 3 runs") :]
    assert "failed" in runs
    assert "OutOfMemoryError: 3 TiB <here>" in runs
    assert "centered-s0-0.001" in runs
    assert "1.5" in runs  # minutes
    assert "p: corrected by Holm" in page.text
    assert [a for tag, a in page.tags if tag == "td" and a.get("class") == "better"] == [{"class": "better"}]
    assert len([a for tag, a in page.tags if tag == "tr" and a.get("class") == "baseline"]) == 1


def test_page_without_notes_or_figures(single, tmp_path: Path):
    text = write_page(single[0], [], [], tmp_path, Words("t", ["fact"], [])).read_text(encoding="utf-8")
    assert 'class="notes"' not in text
    assert "<figure" not in text
