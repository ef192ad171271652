"""Limits within which a search stays. Imports no torch."""

from pydantic import Field, model_validator

from metantk.options.base import Options, Quantity

NS_OF_MS = 10**6
SIGNS = {"parameters": "≤", "min_parameters": "≥", "multiply_accumulates": "≤"}


class BudgetOptions(Options):
    """Limits of the network that a search finds, without its head."""

    parameters: Quantity | None = Field(
        None, description="Largest number of parameters without the head, such as `20k` or `1.5M`; null: no limit"
    )
    min_parameters: Quantity | None = Field(
        None, description="Smallest number of parameters without the head; null: no limit"
    )
    multiply_accumulates: Quantity | None = Field(
        None,
        description="Largest number of multiply-accumulates for one image, without the head, such as `5M` or "
        "`1.5G`; null: no limit",
    )
    latency_ms: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Largest latency of one image without the head, in milliseconds, on one thread of the CPU that "
        "runs the search; null: no limit",
    )

    @model_validator(mode="after")
    def _numbers_can_be_computed_with(self) -> "BudgetOptions":
        """Counts of a network exceed those of its options, and have a bound of their own (`Quantity`)."""
        if None not in (self.min_parameters, self.parameters) and self.min_parameters > self.parameters:
            raise ValueError(f"min_parameters {self.min_parameters} is above parameters {self.parameters}")
        return self

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for _, limit in self)

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        """Networks are built where latency is limited, for it is measured."""
        return [("backbones", "cells")] if self.latency_ms else []

    @property
    def latency_ns(self) -> int | None:
        """The limit of latency, in nanoseconds."""
        return None if self.latency_ms is None else round(self.latency_ms * NS_OF_MS)

    def describe(self) -> str:
        """The limits, for people."""
        limits = [
            f"{name.removeprefix('min_').replace('_', '-')} {sign} {limit:,}"
            for name, sign in SIGNS.items()
            if (limit := getattr(self, name)) is not None
        ]
        return " and ".join([*limits, *([f"latency ≤ {self.latency_ms:g} ms"] if self.latency_ms else [])])


class Budgeted(Options):
    """What all searches within a budget share."""

    budget: BudgetOptions = BudgetOptions()

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        return [*super().dependencies, *self.budget.dependencies]
