"""Check a user's settings with one wording: `KEY=VALUE must be EXPECTED`.

The checks import neither torch nor Hydra, so that a command refuses a wrong setting before heavy
imports.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import MAX_OCTAVES


def check_number(
    key: str,
    value: Any,
    *,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    allowed: Sequence[str | None] = (),
) -> None:
    """Check that a setting is a finite number within limits; true and false are not numbers.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.
        whole: accept whole numbers only.
        least: lowest accepted number.
        above: limit that the number must exceed.
        most: highest accepted number.
        allowed: other accepted values, for example `("auto", None)`.

    Raises:
        InputError: the value is not such a number and is not in `allowed`.
    """
    if is_allowed(value, allowed):
        return
    number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    inside = (
        number
        and isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
    )
    if not inside:
        kind = "a whole number" if whole else "a number"
        limits = describe_limits(least, above, most)
        raise wrong(key, value, f"{kind} {limits}".strip(), allowed)


def check_transpose(value: Any) -> None:
    """Check that `transpose` is a number of octaves or "auto".

    Args:
        value: value of the setting.

    Raises:
        InputError: the value is neither.
    """
    limits = {"least": -MAX_OCTAVES, "most": MAX_OCTAVES}
    check_number("transpose", value, whole=True, **limits, allowed=("auto",))


def check_switch(key: str, value: Any, allowed: Sequence[str | None] = ()) -> None:
    """Check that a setting is true or false: YAML's `yes` and `no` are text, which counts as true.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.
        allowed: other accepted values, for example `("auto",)`.

    Raises:
        InputError: the value is neither true nor false and is not in `allowed`.
    """
    if not isinstance(value, bool) and not is_allowed(value, allowed):
        raise wrong(key, value, "true or false", allowed)


def check_choice(
    key: str, value: Any, choices: Iterable[str], allowed: Sequence[str | None] = ()
) -> None:
    """Check that a setting is one of a few names.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.
        choices: accepted names, in the order of the message.
        allowed: other accepted values, for example `(None,)`.

    Raises:
        InputError: the value is not one of the names; the message adds the nearest name to a
            misspelt one.
    """
    names = tuple(choices)
    if is_allowed(value, (*names, *allowed)):
        return
    raise wrong(key, value, f"one of {', '.join(names)}", allowed, nearest_hint(value, names))


def nearest_hint(value: Any, names: Iterable[str]) -> str:
    """Return `; did you mean NAME?` with the nearest name; empty if no name is near."""
    near = get_close_matches(value, list(names), 1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def check_text(key: str, value: Any, allowed: Sequence[str | None] = ()) -> None:
    """Check that a setting is a text with more than spaces.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.
        allowed: other accepted values, for example `(None,)`.

    Raises:
        InputError: the value is not such a text and is not in `allowed`.
    """
    if is_allowed(value, allowed):
        return
    if not (isinstance(value, str) and value.strip()):
        raise wrong(key, value, "a text that is not empty", allowed)


def check_single(key: str, value: Any) -> None:
    """Check that a setting is a single value.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.

    Raises:
        InputError: the value is a list or a mapping.
    """
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        raise wrong(key, value, "a single value")


def wrong(
    key: str, value: Any, expected: str, allowed: Sequence[str | None] = (), hint: str = ""
) -> InputError:
    """Make the error of a wrong setting; the caller raises the error.

    Args:
        key: name of the setting, as a user types it.
        value: value of the setting.
        expected: description of a right value, for example `"a number above 0"`.
        allowed: other accepted values.
        hint: end of the message.

    Returns:
        An error with the message `KEY=VALUE must be EXPECTED`.
    """
    others = "".join(f", or {as_typed(other)}" for other in allowed)
    return InputError(f"{key}={as_typed(value)} must be {expected}{others}{hint}")


def is_allowed(value: Any, allowed: Iterable[str | None]) -> bool:
    """Return whether `allowed` contains a value of the same type; 1 does not equal true."""
    return any(type(value) is type(other) and value == other for other in allowed)


def describe_limits(
    least: float | None = None, above: float | None = None, most: float | None = None
) -> str:
    """Describe the limits of a number: `from 0 to 1`, `above 0`, `of at least 1`.

    Args:
        least: lowest accepted number.
        above: limit that the number must exceed.
        most: highest accepted number.

    Returns:
        The description; empty without limits.
    """
    if least is not None and most is not None:
        return f"from {least} to {most}"
    parts = []
    if least is not None:
        parts.append(f"of at least {least}")
    if above is not None:
        parts.append(f"above {above}")
    if most is not None:
        parts.append(f"at most {most}" if parts else f"of at most {most}")
    return " and ".join(parts)


def as_typed(value: Any) -> str:
    """Write a value as a user types the value: `null`, `true`, `[1, 2]`, `{flute: a.ckpt}`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_typed(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(as_typed, value))}]"
    return str(value)
