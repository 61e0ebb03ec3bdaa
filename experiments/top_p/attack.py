"""What an observer infers from an update: about the board's task, and about its samples.

The observer is honest but curious, and sees what the aggregator and the broker see: the spec with
its seeds, the published version, and one board's update as it is decoded. It does not see support
samples, query samples, or the local layers that came of them, but it knows from which seeded start
the board reconstructed. A better attack may exist: what is found here is the least that leaks.

On sines the observer simulates boards of its own from the same version, with sines that it knows,
and looks for those whose changes lie next to the update: whoever can simulate a board can do so. It
infers the sine as their mean.

On characters it asks of a drawing whether the board updated from it. An update goes against the
gradients of the samples behind it, so the score is the cosine of the update and the negative
gradient of the candidate's loss, under the label that suits best, as the observer does not know
which class the board gave it. Such scores follow Nasr, Shokri, Houmansadr, "Comprehensive privacy
analysis of deep learning", 2019, and Melis et al., "Exploiting unintended feature leakage in
collaborative learning", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.methods.settings import Setting, spec_of
from experiments.methods.tinymetafed import Recipe, TinyMetaFed
from protocol import sparse
from simulation.engine.fixed import Engine
from simulation.engine.float64 import UNIT, VALUE, FloatEngine
from simulation.engine.passes import ONLINE
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.sines import SineTasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from experiments.harness.scenario import Scenario
    from experiments.harness.study import Outcome
    from protocol.fixed import Words
    from protocol.spec.spec import Spec

    Reals = NDArray[np.float64]

NEAREST: Final = 10
"""The observer's own boards whose sines it averages."""
AT_ONCE: Final = 50
"""Boards attacked at a time."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A job: one observer of one fleet, at every P and width of values."""

    scenario: Scenario
    local: tuple[int, ...] | None
    """Places of the local layers, as in :class:`Setting`."""
    rounds: int
    """Of the scenario's, after which the attacked boards learn."""
    boards: int
    """Attacked."""
    own: int
    """Boards that the observer simulates, on sines."""
    percents: tuple[float, ...]
    bits: tuple[int, ...]
    step: float = 1.0
    """Factor of the server's step."""
    seed: int = 0


def attack(job: Attack) -> Outcome:
    """What the observer infers at every P and width.

    Returns:
        ``inferences``, a list of ``percent``, ``value_bits``, ``secret``, ``local_known`` and
        ``value``. The value of a ``task`` is the share of a sine's square that is inferred, 1 for
        all and 0 for no more than a guess without an update. Of a ``drawing`` it is the AUC of
        separating a query drawing from another one of the same character; of a ``character``, from
        one of another board's characters; 0.5 is a guess. ``local_known``: by an observer who has
        the reconstructed local layers, which says how much their absence hides.
    """
    setting = Setting(
        scenario=job.scenario, tasks=1, points=1, local=job.local, step=job.step, seed=job.seed
    )
    spec = spec_of(setting)
    learned, _ = job.scenario.tasks()
    fleet = TinyMetaFed(Recipe(spec), learned, job.seed)
    for _ in zip(range(job.rounds), fleet.play(), strict=False):
        pass
    published = fleet.published
    rng = np.random.default_rng((job.seed, job.rounds))
    if isinstance(learned, SineTasks):
        return _find_sines(job, spec, published, learned, rng)
    assert isinstance(learned, CharacterTasks)  # noqa: S101 - there are no others here
    return _find_drawings(job, spec, published, learned, rng)


def _learn(
    spec: Spec, published: NDArray[np.int16], x: Words, y: Words, rng: np.random.Generator
) -> tuple[Words, Words | None]:
    """What boards change in the shared layers, and their own; as in :class:`Trainer`."""
    engine = Engine(spec, x.shape[1])
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([int(seed) for seed in rng.integers(2**32, size=engine.boards)])
    support, query = spec.training.support, spec.training.query
    ONLINE.learn(engine, x[:support], y[:support], local=spec.has_local)
    ONLINE.learn(engine, x[support : support + query], y[support : support + query], local=False)
    return engine.flat(local=False) - published, (
        engine.flat(local=True) if spec.has_local else None
    )


def _sent(spec: Spec, changes: Words, percent: float, bits: int) -> Reals:
    """Updates as they are decoded; zero where nothing was sent."""
    top = sparse.top_count(spec.global_count, percent)
    blocks = sparse.encode_all(changes, top, spec.tensors, bits)
    seen = np.zeros(changes.shape)
    for row, block in zip(seen, blocks, strict=True):
        found = sparse.decode(block, spec.tensors)
        row[found.indices] = found.changes
    return seen


# --- Sines


def _find_sines(
    job: Attack,
    spec: Spec,
    published: NDArray[np.int16],
    tasks: SineTasks,
    rng: np.random.Generator,
) -> Outcome:
    x, y, truth = _sines(tasks, job.boards, rng)
    changes, _ = _learn(spec, published, x, y, rng)
    x, y, known = _sines(tasks, job.own, rng)
    own = _learn(spec, published, x, y, rng)[0].astype(np.float64)
    inferences = []
    for percent in job.percents:
        for bits in job.bits:
            seen = _sent(spec, changes, percent, bits)
            # Squared distances over what was sent, but for what all of a board's have in common.
            distance = (seen != 0).astype(np.float64) @ (own**2).T - 2 * seen @ own.T
            nearest = np.argpartition(distance, NEAREST, axis=1)[:, :NEAREST]
            wrong = ((known[nearest].mean(axis=1) - truth) ** 2).sum()
            blind = ((known.mean(axis=0) - truth) ** 2).sum()
            inferences.append(
                {
                    "percent": percent,
                    "value_bits": bits,
                    "secret": "task",
                    "local_known": False,
                    "value": float(1 - wrong / blind),
                }
            )
    return {"inferences": inferences}


