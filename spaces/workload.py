# SPDX-License-Identifier: Apache-2.0
"""A candidate by its name, for tools that cost networks: what ``npusim estimate digits:seed=1`` is.

SPACE:largest                  every decision at its last option
SPACE:seed=N                   drawn uniformly from that seed
SPACE:seed=N:KEY=VALUE...      of a space with options
FILE.json                      as `spaces.Space.to_json` wrote it, of a space without options
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import spaces
from npusim._arguments import choice
from npusim.cost.weight_sizes import ExactSizes
from npusim.cost.what_if import Workload
from npusim.errors import ConfigError, FormatError
from spaces.base import Candidate, Space
from spaces.estimate import BoundedSizes
from spaces.lower import lower


def workload(text: str) -> Workload:
    """What a candidate executes; its weights take the bound of `spaces.costs.size_bits`.

    Raises:
        ConfigError: `text` names no candidate, or one of another space.
        FormatError: the file holds no candidate.
        UnknownNameError: no such space.
    """
    space, candidate = _from_file(text) if text.endswith(".json") else _from_name(text)
    lowered = lower(space, candidate)
    program = replace(lowered.program, name=text)
    return Workload(program, lambda npu: BoundedSizes(lowered.weight_bits, ExactSizes(npu)))


def _from_file(path: str) -> tuple[Space, Candidate]:
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"candidate must be a readable file, got {path!r} ({reason})") from None
    try:
        name = json.loads(text)["space"]
    except (ValueError, TypeError, KeyError):
        raise FormatError(f"{path}: a candidate must be JSON with the key 'space'") from None
    space = spaces.get(choice("space", name, spaces.names()))
    return space, space.from_json(text)


def _from_name(text: str) -> tuple[Space, Candidate]:
    name, how, *pairs = text.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"option of a space must be KEY=VALUE, got {pair!r} in {text!r}")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    space = spaces.get(choice("space", name, spaces.names()), **options)
    if how == "largest":
        return space, space.largest()
    seed = how.removeprefix("seed=")
    if seed == how or not seed.isdecimal():
        raise ConfigError(f"candidate must be SPACE:largest or SPACE:seed=N, got {text!r}")
    return space, space.sample(np.random.default_rng(int(seed)))
