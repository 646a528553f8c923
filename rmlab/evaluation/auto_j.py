"""Auto-J, pairwise (Li et al. 2024, arXiv 2310.05470): 1,392 pairs on 58 scenarios in 8 groups; some labels are ties.

agreement: a verdict is one of three, and a tie is right where the label is one. A reward model hardly ever gives two
responses the same reward, so it loses the label ties; agreement without ties leaves them out.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.chat import asked
from rmlab.evaluation.items import Totals, over_items
from rmlab.evaluation.read import Part, read
from rmlab.messages import UserError
from rmlab.metrics.evaluate import decisions
from rmlab.metrics.scored import ScoredComparison

GROUPS = {
    "Summarization": "post_summarization text_summarization note_summarization",
    "Exam Questions": "math_reasoning solving_exam_question_with_math solving_exam_question_without_math",
    "Code": "code_simplification code_generation explaining_code code_correction_rewriting code_to_code_translation",
    "Rewriting": "text_simplification language_polishing instructional_rewriting text_correction paraphrasing",
    "Creative Writing": (
        "writing_song_lyrics writing_social_media_post writing_blog_post writing_personal_essay creative_writing "
        "writing_advertisement writing_marketing_materials writing_presentation_script counterfactual"
    ),
    "Functional Writing": (
        "writing_product_description writing_job_application writing_news_article writing_biography writing_email "
        "writing_legal_document writing_technical_document writing_scientific_paper functional_writing "
        "writing_cooking_recipe"
    ),
    "General Communication": (
        "asking_how_to_question open_question analyzing_general explaining_general seeking_advice recommendation "
        "value_judgement verifying_fact chitchat roleplay planning brainstorming"
    ),
    "NLP Tasks": (
        "ranking text_to_text_translation data_analysis classification_identification title_generation "
        "question_generation reading_comprehension keywords_extraction information_extraction topic_modeling others"
    ),
}
GROUP_OF = {scenario: group for group, scenarios in GROUPS.items() for scenario in scenarios.split()}
PREFERENCES = (
    {"better": 0, "worse": 1},
    {"better": 1, "worse": 0},
    {"better": 0, "worse": 1, "probability": 0.5},
)
GOLD = ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5])
DECIDED = "without ties"


@SUITES.register
def auto_j(*, path: str | None) -> Suite:
    """path: the file testdata_pairwise.jsonl of the authors' repository."""
    rows = []
    for table in read(path, Part("test")):
        table.need("scenario", "label", "prompt", "response 1", "response 2")
        for n, row in enumerate(table.rows):
            group, label = GROUP_OF.get(row["scenario"]), row["label"]
            if group is None or label not in (0, 1, 2):
                raise UserError(f"{table.where(n)}: unknown scenario {row['scenario']!r} or label {label!r} (0, 1, 2)")
            responses, preference = [row["response 1"], row["response 2"]], [PREFERENCES[label]]
            kept = {"prompt": asked(row["prompt"]), "responses": responses, "preferences": preference}
            rows.append({**kept, "gold_rewards": GOLD[label], "id": f"{row['scenario']}-{n}", "subset": group})
    return Suite(rows, items, totals)


def items(scored: Sequence[ScoredComparison]) -> list[Item]:
    """Each pair once, and each whose label is no tie once more."""
    decided = [c for c in scored if c.gold[0] != c.gold[1]]
    return [*(item(c, c.subset) for c in scored), *(item(c, f"{c.subset} {DECIDED}") for c in decided)]


def item(comparison: ScoredComparison, subset: str) -> Item:
    """1 where the rewards have the order, or the tie, of the label."""
    right = order(comparison.rewards) == order(comparison.gold)
    chance = 0.5 if order(comparison.gold) else 0.0
    return Item(comparison.id, comparison.prompt_id, subset, float(right), (comparison.index,), chance)


def order(values: Sequence[float]) -> float:
    """1: the first is more, -1: the second, 0: a tie."""
    return float(decisions(np.array(values[0] - values[1])))


def totals(counts: Mapping[str, int]) -> Totals:
    """The agreement over all pairs, and that over those whose label is no tie."""
    both: dict[str, list[str]] = {
        "agreement": [subset for subset in counts if not subset.endswith(DECIDED)],
        f"agreement {DECIDED}": [subset for subset in counts if subset.endswith(DECIDED)],
    }
    return {name: over_items(counts, subsets) for name, subsets in both.items() if subsets}
