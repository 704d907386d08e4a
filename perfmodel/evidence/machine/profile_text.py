"""A hardware profile with fitted figures as the text of its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.files.catalogue import Catalogue, own_package
from perfmodel.files.document import Quantity
from perfmodel.files.schema import noun_from
from perfmodel.files.yaml_text import parse_yaml
from perfmodel.hardware import HardwareProfile

__all__ = ["profile_text"]


def profile_text(
    name_or_path: str | os.PathLike[str],
    name: str,
    fitted: Mapping[str, Quantity],
    profiles_path: str | os.PathLike[str] | None = None,
) -> str:
    """Return the YAML text of a profile called `name`: as the one it comes from, but for the fitted figures.

    Parameters
    ----------
    fitted : shares of peak rates by dotted path, each of which stands in the file it comes from.

    Raises
    ------
    SpecError
        When there is no such profile, or the result would not load.
    """
    import yaml

    folder = Path(next(iter(own_package("hardware_profiles").__path__))).resolve()
    data: dict[str, Any] = dict(
        Catalogue("hardware profile", folder).document(name_or_path, profiles_path).data
    )
    data["name"] = name
    data.pop("aliases", None)
    for path, quantity in fitted.items():
        *groups, last = path.split(".")
        place = data
        for group in groups:
            place = place.setdefault(group, {})
        ends = {
            end: float(f"{float(np.asarray(getattr(quantity, end))):.4g}") for end in ("value", "low", "high")
        }
        place[last] = {**ends, "source": quantity.source, "kind": quantity.kind}
    text = str(
        yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=None)
    )
    noun_from(HardwareProfile, parse_yaml(text.encode(), f"{name}.yaml"))
    return text
