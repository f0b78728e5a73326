# SPDX-License-Identifier: GPL-2.0-only
"""The seed mail's claims A to D, each put to random histories."""

from dataclasses import dataclass

from rmaplab.check.ablation import Verdict, ablate

__all__ = ["CLAIMS", "Claim", "Evidence", "Trial", "judge"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One ablation and what it stands for.

    must_hold: the claim (or its reading) asks that nothing breaks; otherwise the trial shows the limit of the claim
    """

    text: str
    design: str
    dropped: tuple[int, ...]
    assume: tuple[str, ...]
    must_hold: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, in one reading."""

    name: str
    text: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the trials of a claim gave."""

    claim: Claim
    verdicts: tuple[Verdict, ...]

    @property
    def holds(self) -> bool:
        """True if every trial that must hold did, in all its histories."""
        return all(
            verdict.failure is None
            for trial, verdict in zip(self.claim.trials, self.verdicts, strict=True)
            if trial.must_hold
        )


CLAIMS = (
    Claim(
        "A",
        "an app never forks: hooks 5 and 6 can go",
        (
            Trial("gki without hooks 5 and 6, never-fork", "gki", (5, 6), ("never-fork",), True),
            Trial("the same, and one process forks after all", "gki", (5, 6), (), False),
            Trial("gki_nofork, which copies instead, and processes fork", "gki_nofork", (), (), False),
        ),
    ),
    Claim(
        "B, as written",
        "mappings rewritten at the upgrade: hooks 4 and 5 become one",
        (Trial("gki_sync without hook 4", "gki_sync", (4,), (), True),),
    ),
    Claim(
        "B, hooks 5 and 6",
        "mappings rewritten at the upgrade: hook 6 goes into hook 5",
        (
            Trial("gki_sync, whose hook 6 is mainline's", "gki_sync", (), (), True),
            Trial("gki_sync without hook 5", "gki_sync", (5,), (), False),
        ),
    ),
    Claim(
        "C",
        "base 0 only: root VMA and reference count can go",
        (
            Trial("gki_mm, which has neither", "gki_mm", (), (), True),
            Trial("gki at base 0, root VMA kept, without hook 8", "gki", (8,), ("base-0",), False),
        ),
    ),
    Claim(
        "D",
        "with C, folio->mapping names the mm, index locates the VMA",
        (
            Trial("gki_mm", "gki_mm", (), (), True),
            Trial("gki_mm without hook 9: moved pages leave base 0", "gki_mm", (9,), (), False),
            Trial("gki_mm without hook 10: swapped-in pages", "gki_mm", (10,), (), False),
        ),
    ),
)


def judge(claim: Claim, *, histories: int, seed: int) -> Evidence:
    """Run the trials of `claim`."""
    return Evidence(
        claim,
        tuple(
            ablate(trial.design, trial.dropped, trial.assume, histories=histories, seed=seed) for trial in claim.trials
        ),
    )
