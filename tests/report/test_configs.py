"""The table of what the arms differ in: configs, code, packages, data."""

import pytest
from studies import write_run

from rmlab.commands.report import main
from rmlab.report.configs import arms_table
from rmlab.report.study import load_study

GAPS = [1.0, -1.0]


def cells_of(folder, index):
    (table,) = arms_table(load_study(folder))
    return table.cells.set_index(index)


def test_only_what_differs_is_shown_with_what_an_option_stands_for(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, GAPS)
        write_run(tmp_path, seed, GAPS, loss="margin", trainer__learning_rate=0.5)
    cells = cells_of(tmp_path, "key")
    assert cells.index.tolist() == ["loss", "loss.bradley_terry.margin", "trainer.learning_rate"]
    assert cells["plain"].tolist() == ["plain", "0", "0.001"]
    arm = next(column for column in cells if column != "plain")
    assert cells[arm].tolist() == ["margin", "1", "0.5"]


def test_code_packages_and_data_that_differ_between_arms_are_shown(tmp_path):
    """Several values where the runs of an arm differ; what all arms have alike is not there."""
    other = {"code": "def", "packages": {"torch": "2.14.0"}, "inputs": {"a.jsonl": "9" * 64}}
    write_run(tmp_path, 0, GAPS)
    write_run(tmp_path, 0, GAPS, loss="margin", environment=other)
    write_run(tmp_path, 1, GAPS, loss="margin")
    cells = cells_of(tmp_path, "key")
    assert cells.loc["code"].tolist() == ["abc", "def, abc"]
    assert cells.loc["packages.torch"].tolist() == ["2.13.0", "2.14.0, 2.13.0"]
    assert cells.loc["inputs.a.jsonl"].tolist() == ["11", "9" * 24 + "…, 11"]
    assert "python" not in cells.index


def test_a_value_of_several_lines_keeps_the_tables_whole(tmp_path):
    for separator in ("\n\nAssistant:", "\n\nBot:"):
        write_run(tmp_path, 0, GAPS, data__prompt_separator=separator)
    main([str(tmp_path), "--no-figures"])
    tables = [line for line in (tmp_path / "report" / "table.md").read_text().splitlines() if "Bot:" in line]
    assert any("\\n\\nBot:" in line for line in tables)
    assert all(line.count("|") > 2 for line in tables if line.startswith("|"))
    assert not any(line.startswith("Bot:") for line in tables)


def test_a_key_that_an_arm_has_not_is_empty(tmp_path):
    write_run(tmp_path, 0, GAPS)
    write_run(tmp_path, 0, GAPS, loss="hinge")
    assert cells_of(tmp_path, "key").loc["loss.hinge.weight"].tolist() == ["", "1"]


def test_many_arms_have_a_line_each(tmp_path, capsys):
    for n in range(20):
        write_run(tmp_path, 0, GAPS, trainer__learning_rate=0.01 * (n + 1))
    cells = cells_of(tmp_path, "arm")
    assert cells.columns.tolist() == ["trainer.learning_rate"]
    assert len(cells) == 20
    main([str(tmp_path), "--no-figures"])
    assert "What the arms differ in" in capsys.readouterr().out


def test_one_arm_differs_in_nothing(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, GAPS)
    assert arms_table(load_study(tmp_path)) == []


@pytest.mark.parametrize("kind", ["table.md", "table.tex", "index.html"])
def test_it_is_in_every_format(tmp_path, kind, capsys):
    write_run(tmp_path, 0, GAPS)
    write_run(tmp_path, 0, GAPS, loss="margin")
    main([str(tmp_path), "--no-figures"])
    capsys.readouterr()
    assert "bradley" in (tmp_path / "report" / kind).read_text()