def _sines(tasks: SineTasks, boards: int, rng: np.random.Generator) -> tuple[Words, Words, Reals]:
    """Boards' samples, and the sine of each by its parts of sin x and cos x; shape (boards, 2).

    The parts are fitted to the samples, which determine them but for rounding.
    """
    x, y = tasks.draw(rng, boards)
    at, value = (part[..., 0].T * VALUE for part in (x, y))
    basis = np.stack([np.sin(at), np.cos(at)], axis=2)
    return x, y, (np.linalg.pinv(basis) @ value[..., None])[..., 0]


# --- Drawings


def _find_drawings(
    job: Attack,
    spec: Spec,
    published: NDArray[np.int16],
    tasks: CharacterTasks,
    rng: np.random.Generator,
) -> Outcome:
    """Scores of a member, another drawing of its character, and another board's, of each board."""
    more = replace(tasks, query=tasks.query + tasks.ways)  # The last ones are not learned from.
    scores: dict[tuple[float, int, bool], list[Reals]] = {}
    for at in range(0, job.boards, AT_ONCE):
        boards = min(AT_ONCE, job.boards - at)
        x, y = more.draw(rng, boards)
        changes, own = _learn(spec, published, x, y, rng)
        candidates = _candidates(x, y, spec, rng)
        gradients = {False: _gradients(spec, published, candidates, None)}
        if own is not None:
            gradients[True] = _gradients(spec, published, candidates, own)
        for percent in job.percents:
            for bits in job.bits:
                seen = _sent(spec, changes, percent, bits)
                for local_known, each in gradients.items():
                    score = _cosines(seen, each)
                    scores.setdefault((percent, bits, local_known), []).append(score)
    inferences = []
    for (percent, bits, local_known), parts in scores.items():
        member, same, other = np.concatenate(parts, axis=1)
        inferences += [
            {
                "percent": percent,
                "value_bits": bits,
                "secret": secret,
                "local_known": local_known,
                "value": auc(member, others),
            }
            for secret, others in (("drawing", same), ("character", other))
        ]
    return {"inferences": inferences}


def _candidates(x: Words, y: Words, spec: Spec, rng: np.random.Generator) -> Words:
    """A query drawing, an unseen one of the same character, and another board's; (3, boards, n)."""
    start, end = spec.training.support, spec.training.support + spec.training.query
    boards = np.arange(x.shape[1])
    unseen = rng.integers(end, len(x), len(boards))
    is_same = y[start:end, :, 0] == y[unseen, boards, 0]
    member = start + np.array([rng.choice(np.flatnonzero(column)) for column in is_same.T])
    return np.stack([x[member, boards], x[unseen, boards], np.roll(x[unseen, boards], 1, axis=0)])


def _gradients(
    spec: Spec, published: NDArray[np.int16], candidates: Words, own: Words | None
) -> Reals:
    """Gradients by the shared parameters under each label; shape (3, boards, labels, n).

    Args:
        spec: the fleet's.
        published: the version.
        candidates: shape (3, boards, inputs).
        own: the boards' local parameters, shape (boards, n); None for the seeded start.
    """
    kinds, boards, _ = candidates.shape
    labels = spec.layers[-1].outputs
    engine = FloatEngine(spec, kinds * boards * labels)
    engine.load(published, local=False)
    if own is None:
        engine.load(spec.local_start(), local=True)
    else:
        _load_each(engine, np.repeat(np.tile(own, (kinds, 1)), labels, axis=0))
    x = np.repeat(candidates.reshape(kinds * boards, -1), labels, axis=0)
    y = np.tile(np.arange(labels), kinds * boards)[:, None]
    engine.step(x, y, local=False)
    gradients = (published - engine.flat(local=False)) * UNIT / spec.training.rate_global
    return gradients.reshape(kinds, boards, labels, -1)


def _load_each(engine: FloatEngine, own: NDArray[np.number]) -> None:
    """Give each board local parameters of its own, shape (boards, n)."""
    end = 0
    for layer, w in zip(engine.layers, engine.weights, strict=True):
        if layer.local:
            start, end = end, end + layer.parameters
            w[:] = own[:, start:end].reshape(w.shape) * UNIT


def _cosines(seen: Reals, gradients: Reals) -> Reals:
    """Of the updates and the negative gradients where something was sent; shape (3, boards).

    Under the label that suits best.
    """
    dots = -np.einsum("bn,kbln->kbl", seen, gradients)
    lengths = np.einsum("bn,kbln->kbl", (seen != 0).astype(np.float64), gradients**2)
    cosines: Reals = (dots / np.sqrt(np.maximum(lengths, 1e-30))).max(axis=2)
    cosines /= np.sqrt(np.maximum((seen**2).sum(axis=1), 1e-30))
    return cosines


def auc(members: Sequence[float] | Reals, others: Sequence[float] | Reals) -> float:
    """The chance that a member's score is above another's (Mann and Whitney, 1947)."""
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to load

    count = len(members)
    ranks = rankdata(np.concatenate([members, others]))
    above = ranks[:count].sum() - count * (count + 1) / 2
    return float(above / (count * len(others)))
