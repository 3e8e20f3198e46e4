# SPDX-License-Identifier: Apache-2.0
"""Files of tensors that are whole or refused: trained networks, and trainings to go on with.

A file is one line, ``npusim.net 1 SHA256``, and what `torch.save` makes of plain values and
tensors; the digest is that of the latter.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from npusim.errors import ConfigError, FormatError
from spaces.base import Space
from spaces.definitions import from_definition
from spaces.nets.candidate_net import CandidateNet, build

NET_KIND = "npusim.net"
VERSION = 1
"""Raised when a file's content changes its meaning."""


def write_state(path: Path, kind: str, state: dict[str, Any]) -> None:
    """Write plain values and tensors; the file is always either the old one or the whole new one.

    Args:
        path: of the file.
        kind: word that names what the state is of.
        state: dicts, lists, strings, numbers, tensors.
    """
    payload = io.BytesIO()
    torch.save(state, payload)
    digest = hashlib.sha256(payload.getbuffer()).hexdigest()
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(f"{kind} {VERSION} {digest}\n".encode())
        file.write(payload.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_state(path: Path, kind: str) -> dict[str, Any]:
    """What `write_state` wrote, tensors on the CPU.

    Raises:
        FormatError: the file is of another kind or version, truncated or corrupted.
        ConfigError: there is no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"file of kind {kind} must be readable, got {error}") from None
    header, _, payload = content.partition(b"\n")
    words = header.split(b" ")
    if words[:1] != [kind.encode()] or len(words) != 3:
        raise FormatError(f"{path} must be a file of kind {kind}, got another")
    if words[1] != str(VERSION).encode():
        raise FormatError(f"{path} must be of version {VERSION}, got {words[1]!r}")
    if hashlib.sha256(payload).hexdigest().encode() != words[2]:
        raise FormatError(
            f"{path} must have the digest of its content, got another: it is corrupted"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def save_net(path: Path, net: CandidateNet) -> None:
    """Write a network with all that makes it: its candidate, weights, grids and how it is used."""
    write_state(
        path,
        NET_KIND,
        {
            "space": net.space.name,
            "space_hash": net.space.content_hash,
            "definition": net.space.definition(),
            "choices": list(net.candidate.choices),
            "offset": [weight.offset for weight in net.weights().values()],
            "quantizes": [weight.quantizes for weight in net.weights().values()],
            "activations": [str(each.mode) for each in net.quantizers().values()],
            "state": net.state_dict(),
        },
    )


def load_net(path: Path, space: Space | None = None) -> CandidateNet:
    """The network that `save_net` wrote, in evaluation.

    Args:
        path: of the file.
        space: of the network; None for that which the file defines.

    Raises:
        ConfigError: it is of another space, or there is no such file.
        FormatError: the file is corrupted, no network, or from before files defined the space.
    """
    found = read_state(path, NET_KIND)
    if space is None:
        if "definition" not in found:
            raise FormatError(f"{path} must define the network's space, got one that does not")
        space = from_definition(found["definition"], found["space_hash"])
    require_space(path, found, space)
    net = build(space, space.candidate(found["choices"]), torch.Generator())
    for i, weight in enumerate(net.weights().values()):
        weight.offset, weight.quantizes = found["offset"][i], found["quantizes"][i]
    net.load_state_dict(found["state"])
    for mode, quantizer in zip(found["activations"], net.quantizers().values(), strict=True):
        quantizer.mode = type(quantizer.mode)(mode)
    return net.eval()


def require_space(path: Path, state: dict[str, Any], space: Space) -> None:
    """Raise ConfigError where a file's state is of another space."""
    if state["space_hash"] != space.content_hash:
        raise ConfigError(
            f"{path} must be of space {space.name!r} (hash {space.content_hash}), "
            f"got one of {state['space']!r} (hash {state['space_hash']})"
        )
