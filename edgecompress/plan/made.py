"""A candidate and what the compiler made of it: what the next proposal learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecompress.plan.account import as_report
from edgecompress.plan.candidates import Candidate, Problem, propose
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import corrections_from
from edgecompress.plan.latency import DECODING
from edgecompress.records import Prediction


@dataclass(frozen=True)
class Made:
    """A candidate, the problem it was proposed for, and the compiler's account of it."""

    candidate: Candidate
    problem: Problem
    exact: Prediction

    @property
    def fits(self) -> bool:
        return self.problem.fits_exactly(self.exact)

    def learned(self) -> Problem:
        return learned_from(self.problem, self.candidate, self.exact)

    def for_the_next(self, problem: Problem) -> Problem:
        """Where time is limited, with what decoding takes: it is much the same in every mixture."""
        known = (self.problem if self.fits else self.learned()).corrections
        factor, timed = known.get(DECODING), problem.budget.latency_us is not None
        if not timed or factor is None or factor == problem.corrections.get(DECODING):
            return problem
        return replace(problem, corrections={**problem.corrections, DECODING: factor})


def proposed_alone(problem: Problem, choices: Choices, name: str) -> Candidate | None:
    """One candidate; None where it is not possible."""
    found = propose(problem, choices, [name])
    return next((item for item in found if item.name == name), None)


def learned_from(problem: Problem, candidate: Candidate, exact: Prediction) -> Problem:
    """The problem with the table corrected by what a candidate really compiles to."""
    guessed = candidate.predicted
    learned = corrections_from(guessed, as_report(exact), problem.corrections)
    if guessed.decoding_instructions and exact.decoding_instructions:
        factor = exact.decoding_instructions / guessed.decoding_instructions
        learned[DECODING] = factor * learned.get(DECODING, 1.0)
    return replace(problem, corrections=learned)
