"""`SearchResult`: the outcome of a search, and its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ofa.common.files
from ofa.common.config import build
from ofa.common.display import short_repr, short_text
from ofa.common.errors import UserError
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.plain_values import checked_integer, checked_number, checked_object, checked_text
from ofa.common.reading import read_json
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace
from search.limits.limit import LATENCY, quantity_title
from search.result.verification import Verification

SCHEMA_VERSION = 1


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
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace, names: Sequence[str] = ()) -> Candidate:
        """Build a candidate of `space`, with quantities of these names and others, from `to_dict` output."""
        given = checked_object(values["values"], "values")
        quantities = {name: checked_number(given.get(name), name) for name in (*given, *names)}
        config = space.read(checked_object(values["config"], "config"))
        if values.get("id", config.id) != config.id:
            raise ValueError(f"the id of sub-network {config.id} is {short_repr(values['id'])}")
        return cls(config, checked_number(values["accuracy"], "accuracy"), quantities)


@dataclass(frozen=True)
class LimitRecord:
    """A limit in a result, without its estimator; a maximum of None means infinite."""

    name: str
    maximum: float | None
    unit: str
    kind: str = ""
    target: LatencyTarget | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the target only where there is one."""
        values = dataclasses.asdict(self)
        return values if self.target else {name: v for name, v in values.items() if name != "target"}

    @property
    def label(self) -> str:
        """Title and unit of the quantity, for axes."""
        title, unit = quantity_title(self.name, self.unit)
        return f"{title} [{unit}]" if unit else title

    @property
    def shown_unit(self) -> str:
        """Unit of the quantity for users."""
        return quantity_title(self.name, self.unit)[1]

    @property
    def heading(self) -> str:
        """Title, place and unit of the quantity in lines of their own, for columns."""
        title, unit = quantity_title(self.name, self.unit)
        return "\n".join(part for part in (title.replace(" on ", "\non "), unit) if part)


