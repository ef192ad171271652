"""Options of the stage evaluate_episodes. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, Need, Options, Seed

Classifier = Literal["logistic_regression", "svm"]


class EvaluationOptions(Options):
    """Few-shot episodes on the test split (stage evaluate_episodes)."""

    episodes: int = Field(1000, ge=2, description="episodes per number of shots")
    ways: int = Field(5, ge=2, description="classes per episode")
    shots: list[Count] = Field([1, 5], min_length=1, description="support images per class, one table column each")
    queries: Count = Field(15, description="query images per class (published code: 50)")
    support_copies: Count = Field(5, description="augmented copies of each support image")
    support_copy_pool: Count | None = Field(
        10,
        description="Number of augmented copies made of each image in all, at least `support_copies`; each episode "
        "samples its own among them, which saves most of the time. null: made anew for each episode, as published",
    )
    classifier: Annotated[
        Annotated[Classifier, Tag("name")] | Annotated[dict[str, Classifier], Tag("by_shots")],
        Discriminator(lambda given: "name" if isinstance(given, str) else "by_shots"),
    ] = Field(
        "logistic_regression",
        description="fitted to the support features of each episode, where the learner leaves it to the "
        "evaluation; one for all, or one for each number of shots (`{1: svm, 5: logistic_regression}`: the paper "
        "takes the hinge loss in some 1-shot cases)",
    )
    augmentation: AugmentationOptions = AugmentationOptions()
    seed: Seed = Field(0, description="of the episodes: the same for all methods and seeds of a data set")

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
