"""The stages of curation in their order. A new one is a file here and a row."""

from collections.abc import Mapping

from perilune.curation.stages.balance import Balance
from perilune.curation.stages.clean import Clean
from perilune.curation.stages.difficulty import Difficulty, Guesses
from perilune.curation.stages.duplicates import Duplicates
from perilune.curation.stages.overlap import Overlap
from perilune.curation.stages.stage import Stage
from perilune.curation.stages.tags import Tags
from perilune.curation.stages.types import Types
from perilune.curation.stages.verifiable import Verifiable

STAGES: Mapping[str, type[Stage]] = {
    "clean": Clean,
    "duplicates": Duplicates,
    "overlap": Overlap,
    "types": Types,
    "verifiable": Verifiable,
    "difficulty": Difficulty,
    "guesses": Guesses,
    "tags": Tags,
    "balance": Balance,
}
