"""Overrides before Hydra sees them: old names and misspelt options are told, and what Hydra takes is let through."""

import pytest
from sweeping import TINY, here

from rmlab.commands.train import check_words


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "conf" / "loss" / "papers").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "papers" / "scaled.yaml").write_text("# Scaled.\nbradley_terry:\n  margin: 0.5\n")
    (tmp_path / "conf" / "searching.yaml").write_text("defaults: [train]\nhydra:\n  searchpath: [file://elsewhere]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["-cd", "conf", "loss=papers/scaled"],
        ["-cd=conf", "loss=papers/scaled"],
        ["--config-dir=conf", "loss=papers/scaled"],
        ["-m", "loss=plain, margin"],
        ["loss=margin.yaml"],
        ["loss='plain'"],
        ["-m", "eval=[llmbar, hhh],[none],[]"],
        ["-cd", "conf", "-cn", "searching", "loss=from_elsewhere"],
        ["hydra.searchpath=[file://x]", "loss=from_elsewhere"],
    ],
)
def test_what_hydra_takes_is_let_through(arguments, mine):
    check_words(arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["loss=margn"], "no loss option 'margn'; did you mean 'margin'?"),
        (["-m", "eval=[llmbar,hhhh],[]"], "no eval option 'hhhh'; did you mean 'hhh'?"),
        (["-m", "loss=plain, margn"], "no loss option 'margn'"),
        (["data.head=3"], "data.head is now data.limit"),
        (["data={head: 3}"], "data.head is now data.limit"),
        (["model={path: x, train_layers: 2}"], "model.train_layers is now model.train_last_layers"),
    ],
)
def test_a_mistake_is_told_with_the_right_name(arguments, sentence, mine, capsys):
    with pytest.raises(SystemExit) as stopped:
        check_words(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_old_name_in_a_sweep_file_is_told_with_the_new_one(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "old.yaml").write_text(
        "# Old?\ndefaults: [train, _self_]\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      data.head: 3,4\n"
    )
    assert "data.head is now data.limit" in here(tmp_path, "-cd", "sweeps", "-cn", "old", "debug=tiny", status=2)


def test_a_sweep_over_a_text_where_a_node_is_meant_ends_in_a_sentence(tmp_path):
    assert "rmlab: error" in here(tmp_path, *TINY, "trainer.log_level=' ',x", status=2)
