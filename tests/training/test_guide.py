"""The example of Hugging Face's reward modelling guide, with its import changed and gpt2 read from a local folder."""

import torch
from conftest import make_model, make_pairs

PAIRS = 24


def test_the_guide_runs_word_for_word(tokenizer, tmp_path):
    gpt2 = str(tmp_path / "gpt2")
    make_model("gpt2").save_pretrained(gpt2)
    tokenizer.pad_token = tokenizer.eos_token  # as scripts for gpt2 do
    tokenizer.save_pretrained(gpt2)
    scores = {"score_chosen": [3.0 + n % 3 for n in range(PAIRS)], "score_rejected": [1.0] * PAIRS}
    raw = make_pairs(PAIRS, **scores)

    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rmlab import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(gpt2)
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    peft_config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        inference_mode=False,
        r=8,
        lora_alpha=32,
        lora_dropout=0.1,
    )

    def tokenize(row):
        chosen = tokenizer(row["prompt"] + row["chosen"])
        rejected = tokenizer(row["prompt"] + row["rejected"])
        return {
            "input_ids_chosen": chosen["input_ids"],
            "attention_mask_chosen": chosen["attention_mask"],
            "input_ids_rejected": rejected["input_ids"],
            "attention_mask_rejected": rejected["attention_mask"],
        }

    dataset = raw.map(tokenize)

    def add_margin(row):
        # Assume you have a score_chosen and score_rejected columns that you want to use to compute the margin
        return {"margin": row["score_chosen"] - row["score_rejected"]}

    dataset = dataset.map(add_margin)

    training_args = RewardConfig(
        output_dir=str(tmp_path / "out"),
        center_rewards_coefficient=0.01,
        report_to="none",
        use_cpu=True,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        logging_steps=1,
    )
    trainer = RewardTrainer(
        model=model,
        args=training_args,
        tokenizer=tokenizer,
        train_dataset=dataset,
        peft_config=peft_config,
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()

    after = dict(trainer.model.named_parameters())
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert all("lora_" in n or "modules_to_save" in n for n in changed)
    assert any("lora_B" in n for n in changed)
    assert any("score.modules_to_save" in n for n in changed)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"accuracy", "gap_mean", "chosen_mean", "loss_bradley_terry", "loss_center"} <= logs[-1].keys()
    terms = {t.name: (t.weight, t.function.keywords) for t in trainer.loss_terms}
    assert terms == {"bradley_terry": (1.0, {"margin": 1.0}), "center": (0.01, {})}
    assert sorted(trainer.train_dataset["strength"][0]) == [2.0]
