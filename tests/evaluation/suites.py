"""Suites on small files of the public schemas, scored with rewards that a test chooses."""

import json

from rmlab.data.rows import to_comparison
from rmlab.data.trees import prompt_id
from rmlab.evaluation import SUITES
from rmlab.evaluation.result import Result
from rmlab.metrics.scored import ScoredComparison


def said(answer):
    """The text of a response, which may be a message of the assistant."""
    return answer if isinstance(answer, str) else answer[-1]["content"]


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def suite_of(name, **options):
    return SUITES.build(name, options)()


def scored_by(suite, reward):
    """As a model would: reward(row, text of a response) for each."""
    found = []
    for index, row in enumerate(suite.rows):
        c = to_comparison(row, f"row {index}")
        found.append(
            ScoredComparison(
                index=index,
                id=c.id,
                prompt_id=prompt_id(c),
                subset=c.subset or "",
                rewards=[float(reward(row, text)) for text in c.responses],
                lengths=[1] * len(c.responses),
                gold=c.gold or [],
                better=[p.better for p in c.preferences],
                worse=[p.worse for p in c.preferences],
                strength=[p.strength for p in c.preferences],
                probability=[p.probability for p in c.preferences],
            )
        )
    return found


def result_of(suite, reward=lambda row, answer: float(said(answer).rpartition(" ")[2])):
    """Responses end with their reward by default: `the answer 0.7`."""
    return Result.of(suite, scored_by(suite, reward), "suite")


def values(numbers):
    return {name: number.value for name, number in numbers.items()}
