# SPDX-License-Identifier: Apache-2.0
"""Files of trained networks: whole or refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch to build modules")

from npusim.errors import ConfigError, FormatError  # noqa: E402
from spaces.digits import digits  # noqa: E402
from spaces.nets import build  # noqa: E402
from spaces.nets.candidate_net import observe_activations  # noqa: E402
from spaces.nets.files import load_net, read_state, save_net, write_state  # noqa: E402

SPACE = digits(bitwidths=(4, 8))


@pytest.fixture
def saved(tmp_path):
    net = build(SPACE, SPACE.largest(), torch.Generator().manual_seed(0), offset=True).eval()
    net.prune(1.0)
    observe_activations(net, [torch.rand(8, 1, 8, 8)])
    net.quantize_activations()
    path = tmp_path / "net.pt"
    save_net(path, net)
    return net, path


def test_networks_are_the_same_after_a_round_trip(saved, tmp_path):
    net, path = saved
    found = load_net(path, SPACE)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(found(images), net(images))
    assert all(weight.offset for weight in found.weights().values())
    assert found.candidate == net.candidate
    assert [each.name for each in tmp_path.iterdir()] == ["net.pt"]


def test_files_define_the_space(saved):
    net, path = saved
    assert load_net(path).space == SPACE
    state = read_state(path, "npusim.net")
    del state["definition"]
    write_state(path, "npusim.net", state)
    assert load_net(path, SPACE).candidate == net.candidate
    with pytest.raises(FormatError, match=r"must define the network's space, got one that does n"):
        load_net(path)


def test_floating_point_networks_stay_that(tmp_path):
    net = build(SPACE, SPACE.largest(), torch.Generator().manual_seed(0)).eval()
    for weight in net.weights().values():
        weight.quantizes = False
    save_net(tmp_path / "net.pt", net)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_net(tmp_path / "net.pt", SPACE)(images), net(images))


def test_networks_of_other_spaces_are_refused(saved):
    with pytest.raises(ConfigError, match=r"net.pt must be of space 'digits' \(hash .* got one of"):
        load_net(saved[1], digits(bitwidths=(8,)))


@pytest.mark.parametrize("where", [0.3, 0.5, 0.9])
def test_one_wrong_bit_is_found(saved, where):
    path = saved[1]
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"must have the digest of its content, .* is corrupted"):
        load_net(path, SPACE)


def test_other_files_are_refused(saved, tmp_path):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match="is corrupted"):
        load_net(path, SPACE)
    write_state(path, "npusim.other", {"a": 1})
    with pytest.raises(FormatError, match=r"must be a file of kind npusim.net, got another"):
        load_net(path, SPACE)
    path.write_bytes(path.read_bytes().replace(b"npusim.other 1", b"npusim.net 2"))
    with pytest.raises(FormatError, match="must be of version 1, got b'2'"):
        load_net(path, SPACE)
    with pytest.raises(ConfigError, match=r"file of kind npusim.net must be readable, got"):
        load_net(tmp_path / "none.pt", SPACE)


def test_state_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "state"
    write_state(path, "npusim.test", {"a": torch.zeros(3), "b": [1, "x", None]})
    write_state(path, "npusim.test", {"a": torch.ones(3), "b": []})
    found = read_state(path, "npusim.test")
    assert found["a"].tolist() == [1.0, 1.0, 1.0]
    assert found["b"] == []
