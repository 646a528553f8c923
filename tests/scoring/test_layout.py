"""Which layout a model gets: the fastest that is exact for it, and a line that says why."""

import copy

import pytest
from conftest import kwise_rows, make_model, make_pairs, trainer_for

from rmlab import UserError
from rmlab.data.trees import TokenTree
from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score
from rmlab.scoring.layout import choose


@pytest.mark.parametrize(
    ("kind", "options", "layout", "reason"),
    [
        ("bloom", {}, "padded", "bloom has an attention of its own"),
        ("falcon", {}, "padded", "falcon has an attention of its own"),
        (
            "qwen3_next",
            {},
            "padded",
            "qwen3_next has an attention of its own|qwen3_next has layers of type",
        ),
        ("gpt_oss", {}, "padded", "shared_prefix is not exact here: its attention takes s_aux"),
        ("gpt2", {"attn_pdrop": 0.1}, "packed", "dropout is on"),
        ("llama", {"attention_dropout": 0.1}, "packed", "dropout is on"),
    ],
)
def test_models_that_do_not_fit_fall_back_with_a_line(kind, options, layout, reason, tokenizer, tmp_path, capsys):
    """And their rewards are those of each response alone."""
    rows = kwise_rows(6)
    model = make_model(kind, **options)
    alone = copy.deepcopy(model).eval()
    trainer = trainer_for(model, tokenizer, tmp_path, disable_dropout=False, prompt_overlap="allow")
    got = trainer.predict(rows).predictions
    printed = capsys.readouterr().out
    assert any(f"layout {layout}: {part}" in printed for part in reason.split("|")), printed
    prepare_for_scoring(alone)
    for tree, rewards in zip(map(TokenTree.of, trainer.get_test_dataloader(rows).dataset), got, strict=True):
        for response, reward in zip(tree.responses, rewards, strict=False):
            assert score(alone, Padded.of([response], 0)).item() == pytest.approx(reward, abs=2e-5)


def test_asking_for_a_layout_that_is_not_exact_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="shared_prefix is not exact: bert is an encoder"):
        trainer_for(make_model("bert"), tokenizer, tmp_path, layout="shared_prefix")
    with pytest.raises(UserError, match="packed is not possible: bloom has an attention of its own"):
        trainer_for(make_model("bloom"), tokenizer, tmp_path, layout="packed")
    with pytest.raises(UserError, match="layout is 'diagonal'"):
        trainer_for(make_model("llama"), tokenizer, tmp_path, layout="diagonal")
    trainer = trainer_for(make_model("gpt_oss"), tokenizer, tmp_path, layout="packed")
    with pytest.raises(UserError, match="packed is not exact for this model: its attention takes s_aux"):
        trainer.predict(kwise_rows(2))


def test_noise_by_row_layers_by_chance_and_router_noise_are_not_shared(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, neftune_noise_alpha=5.0)
    assert (trainer.layout, trainer.scorer.choice.why) == ("padded", "NEFTune scales its noise by the length of a row")
    with pytest.raises(UserError, match="layout=packed does not go with NEFTune"):
        trainer_for(make_model(), tokenizer, tmp_path, neftune_noise_alpha=5.0, layout="packed")
    opt = trainer_for(
        make_model("opt", layerdrop=0.5), tokenizer, tmp_path, kwise_rows(6), disable_dropout=False, max_steps=2
    )
    assert opt.scorer.choice.why == "LayerDrop leaves layers out at random"
    opt.train()
    jitter = make_model("phimoe", sliding_window=None, router_jitter_noise=0.1)
    assert choose(jitter, "auto").layout == "packed"


def test_long_pairs_of_text_train_under_the_default_layout(tokenizer, tmp_path, capsys):
    trainer_for(make_model(), tokenizer, tmp_path, make_pairs(12), max_steps=2).train()
    printed = capsys.readouterr().out
    assert printed.count("layout ") == 1
    assert "layout shared_prefix: qwen3 is causal and has no dropout" in printed
