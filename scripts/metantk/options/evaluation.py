"""Options of the stage evaluate_episodes. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, Name, Need, Options, Seed

Classifier = Literal["logistic_regression", "svm"]


class EvaluationOptions(Options):
    """Few-shot episodes of the test split (stage evaluate_episodes)."""

    episodes: int = Field(1000, ge=2, description="Test episodes for each number of shots")
    ways: int = Field(5, ge=2, description="Classes of an episode")
    shots: list[Count] = Field(
        [1, 5], min_length=1, description="Support images of each class; one column of the tables for each number"
    )
    queries: Count = Field(15, description="Query images of each class (published code: 50)")
    support_copies: Count = Field(
        5, description="Augmented copies of each support image in an episode; 1: the image itself, not augmented"
    )
    support_copy_pool: Count | None = Field(
        10,
        description="Augmented copies of each image from which all episodes sample, at least `support_copies`; "
        "this saves most of the time. null: new copies in each episode, as published",
    )
    classifier: Annotated[
        Annotated[Classifier, Tag("name")] | Annotated[dict[str, Classifier], Tag("by_shots")],
        Discriminator(lambda given: "name" if isinstance(given, str) else "by_shots"),
    ] = Field(
        "logistic_regression",
        description="Classifier fitted to the support set's features of each episode, for learners without one. "
        "One for all, or one for each number of shots: `{1: svm, 5: logistic_regression}` as in parts of the "
        "paper",
    )
    augmentation: AugmentationOptions = AugmentationOptions()
    seed: Seed = Field(0, description="Random seed of the episodes, which all rows and seeds of a data set share")

    @field_validator("classifier", mode="before")
    @classmethod
    def _shots_as_text(cls, classifier: object) -> object:
        # YAML's keys are numbers, JSON's are text.
        return {str(key): name for key, name in classifier.items()} if isinstance(classifier, dict) else classifier

    @field_validator("shots")
    @classmethod
    def _shots_differ(cls, shots: list[int]) -> list[int]:
        if len(set(shots)) < len(shots):
            raise ValueError("one is listed twice")
        return shots

    @model_validator(mode="after")
    def _each_shot_has_a_classifier(self) -> "EvaluationOptions":
        shots = [str(count) for count in self.shots]
        if isinstance(self.classifier, dict) and sorted(self.classifier) != sorted(shots):
            raise ValueError(f"classifier: name one for each of {', '.join(shots)} shots")
        return self

    @property
    def needs(self) -> list[Need]:
        return [Need("test", self.ways, max(self.shots) + self.queries)]

    def classifier_of(self, shots: int) -> Classifier:
        return self.classifier if isinstance(self.classifier, str) else self.classifier[str(shots)]


class EvaluationSection(EvaluationOptions):
    """The section `evaluation`: the episodes, and on which data sets they are."""

    # Not `on`: YAML reads that key as `true`.
    test_on: list[Name] = Field(
        [],
        description="Data sets on whose test classes the models of all other data sets are evaluated, too "
        "(table `transfer`)",
    )

    @field_validator("test_on")
    @classmethod
    def _data_sets_differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("one is listed twice")
        return names

    @property
    def episodes_alone(self) -> EvaluationOptions:
        """What an evaluation takes, whichever data set it is on."""
        return EvaluationOptions(**self.model_dump(exclude={"test_on"}))
