"""Every model that has a name, family by family; those that suit a CPU first."""

from __future__ import annotations

from torch import nn

from spark3r.errors import CheckpointError, InputError
from spark3r.installation import assets
from spark3r.models.families import da3, mini, omega, pi3, pi3x, vggt
from spark3r.models.family import Entry, Family, Host, ModelCard, Shapes

WEIGHTS = assets("weights")

FAMILIES: tuple[Family, ...] = (mini.FAMILY, da3.FAMILY, vggt.FAMILY, pi3.FAMILY, pi3x.FAMILY, omega.FAMILY)
ENTRIES: dict[str, Entry] = {entry.card.name: entry for family in FAMILIES for entry in family.entries}
_FINDERS = {name: find for family in FAMILIES for name, find in family.hosts.items()}


def named(name: str) -> Entry:
    """The entry of that name; raises CheckpointError listing the names there are."""
    if name not in ENTRIES:
        raise CheckpointError(f"no model {name!r}: must be one of {', '.join(ENTRIES)}")
    return ENTRIES[name]


def list_models() -> tuple[ModelCard, ...]:
    """Every model that `load_model` knows by name; those that suit a CPU first."""
    return tuple(entry.card for entry in ENTRIES.values())


def recognise(shapes: Shapes) -> Entry | None:
    """The model whose official file has tensors of these names and shapes, or None."""
    return next((entry for family in FAMILIES if (entry := family.recognise(shapes)) is not None), None)


def host_of(model: nn.Module) -> Host:
    """The parts of an official model, known by the name of its class or of one it derives from; else InputError."""
    names = [kind.__name__ for kind in type(model).__mro__]
    find = next((_FINDERS[name] for name in names if name in _FINDERS), None)
    if find is None:
        raise InputError(
            f"accelerate() knows the official classes {', '.join(_FINDERS)}, not {names[0]}: pass the model itself, "
            "without a wrapper around it (a network from spark3r.load_model takes its schedule in spark3r.reconstruct)"
        )
    return find(model)
