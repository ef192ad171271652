"""Limits within which a search stays. Imports no torch."""

from pydantic import Field, model_validator

from metantk.options.base import Options, Quantity


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

    def describe(self) -> str:
        """The limits, for people."""
        signs = {"parameters": "≤", "min_parameters": "≥", "multiply_accumulates": "≤"}
        return " and ".join(
            f"{name.removeprefix('min_').replace('_', '-')} {signs[name]} {limit:,}"
            for name, limit in self
            if limit is not None
        )
