"""What to change where a training or a search has diverged. Imports no torch."""

from pydantic import BaseModel

RAISED = ("lr", "weight_decay", "momentum")  # last words of options that let a training diverge when raised
LOWERED = ("ridge",)  # and when lowered


def advice(options: BaseModel | None) -> str:
    """Names the options that were moved from their defaults towards divergence; else all learning rates."""
    fields = {} if options is None else type(options).model_fields
    values = {name: (getattr(options, name), field.default) for name, field in fields.items()}
    numbers = {name: pair for name, pair in values.items() if all(type(value) in (int, float) for value in pair)}
    moved = []
    for name, (value, default) in numbers.items():
        if name in LOWERED and value < default:
            moved.append(f"raise {name} ({value:g}; default {default:g})")
        elif name.endswith(RAISED) and value > default:
            moved.append(f"lower {name} ({value:g}; default {default:g})")
    if moved:
        return " or ".join(moved)
    rates = [f"{name} ({value:g})" for name, (value, _) in numbers.items() if name.endswith("lr")]
    return f"lower {' or '.join(rates)}" if rates else "use lower learning rates"
