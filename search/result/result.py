"""`SearchResult`: what a search found, how, and as a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ofa.common.files
from ofa.common.errors import UserError
from ofa.space.config import AnyConfig
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit
from search.population.archive import Archive
from search.population.fronts import fittest, non_dominated
from search.result.verification import Verification

SCHEMA_VERSION = 1
MAX_SAMPLES = 500
HOW_TO_MAKE = "python scripts/search_for_device.py"


@dataclass(frozen=True)
class Candidate:
    """One sub-network with its estimated accuracy and the value of each limited quantity, by name."""

    config: AnyConfig
    accuracy: float
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "id": self.config.id,
            "accuracy": self.accuracy,
            "values": self.values,
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> Candidate:
        """Build a candidate of `space` from `to_dict` output."""
        quantities = {str(name): float(value) for name, value in values["values"].items()}
        return cls(space.read(values["config"]), float(values["accuracy"]), quantities)


@dataclass(frozen=True)
class LimitRecord:
    """A limit as the result keeps it: without its estimator; the maximum is None where there is none."""

    name: str
    maximum: float | None
    unit: str

    @property
    def label(self) -> str:
        """Name and unit, for axes and columns."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class SearchResult:
    """Outcome of one search.

    Attributes:
        algorithm: registered name of the algorithm.
        settings: its settings.
        seed: what the caller seeded the search with; None if only a generator was given.
        space_name: name of the space.
        space_fingerprint: fingerprint of the whole space.
        limits: the limits.
        front_costs: names of the limited quantities that the front sets against accuracy.
        ranked: the best feasible candidates, best first (of equal accuracy, the cheaper first).
        front: non-dominated feasible candidates of all seen, cheapest in the first quantity first.
        samples: (cost, accuracy) of up to `MAX_SAMPLES` feasible candidates, evenly spaced in the order seen.
        evaluations: distinct candidates considered, those outside the limits included.
        accuracy_evaluations: those of them that kept the limits and had their accuracy estimated.
        history: highest accuracy after each generation (or batch), from the first feasible candidate on.
        seconds: wall time; not part of equality.
        verification: what was measured, if the search was verified.
    """

    algorithm: str
    settings: dict[str, Any]
    seed: int | None
    space_name: str
    space_fingerprint: str
    limits: tuple[LimitRecord, ...]
    front_costs: tuple[str, ...]
    ranked: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    samples: tuple[tuple[float, float], ...]
    evaluations: int
    accuracy_evaluations: int
    history: tuple[float, ...]
    seconds: float = field(compare=False)
    verification: Verification | None = None

    @property
    def best(self) -> Candidate:
        """The most accurate candidate that keeps all limits."""
        return self.ranked[0]

    def best_within(self, maxima: Sequence[float]) -> Candidate:
        """Return the most accurate candidate of the front inside tighter limits.

        Args:
            maxima: of the first `len(maxima)` limited quantities, in their order and units.

        Raises:
            UserError: if there are more maxima than quantities, or no candidate of the front keeps them;
                with the smallest value of each quantity on the front.
        """
        names = [limit.name for limit in self.limits]
        if len(maxima) > len(names):
            raise UserError(f"{len(maxima)} limits are given; the result has only {', '.join(names)}.")
        bounds = dict(zip(names, maxima, strict=False))
        kept = [c for c in self.front if all(c.values[name] <= most for name, most in bounds.items())]
        if not kept:
            lowest = (f"{name} {min(c.values[name] for c in self.front):.6g}" for name in bounds)
            asked = ", ".join(f"{name} <= {most:g}" for name, most in bounds.items())
            raise UserError(
                f"No candidate of the front keeps {asked}; the smallest values on it are "
                f"{', '.join(lowest)}. Raise the limit."
            )
        return max(kept, key=lambda candidate: candidate.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "schema_version": SCHEMA_VERSION,
            "algorithm": self.algorithm,
            "settings": self.settings,
            "seed": self.seed,
            "space": {"name": self.space_name, "fingerprint": self.space_fingerprint},
            "limits": [dataclasses.asdict(limit) for limit in self.limits],
            "front_costs": list(self.front_costs),
            "evaluations": self.evaluations,
            "accuracy_evaluations": self.accuracy_evaluations,
            "seconds": self.seconds,
            "best": self.best.to_dict(),
            "ranked": [candidate.to_dict() for candidate in self.ranked],
            "front": [candidate.to_dict() for candidate in self.front],
            **({"verification": self.verification.to_dict()} if self.verification else {}),
            "samples": {"cost": [c for c, _ in self.samples], "accuracy": [a for _, a in self.samples]},
            "history": list(self.history),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> SearchResult:
        """Build a result in `space` from `to_dict` output; raises what missing or wrong entries raise."""
        samples = zip(values["samples"]["cost"], values["samples"]["accuracy"], strict=True)
        limits = tuple(LimitRecord(**entry) for entry in values["limits"])
        verification = values.get("verification")
        ranked = tuple(Candidate.from_dict(entry, space) for entry in values["ranked"])
        if not ranked:
            raise ValueError("ranked is empty")
        return cls(
            algorithm=str(values["algorithm"]),
            settings=dict(values["settings"]),
            seed=None if values["seed"] is None else int(values["seed"]),
            space_name=str(values["space"]["name"]),
            space_fingerprint=str(values["space"]["fingerprint"]),
            limits=limits,
            front_costs=tuple(map(str, values["front_costs"])),
            ranked=ranked,
            front=tuple(Candidate.from_dict(entry, space) for entry in values["front"]),
            samples=tuple((float(cost), float(accuracy)) for cost, accuracy in samples),
            evaluations=int(values["evaluations"]),
            accuracy_evaluations=int(values["accuracy_evaluations"]),
            history=tuple(float(value) for value in values["history"]),
            seconds=float(values["seconds"]),
            verification=Verification.from_dict(verification, space) if verification else None,
        )

    def save(self, path: Path, provenance: Mapping[str, str]) -> None:
        """Write the result as JSON, atomically.

        Args:
            path: the file.
            provenance: what the search was made from, e.g. paths and versions of predictor and tables.

        Raises:
            UserError: if the file cannot be written.
        """
        ofa.common.files.write_json(path, {**self.to_dict(), "provenance": dict(provenance)})

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> SearchResult:
        """Read a result that `save` wrote.

        Args:
            path: the file.
            space: the space that was searched.

        Raises:
            UserError: if the file is missing, truncated, of another version or space, or lacks entries.
        """
        values = ofa.common.files.read_json(path, "search result", HOW_TO_MAKE)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"The search result {path} has schema_version {version!r}; expected {SCHEMA_VERSION}. "
                f"Make it again with: {HOW_TO_MAKE}"
            )
        try:
            found = values["space"]["name"], values["space"]["fingerprint"]
            if found[1] != space.fingerprint:
                raise UserError(
                    f"{path} was searched in space {found[0]!r} ({found[1]}); this is {space.name!r} "
                    f"({space.fingerprint}). Search again with predictor and table of this space."
                )
            return cls.from_dict(values, space)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"The search result {path} is damaged ({reason}). Make it again with: {HOW_TO_MAKE}"
            ) from error


