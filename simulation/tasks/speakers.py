"""Keywords as they are said in homes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulation.tasks.base import Skew, Tasks, classes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.tasks.keywords import Keywords


@dataclass(frozen=True)
class SpeakerTasks(Tasks):
    """A board lives in a home, and learns the keywords that it is to know there.

    Which keywords these are, and which is which class, is up to the home. No clip is in both halves
    of a task. Half of the public speakers said most keywords once, so that there would be nothing
    to ask a home of one: homes are of several, or of one who said the keywords twice.
    """

    features: Words
    """Shape (versions, clips, values): a clip may be heard in several versions."""
    keyword: NDArray[np.int64]
    """Shape (clips,)."""
    speaker: NDArray[np.int64]
    """Shape (clips,)."""
    voices: int
    """Speakers in a home."""
    ways: int
    """Keywords of a home."""
    support: int
    query: int
    settled: bool = False
    """Whether a board stays in one home; else it is in another one in each round."""
    skew: Skew | None = None

    @classmethod
    def of(  # noqa: PLR0913 - all but three are flags
        cls,
        spec: Spec,
        data: Keywords,
        features: Words,
        *,
        voices: int,
        settled: bool = False,
        skew: Skew | None = None,
    ) -> SpeakerTasks:
        """Tasks for a spec; ``features`` are those of the data's clips."""
        flat = features.reshape(*features.shape[:2], -1)
        training, ways = spec.training, spec.layers[-1].outputs
        return cls(
            features=flat,
            keyword=data.keyword,
            speaker=data.speaker,
            voices=voices,
            ways=ways,
            support=training.support,
            query=training.query,
            settled=settled,
            skew=skew,
        )

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """What is said in a home."""
        del round_
        said = self._home(np.random.default_rng(board) if self.settled else rng)
        x, y = [], []
        for half, samples in ((0, self.support), (1, self.query)):
            for way in classes_of(rng, self.ways, samples, board, self.skew):
                clip = rng.choice(said[way][half::2])
                x.append(self.features[rng.integers(len(self.features)), clip])
                y.append(way)
        return np.array(x), np.array(y)[:, None]

    @property
    def pooled_outputs(self) -> int:
        """The keywords."""
        return int(self.keyword.max()) + 1

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Clips, and which keyword it is."""
        clips = rng.integers(len(self.keyword), size=samples)
        versions = rng.integers(len(self.features), size=samples)
        return self.features[versions, clips], self.keyword[clips][:, None]

    def _home(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """The clips of each keyword in a home where each was said twice, in random order."""
        while True:
            home = rng.choice(self.speaker.max() + 1, self.voices, replace=False)
            keywords = rng.choice(self.keyword.max() + 1, self.ways, replace=False)
            clips = rng.permutation(np.flatnonzero(np.isin(self.speaker, home)))
            said = [clips[self.keyword[clips] == keyword] for keyword in keywords]
            if min(len(few) for few in said) >= 2:
                return said
