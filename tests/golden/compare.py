"""Compares two JSON values, numbers within rounding."""

import math


def _same_number(one, other):
    return {type(one), type(other)} <= {int, float} and math.isclose(one, other, rel_tol=1e-4, abs_tol=2e-6)


def differences(golden, found, place=""):
    """A line for each place in which ``found`` is not as ``golden``. A class may have more members than it had."""
    if isinstance(golden, dict) and isinstance(found, dict):
        new = () if place.endswith("/members") else found.keys() - golden.keys()
        lines = [f"{place}/{key} is gone" for key in golden.keys() - found.keys()] + [f"{place}/{key} is new" for key in new]
        return sorted(lines) + [line for key in golden if key in found for line in differences(golden[key], found[key], f"{place}/{key}")]
    if isinstance(golden, list) and isinstance(found, list):
        if all(isinstance(one, str) for one in golden + found) and set(golden) != set(found):
            gone, new = [one for one in golden if one not in found], [one for one in found if one not in golden]
            return [f"{place} lacks {one!r}" for one in gone] + [f"{place} has {one!r}" for one in new]
        if len(golden) == len(found):
            return [line for at, pair in enumerate(zip(golden, found, strict=True)) for line in differences(*pair, f"{place}[{at}]")]
    return [] if golden == found or _same_number(golden, found) else [f"{place} was {golden!r}, is {found!r}"]


def merged(golden, found):
    """``found``, but numbers that differ from ``golden`` by rounding alone are as they were: a rewritten file shows what changed."""
    if isinstance(found, dict):
        return {key: merged(golden.get(key) if isinstance(golden, dict) else None, one) for key, one in found.items()}
    if isinstance(found, list):
        before = golden if isinstance(golden, list) and len(golden) == len(found) else [None] * len(found)
        return [merged(*pair) for pair in zip(before, found, strict=True)]
    return golden if _same_number(golden, found) else float(f"{found:.7g}") if type(found) is float else found