def searched_fingerprint(path: Path) -> object:
    """Return the fingerprint of the space that a result was searched in; None if the file does not say."""
    space = ofa.common.files.read_json(path, "search result", HOW_TO_MAKE).get("space")
    return space.get("fingerprint") if isinstance(space, dict) else None


def summarise(
    space: SearchSpace,
    archive: Archive,
    limits: Sequence[Limit],
    algorithm: str,
    settings: Any,
    num_ranked: int,
    history: Sequence[float],
    seconds: float,
    front_costs: int = 1,
    front_size: int | None = None,
) -> SearchResult:
    """Return the result of a search whose candidates are in `archive`; at least one is feasible.

    The front is that of accuracy against the first `front_costs` limited quantities. If it is longer than
    `front_size`, its least crowded members are kept.
    """
    genomes, values, accuracies = archive.feasible()
    costs = values[:, 0]
    ranked = np.lexsort((costs, -accuracies))[:num_ranked]
    front = non_dominated(values[:, :front_costs], accuracies)
    if front_size is not None and len(front) > front_size:
        losses = np.column_stack([values[front, :front_costs], -accuracies[front]])
        front = front[np.sort(fittest(losses, front_size))]
    spaced = np.linspace(0, len(genomes) - 1, min(len(genomes), MAX_SAMPLES)).astype(np.intp)

    def candidates(indices: NDArray[np.intp]) -> tuple[Candidate, ...]:
        return tuple(_candidate(space, limits, genomes[i], values[i], accuracies[i]) for i in indices)

    return SearchResult(
        algorithm=algorithm,
        settings=dataclasses.asdict(settings),
        seed=None,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        limits=tuple(_record(limit) for limit in limits),
        front_costs=tuple(limit.name for limit in limits[:front_costs]),
        ranked=candidates(ranked),
        front=candidates(front),
        samples=tuple(zip(costs[spaced].tolist(), accuracies[spaced].tolist(), strict=True)),
        evaluations=archive.considered,
        accuracy_evaluations=archive.estimated,
        history=tuple(history),
        seconds=seconds,
    )


def _record(limit: Limit) -> LimitRecord:
    return LimitRecord(limit.name, limit.maximum if limit.bounded else None, limit.unit)


def _candidate(
    space: SearchSpace,
    limits: Sequence[Limit],
    genome: Genomes,
    values: NDArray[np.float64],
    accuracy: float,
) -> Candidate:
    named = {limit.name: float(value) for limit, value in zip(limits, values, strict=True)}
    return Candidate(space.config(genome), float(accuracy), named)
