"""Adapters through RewardTrainer: trained on, fit for their base, with the tokens of a template; and optimizers."""

import pytest
import torch
from conftest import make_model, make_pairs, rewards_of, trainer_for
from datasets import Dataset
from peft import LoraConfig, PeftModel
from scripts import LORA, arguments, saved_adapter
from transformers import AutoModelForSequenceClassification

from rmlab import RewardTrainer, UserError
from rmlab.data.tokenizer import build_tokenizer
from rmlab.model.export import export

# ---- adapters and optimizers ----


def test_the_folder_of_an_adapter_is_trained_on(tokenizer, tmp_path):
    adapter, _, rewards = saved_adapter(tokenizer, tmp_path)
    trainer = RewardTrainer(
        str(adapter), arguments(tmp_path, learning_rate=0.01, max_steps=2), train_dataset=make_pairs(12),
        processing_class=tokenizer,
    )  # fmt: skip
    assert isinstance(trainer.model, PeftModel)
    assert torch.allclose(rewards_of(trainer, make_pairs(5, seed=3)), rewards, atol=1e-5)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("lora_" in name for name in before)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert all(not torch.equal(p, after[n]) for n, p in before.items() if "lora_B" in n or "score" in n)


@pytest.mark.parametrize("bias", ["none", "all"])
def test_an_optimizer_that_lacks_what_is_trained_is_refused(bias, tokenizer, tmp_path):
    """All of it, or all but some that it holds (Qwen 2 has biases)."""
    model, config = make_model("qwen2"), LoraConfig(**LORA, bias=bias)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UserError, match=r"optimizers: \d+ of its \d+ parameters are not trained"):
        trainer_for(model, tokenizer, tmp_path, make_pairs(8), optimizers=(optimizer, None), peft_config=config)


def test_an_optimizer_of_all_parameters_trains_those_that_are_not_frozen(tokenizer, tmp_path):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"optimizers": (optimizer, None), "train_last_layers": 0, "max_steps": 1}
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8), **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    assert [name for name, p in model.named_parameters() if not torch.equal(p, before[name])] == ["score.weight"]


def test_an_optimizer_of_what_is_trained_trains(tokenizer, tmp_path):
    model = make_model()
    optimizer = torch.optim.SGD(model.score.parameters(), lr=0.1)
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8), optimizers=(optimizer, None), max_steps=1)
    before = model.score.weight.detach().clone()
    trainer.train()
    assert not torch.equal(model.score.weight, before)


@pytest.mark.parametrize("place", ["out/adapter", "saved"])
def test_a_pad_token_that_was_added_leaves_the_adapter_fit_for_its_base(place, tmp_path):
    """A vocabulary without a token to spare: a new one is one beyond the embedding."""
    tokenizer = build_tokenizer()
    base = make_model(vocab_size=len(tokenizer))
    base.save_pretrained(tmp_path / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    trainer = RewardTrainer(
        str(tmp_path / "base"), arguments(tmp_path, learning_rate=0.01, max_steps=3, pad_token="<|one more|>"),
        train_dataset=make_pairs(12), processing_class=tokenizer, peft_config=LoraConfig(**LORA),
    )  # fmt: skip
    assert trainer.model.get_input_embeddings().weight.shape[0] == len(tokenizer) > plain.config.vocab_size
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    export(trainer.model, tokenizer, tmp_path / "out" / "model")
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / place)).eval()
    ids = torch.tensor([[5, 6, 7, 2]])
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model").eval()
    assert loaded(input_ids=ids).logits.item() == pytest.approx(merged(input_ids=ids).logits.item(), abs=1e-5)


def test_a_peft_config_may_be_a_dict(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config={"peft_type": "LORA", **LORA})
    assert trainer.model.peft_config["default"].r == 4
    with pytest.raises(UserError, match="peft: "):
        trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config={"rank": 4})


def test_a_peft_config_is_not_changed_by_a_trainer(tokenizer, tmp_path):
    config = LoraConfig(**LORA)
    before = config.to_dict()
    trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config=config, train_last_layers=1)
    assert config.to_dict() == before
    of_dict = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config=LORA, train_last_layers=1)
    assert not any("layers.0" in n for n, p in of_dict.model.named_parameters() if p.requires_grad)


# ---- templates ----


@pytest.fixture
def other(tmp_path):
    """The folder of a tokenizer with a template of its own tokens, the last of which is its EOS."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"], "eos_token": "<|end|>"})
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}<|end|>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "other")
    return str(tmp_path / "other")


CHATS = Dataset.from_list(
    [
        {s: [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": s}] for s in ("chosen", "rejected")}
        for n in range(4)
    ]
)


def test_a_template_of_another_tokenizer_brings_its_tokens_and_its_eos(other, tmp_path):
    tokenizer, model = build_tokenizer(), make_model(vocab_size=620)
    trainer = RewardTrainer(
        model, arguments(tmp_path, chat_template_path=other, max_steps=1), train_dataset=CHATS,
        processing_class=tokenizer,
    )  # fmt: skip
    assert tokenizer.eos_token == "<|end|>"
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    tree = trainer.train_dataset[0]
    ids = tree["prefix"] + tree["suffixes"][0]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|turn|>")) == 2
    assert ids[-1] == tokenizer.eos_token_id
    trainer.train()


@pytest.mark.parametrize("rows", [None, 768])
def test_an_adapter_trains_and_keeps_the_embeddings_of_new_tokens(rows, other, tmp_path):
    """Beyond the embedding, and in a row of it that no token had."""
    tokenizer = build_tokenizer()
    make_model(vocab_size=rows or len(tokenizer)).save_pretrained(tmp_path / "base")
    args = arguments(tmp_path, chat_template_path=other, max_steps=3, learning_rate=0.01)
    trainer = RewardTrainer(
        str(tmp_path / "base"), args, train_dataset=CHATS, processing_class=tokenizer, peft_config=LoraConfig(**LORA)
    )
    turn = torch.tensor(tokenizer.convert_tokens_to_ids("<|turn|>"))
    before = trainer.model.get_input_embeddings()(turn).detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.get_input_embeddings()(turn), before)
    rewards = rewards_of(trainer, CHATS)
    trainer.save_model(str(tmp_path / "adapter"))
    export(trainer.model, tokenizer, tmp_path / "out" / "model")
    for place in ("adapter", "out/adapter", "out/model"):
        again = RewardTrainer(str(tmp_path / place), arguments(tmp_path))
        assert torch.allclose(rewards_of(again, CHATS), rewards, atol=1e-5), place


def test_a_method_that_cannot_train_new_tokens_is_refused(other, tmp_path):
    with pytest.raises(UserError, match="brings 2 new tokens, whose embeddings this peft method does not train"):
        RewardTrainer(
            make_model(), arguments(tmp_path, chat_template_path=other), processing_class=build_tokenizer(),
            peft_config={"peft_type": "ia3", "target_modules": ["k_proj"], "feedforward_modules": []},
        )  # fmt: skip
