"""What the scoring room is told, with its defaults."""

from dataclasses import dataclass

from rmlab.messages import check_one_of

LAYOUTS = ("auto", "shared_prefix", "packed", "padded")


@dataclass
class ScoringConfig:
    """The `scoring` node of a config."""

    layout: str = "auto"

    def check(self) -> None:
        """UserError for an unknown layout, with the nearest known one."""
        check_one_of("scoring.layout", self.layout, LAYOUTS)
