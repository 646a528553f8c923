"""The model: any AutoModelForSequenceClassification with one output, its tokenizer, its adapter. Knows no layouts."""
