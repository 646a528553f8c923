"""What makes an arm where runs differ in their head, or in what they begin with."""

from studies import write_run

from rmlab.report.study import load_study

GAPS = [1.0, -1.0, 2.0]


def write(folder, seed, head=None, **changes):
    kind, options = head or ("linear", {})
    chosen = {"loss": "plain", "model": "tiny", **({"model/head": kind} if head else {})}
    write_run(folder, seed, GAPS, run__choices=chosen, model__head={kind: options}, **changes)


def test_heads_are_told_by_name_and_their_options_where_these_vary(tmp_path):
    """A run of a version without heads has the linear one."""
    write(tmp_path, 0)
    for head in (("gaussian", {}), ("mlp", {"width": 8}), ("mlp", {"width": 16})):
        write(tmp_path, 0, head)
    assert list(load_study(tmp_path).arms) == ["linear", "gaussian", "mlp width=8", "mlp width=16"]


def test_seeds_that_begin_with_seeds_of_one_arm_are_one_arm(tmp_path):
    for seed in (0, 1):
        write(tmp_path, seed)
        write(tmp_path, seed, model__init_from=f"runs/first/x-s{seed}-0123456{seed}", run__began="x-abcdef01")
    arms = load_study(tmp_path).arms
    assert {arm: [run.seed for run in runs] for arm, runs in arms.items()} == {
        "plain": [0, 1],
        "init_from=x-abcdef01": [0, 1],
    }