@dataclass(frozen=True)
class SearchResult:
    """Outcome of one search.

    Attributes:
        algorithm: registered name of the algorithm.
        settings: settings of the algorithm.
        seed: seed of the search; None if only a generator was given.
        space_name: name of the space.
        space_fingerprint: fingerprint of the unrestricted space.
        limits: limits of the search.
        front_costs: names of the limited quantities that form the front with accuracy.
        ranked: the best feasible candidates, best first (of equal accuracy, the cheaper first).
        front: non-dominated feasible candidates, cheapest in the first quantity first.
        samples: (cost, accuracy) of up to `MAX_SAMPLES` feasible candidates, evenly spaced in time.
        evaluations: number of distinct candidates, including infeasible ones.
        accuracy_evaluations: number of feasible candidates whose accuracy was estimated.
        history: highest accuracy after each generation (or batch), from the first feasible candidate on.
        seconds: wall time in seconds; not part of equality.
        verification: measurements, if the search was verified.
        metric: metric of the field `accuracy` of candidates; its direction decides which values are better.
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
    metric: Metric = DEFAULT_METRIC

    @property
    def best(self) -> Candidate:
        """The most accurate candidate that keeps all limits."""
        return self.ranked[0]

    def best_within(self, maxima: Sequence[float]) -> Candidate:
        """Return the most accurate candidate of the front inside tighter limits.

        Args:
            maxima: tighter maxima of the first `len(maxima)` limited quantities, in their order and units.

        Raises:
            UserError: if there are more maxima than quantities, or no candidate of the front keeps them,
                with the range of each quantity on the front.
        """
        names = [limit.name for limit in self.limits]
        if len(maxima) > len(names):
            raise UserError(f"{len(maxima)} limits are given; the result has only {', '.join(names)}.")
        bounds = dict(zip(names, maxima, strict=False))
        candidates = [
            c for c in self.front if all(c.values[name] <= maximum for name, maximum in bounds.items())
        ]
        if not candidates:
            columns = {name: [c.values[name] for c in self.front] for name in bounds}
            ranges = (
                f"{name} from {min(values):.6g} to {max(values):.6g}" for name, values in columns.items()
            )
            bounds_text = ", ".join(f"{name} <= {maximum:g}" for name, maximum in bounds.items())
            raise UserError(
                f"No candidate of the front keeps {bounds_text}; the front has {', '.join(ranges)}. "
                "Raise the limit."
            )
        return max(candidates, key=lambda candidate: self.metric.sign * candidate.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "schema_version": SCHEMA_VERSION,
            "algorithm": self.algorithm,
            "settings": self.settings,
            "seed": self.seed,
            "space": {"name": self.space_name, "fingerprint": self.space_fingerprint},
            "metric": dataclasses.asdict(self.metric),
            "limits": [limit.to_dict() for limit in self.limits],
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
        """Build a result in `space` from `to_dict` output.

        Raises:
            ValueError: if entries are missing or wrong; also KeyError and TypeError.
        """
        samples = zip(values["samples"]["cost"], values["samples"]["accuracy"], strict=True)
        limits = tuple(map(_read_limit, values["limits"]))
        verification = values.get("verification")
        names = [*(limit.name for limit in limits), *values["front_costs"]]
        ranked = tuple(Candidate.from_dict(entry, space, names) for entry in values["ranked"])
        if not ranked:
            raise ValueError("ranked is empty")
        return cls(
            algorithm=checked_text(values["algorithm"], "algorithm"),
            settings=dict(values["settings"]),
            seed=None if values["seed"] is None else checked_integer(values["seed"], "seed"),
            space_name=checked_text(values["space"]["name"], "space.name"),
            space_fingerprint=str(values["space"]["fingerprint"]),
            limits=limits,
            front_costs=tuple(map(str, values["front_costs"])),
            ranked=ranked,
            front=tuple(Candidate.from_dict(entry, space, names) for entry in values["front"]),
            samples=tuple((checked_number(c, "cost"), checked_number(a, "accuracy")) for c, a in samples),
            evaluations=checked_integer(values["evaluations"], "evaluations"),
            accuracy_evaluations=checked_integer(values["accuracy_evaluations"], "accuracy_evaluations"),
            history=tuple(checked_number(value, "history") for value in values["history"]),
            seconds=checked_number(values["seconds"], "seconds", 0),
            verification=Verification.from_dict(verification, space) if verification else None,
            metric=build(Metric, values["metric"], "metric") if "metric" in values else DEFAULT_METRIC,
        )

    def save(self, path: Path, provenance: Mapping[str, str]) -> None:
        """Write the result as JSON, atomically.

        Args:
            path: the file.
            provenance: origin of the search, e.g. paths and versions of predictor and tables.

        Raises:
            UserError: if the file cannot be written.
        """
        ofa.common.files.write_json(path, self.saved_values(provenance))

    def saved_values(self, provenance: Mapping[str, str]) -> dict[str, Any]:
        """Return the plain values of the file that `save` writes."""
        return {**self.to_dict(), "provenance": dict(provenance)}

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> SearchResult:
        """Read a result that `save` wrote.

        Args:
            path: the file.
            space: the space that was searched.

        Raises:
            UserError: if the file is missing, truncated, of another version or space, or lacks entries.
        """
        values = read_json(path, "search result", "search")
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"The search result {path} has schema_version {short_repr(version)}; expected "
                f"{SCHEMA_VERSION}.",
                stage="search",
            )
        try:
            origin = values["space"]["name"], values["space"]["fingerprint"]
            if origin[1] != space.fingerprint:
                raise UserError(
                    f"{path} was searched in space {short_repr(origin[0])} ({short_text(origin[1])}); "
                    f"this is {space.name!r} ({space.fingerprint}). Search again with predictor and table of "
                    "this space."
                )
            return cls.from_dict(values, space)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"The search result {path} is damaged ({reason}).", stage="search") from error


def convert_to_metric(result: SearchResult, metric: Metric) -> SearchResult:
    """Convert the result of a search that maximised `metric.sign * value` to values of the metric."""

    def turned(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        return tuple(dataclasses.replace(c, accuracy=metric.sign * c.accuracy) for c in candidates)

    if metric.higher_is_better:
        return dataclasses.replace(result, metric=metric)
    verification = result.verification
    if verification is not None:
        networks = (dataclasses.replace(n, accuracy=-n.accuracy) for n in verification.networks)
        verification = dataclasses.replace(verification, networks=tuple(networks))
    return dataclasses.replace(
        result,
        metric=metric,
        ranked=turned(result.ranked),
        front=turned(result.front),
        samples=tuple((cost, -accuracy) for cost, accuracy in result.samples),
        history=tuple(-accuracy for accuracy in result.history),
        verification=verification,
    )


def searched_fingerprint(path: Path) -> object:
    """Return the fingerprint of the space of a result file; None if the file has none."""
    space = read_json(path, "search result", "search").get("space")
    return space.get("fingerprint") if isinstance(space, dict) else None


def _read_limit(values: Mapping[str, Any]) -> LimitRecord:
    """Read a limit; in older files, which lack the kind, its name determines the kind."""
    kind = LATENCY if str(values["name"]).startswith("latency") else ""
    return build(LimitRecord, {"kind": kind, **values}, "limit")
