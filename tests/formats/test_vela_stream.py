# SPDX-License-Identifier: Apache-2.0
"""Weight streams found in compiled models: payloads by hand, models compiled on the spot, fuzz."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import vela
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import npu as npus
from npusim.errors import FormatError
from npusim.formats import command_stream as cs
from npusim.formats import load, load_bytes
from npusim.formats.tflite_write import to_bytes
from npusim.formats.vela_stream import compiled_streams, is_compiled
from npusim.network import Network, Op
from npusim.tensor import Tensor
from npusim.weights.reorder import coded_weights, restore
from npusim.weights.scales import unpack_scales
from npusim.weights.traversal import choose_traversal, split_dilation

FLASH = bytes(range(200))
CONV = {
    cs.IFM_PRECISION: 0x41,  # int8, NHCWB16
    cs.IFM_DEPTH_M1: 4,
    cs.OFM_DEPTH_M1: 23,
    cs.OFM_BLK_DEPTH_M1: 15,
    cs.KERNEL_HEIGHT_M1: 2,
    cs.KERNEL_WIDTH_M1: 4,
    cs.KERNEL_STRIDE: 1 << cs.PART_KERNEL_BIT | 1 << cs.DILATION_X_BIT,
    cs.WEIGHT_REGION: 0,
    cs.SCALE_REGION: 0,
    cs.WEIGHT_BASE: 32,
    cs.WEIGHT_LENGTH: 48,
    cs.SCALE_BASE: 0,
    cs.SCALE_LENGTH: 32,
}


def words_of(commands):
    for opcode, value in commands:
        if opcode >= cs.WIDE:
            yield from ((opcode - cs.WIDE) | 1 << 14 | value >> 32 << 16, value & 0xFFFFFFFF)
        else:
            yield opcode | value << 16


def payload_of(commands, config=0x1807, n_words=None, words=()):
    words = [*words, *words_of(commands), cs.OP_STOP]
    n_words = len(words) if n_words is None else n_words
    action = cs.ACTION_COMMANDS | n_words >> 16 << 8 | (n_words & 0xFFFF) << 16
    body = [cs.ACTION_CONFIG, config, 0, cs.ACTION_NOP, action, *words]
    return cs.MAGIC + struct.pack(f"<{len(body)}I", *body)


def network_of(payload, flash=FLASH):
    def constant(index, name, content):
        data = np.frombuffer(content, np.uint8)
        return Tensor(index, name, data.shape, "uint8", None, data)

    tensors = (
        constant(0, "commands", payload),
        constant(1, "flash", flash),
        Tensor(2, "scratch", (16,), "uint8"),
        Tensor(3, "ofm", (16,), "int8"),
    )
    op = Op(0, "ETHOS_U", "npu", tensors[:3], tensors[3:], custom_code="ethos-u")
    return Network("compiled", tensors, (op,), (), tensors[3:])


def streams_of(*commands, flash=FLASH):
    return compiled_streams(network_of(payload_of(commands), flash))


def copy_commands(source, target, length, region=2):
    return (
        (cs.DMA0_SRC_REGION, 0),
        (cs.DMA0_DST_REGION, region),
        (cs.DMA0_SRC, source),
        (cs.DMA0_DST, target),
        (cs.DMA0_LEN, length),
        (cs.OP_DMA_START, 0),
    )


def test_convolution_by_hand():
    (stream,) = streams_of((cs.OP_POOL, 0), *CONV.items(), (cs.OP_CONV, 0))
    assert (stream.op_index, stream.npu_op, stream.n_reads, stream.core) == (0, 1, 1, 0)
    assert (stream.kind, stream.traversal, stream.ifm_bits) == ("conv", "part-kernel", 8)
    assert (stream.kernel, stream.dilation) == ((3, 3), (1, 2))
    assert (stream.shape, stream.ofm_block_depth, stream.ifm_depth) == ((24, 3, 3, 5), 16, 5)
    assert (stream.offset, bytes(stream.data)) == (32, FLASH[32:80])
    assert (stream.scale_offset, bytes(stream.scales)) == (0, FLASH[:32])


def test_depthwise_by_hand():
    own = CONV | {cs.KERNEL_STRIDE: 0, cs.IFM_PRECISION: 5}
    (stream,) = streams_of(*own.items(), (cs.OP_DEPTHWISE, 0))
    assert (stream.kind, stream.traversal, stream.ifm_bits) == ("depthwise", "depthwise", 16)
    assert stream.shape == (24, 3, 5, 1)


def test_registers_keep_their_values_and_repeated_reads_are_counted():
    streams = streams_of(
        *CONV.items(),
        (cs.OP_CONV, 0),
        (cs.OP_CONV, 0),
        (cs.WEIGHT_BASE, 96),
        (cs.OP_CONV, 0),
        (cs.OP_ELEMENTWISE, 0),
        (cs.WEIGHT_BASE, 32),
        (cs.OP_CONV, 0),
    )
    found = [(stream.offset, stream.npu_op, stream.n_reads) for stream in streams]
    assert found == [(32, 0, 3), (96, 2, 1)]


def test_two_cores_by_hand():
    second = {cs.WEIGHT1_BASE: 112, cs.WEIGHT1_LENGTH: 16, cs.SCALE1_BASE: 80, cs.SCALE1_LENGTH: 32}
    streams = streams_of(
        *(CONV | second).items(),
        (cs.OP_CONV, 0),
        (cs.WEIGHT1_LENGTH, 0),
        (cs.WEIGHT_BASE, 48),
        (cs.OP_CONV, 0),
    )
    assert [(stream.core, stream.offset) for stream in streams] == [(0, 32), (1, 112), (0, 48)]
    assert bytes(streams[1].scales) == FLASH[80:112]


def test_buffered_weights_are_followed_back():
    buffered = {cs.WEIGHT_REGION: 2, cs.SCALE_REGION: 2, cs.WEIGHT_BASE: 1032, cs.SCALE_BASE: 1000}
    streams = streams_of(
        *(CONV | buffered).items(),
        *copy_commands(64, 1000, 80),
        *copy_commands(0, 2000, 80),  # the next layer's, while this one's are in use
        (cs.OP_CONV, 0),
        (cs.WEIGHT_BASE, 2032),
        (cs.SCALE_BASE, 2000),
        *copy_commands(100, 1000, 80),
        (cs.OP_CONV, 0),
        (cs.WEIGHT_BASE, 1032),
        (cs.SCALE_BASE, 1000),
        (cs.OP_CONV, 0),
    )
    found = [(stream.offset, stream.scale_offset) for stream in streams]
    assert found == [(96, 64), (32, 0), (132, 100)]


def test_addresses_have_40_bits():
    far = 1 << 35 | 1 << 31
    streams = streams_of(
        *CONV.items(),
        (cs.WEIGHT_REGION, 3),
        (cs.WEIGHT_BASE, far + 16),
        *copy_commands(100, far, 80, region=3),
        (cs.OP_CONV, 0),
    )
    assert [stream.offset for stream in streams] == [116]


@settings(deadline=None, derandomize=True)
@given(
    copies=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 30), st.booleans()),
        max_size=12,
    ),
    start=st.integers(0, 60),
    length=st.integers(1, 30),
)
def test_copies_are_followed_like_single_bytes(copies, start, length):
    memory = [None] * 100
    commands = []
    for number, (source, target, n, constant) in enumerate(copies):
        commands += copy_commands(source, target, n)
        commands.insert(-1, (cs.DMA0_SRC_REGION, 0 if constant else 1))
        for i in range(n):
            memory[target + i] = (number, source + i) if constant else None
    read = memory[start : start + length]
    first = read[0]
    whole = first and all(byte == (first[0], first[1] + i) for i, byte in enumerate(read))
    reading = ((cs.WEIGHT_REGION, 2), (cs.WEIGHT_BASE, start), (cs.WEIGHT_LENGTH, length))
    program = (*CONV.items(), *commands, *reading, (cs.OP_CONV, 0))
    if whole:
        assert [stream.offset for stream in streams_of(*program)] == [first[1]]
    else:
        with pytest.raises(FormatError, match="must lie in the read-only tensor"):
            streams_of(*program)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "a driver payload must start with 'COP1'"),
        (b"COP2" + bytes(12), "a driver payload must start with 'COP1'"),
        (cs.MAGIC + bytes(3), "must start with 'COP1' and be whole words, got 7 bytes"),
        (cs.MAGIC, "a driver payload must have commands, got none"),
        (cs.MAGIC + struct.pack("<I", 9), r"driver action must be 1, 2 or 5, got 9 \(at byte 4\)"),
        (cs.MAGIC + struct.pack("<2I", 1, 0), "a configuration must have 2 words"),
        (cs.MAGIC + struct.pack("<I", 2), "must say its NPU before its commands"),
        (payload_of([], config=2 << 28), "NPU must be one of ethos-u55, ethos-u65, got product nu"),
        (payload_of([], n_words=2), "commands must end at word 7 at most, got word 8"),
        (payload_of([], words=[1 << 12]), r"must be 0, got 0x00001000 \(at byte 24\)"),
        (payload_of([], words=[1 << 15]), r"must be 0, got 0x00008000"),
        (payload_of([(cs.WEIGHT_BASE, 0)], n_words=1), "must have its second word"),
    ],
)
def test_damaged_payloads_are_refused(payload, message):
    with pytest.raises(FormatError, match=rf"^ETHOS_U 'npu': .*{message}"):
        compiled_streams(network_of(payload))


@pytest.mark.parametrize("register", CONV)
def test_unset_registers_are_refused(register):
    commands = [(opcode, value) for opcode, value in CONV.items() if opcode != register]
    with pytest.raises(FormatError, match=f"register {register:#05x} must be set before"):
        streams_of(*commands, (cs.OP_CONV, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({cs.WEIGHT_BASE: 160}, r"must lie in .* of 200 bytes, got 48 bytes at 0xa0 of region 0"),
        ({cs.WEIGHT_LENGTH: 0}, "got 0 bytes at 0x20"),
        ({cs.SCALE_BASE: 2**40 - 1}, "got 32 bytes at 0xffffffffff of region 0"),
        ({cs.WEIGHT_REGION: 1}, "got 48 bytes at 0x20 of region 1"),
        ({cs.IFM_PRECISION: 12}, "ifm precision must be of 8, 16 or 32 bits, got 0x000c"),
    ],
)
def test_impossible_reads_are_refused(change, message):
    with pytest.raises(FormatError, match=message):
        streams_of(*(CONV | change).items(), (cs.OP_CONV, 0))


def test_copies_into_the_read_only_region_are_refused():
    with pytest.raises(FormatError, match="a copy must not go to the read-only region"):
        streams_of(*copy_commands(0, 0, 16, region=0))


def test_networks_that_are_not_compiled_have_no_streams():
    network = vela.layers(("CONV_2D", (8, 1, 1, 8), {}))
    assert not is_compiled(network)
    assert compiled_streams(network) == []
    assert is_compiled(network_of(payload_of([])))


def test_mutated_payloads_give_streams_or_a_format_error():
    buffered = {cs.WEIGHT_REGION: 2, cs.WEIGHT_BASE: 16}
    whole = payload_of(
        [
            *CONV.items(),
            (cs.OP_CONV, 0),
            *copy_commands(100, 0, 80),
            *buffered.items(),
            (cs.OP_CONV, 0),
        ]
    )
    rng = np.random.default_rng(0)
    outcomes = {"streams": 0, "errors": 0}
    for _ in range(4000):
        mutated = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            mutated[at] = rng.integers(256)
        if rng.random() < 0.2:
            del mutated[rng.integers(len(mutated)) :]
        try:
            found = compiled_streams(network_of(bytes(mutated)))
            assert all(len(stream.data) and len(stream.scales) for stream in found)
            outcomes["streams"] += 1
        except FormatError:
            outcomes["errors"] += 1
    assert min(outcomes.values()) > 500


def test_many_copies_and_reads_are_followed():
    commands = [*CONV.items(), (cs.WEIGHT_REGION, 2), (cs.WEIGHT_LENGTH, 1)]
    copies = [copy_commands(i % 100, 2 * i, 1) for i in range(20_000)]
    reads = [((cs.WEIGHT_BASE, 2 * i), (cs.OP_CONV, 0)) for i in range(20_000)]
    (*streams,) = streams_of(*commands, *(c for part in (*copies, *reads) for c in part))
    assert [stream.n_reads for stream in streams] == [200] * 100


def restored(stream, npu):
    """Weights of one core, by Arm's decoder: fit for streams of Arm's encoder only."""
    codec = pytest.importorskip("ethosu.mlw_codec", reason="ethos-u-vela is the oracle")
    values = codec.decode(bytearray(stream.data))
    options = {
        "ofm_block_depth": stream.ofm_block_depth,
        "traversal": stream.traversal,
        "ifm_bits": stream.ifm_bits,
        "dilation": stream.dilation,
        "core": stream.core,
    }
    assert len(values) == coded_weights(stream.shape, npu, **options)
    return restore(values, stream.shape, npu, **options)


def merged(streams, npu):
    """(first stream, weights of all cores) of every depth slice."""
    n_cores = npus.get(npu).n_cores
    slices = {}
    for stream in streams:
        slices.setdefault(stream.npu_op, []).append(stream)
    for group in slices.values():
        weights = np.zeros(group[0].shape, np.int16)
        for stream in group:
            weights[stream.core :: n_cores] = restored(stream, npu)
        yield group[0], weights


CHAIN = (
    ("CONV_2D", (24, 3, 3, 5), {}),
    ("DEPTHWISE_CONV_2D", (1, 5, 5, 24), {}),
    ("CONV_2D", (200, 3, 3, 24), {"dilation_h": 2}),
    ("CONV_2D", (33, 1, 1, 200), {}),
    ("CONV_2D", (17, 9, 2, 33), {"dilation_w": 3}),
    ("DEPTHWISE_CONV_2D", (1, 3, 3, 17), {"dilation_w": 2, "dilation_h": 2}),
)


@pytest.mark.parametrize("ifm_bits", [8, 16])
@pytest.mark.parametrize("npu", npus.names())
def test_streams_of_compiled_layers_hold_their_weights(npu, ifm_bits):
    network = vela.layers(*CHAIN, ifm_bits=ifm_bits)
    compiled = load_bytes(vela.compile_model(to_bytes(network), npu))
    slices = merged(compiled_streams(compiled), npu)
    for op in network.ops:
        dilation = (op.attributes["dilation_h"], op.attributes["dilation_w"])
        weights, left = split_dilation(op.weights_ohwi(), dilation)
        done = 0
        while done < len(weights):
            stream, found = next(slices)
            assert (found == weights[done : done + len(found)]).all()
            assert stream.dilation == left
            assert stream.traversal == choose_traversal(weights.shape, op.kind, ifm_bits)
            done += len(found)
        assert done == len(weights)
    assert next(slices, None) is None


def test_large_layers_are_read_from_buffers():
    convolutions = [("CONV_2D", (o, 3, 3, i), {}) for o, i in ((64, 64), (96, 64), (128, 96))]
    network = vela.layers(*convolutions, size=48)
    compiled = load_bytes(vela.compile_model(to_bytes(network), "ethos-u55-256"))
    _, commands = cs.read_commands(compiled.ops[0].input("command_stream").data.tobytes())
    assert any(command.opcode == cs.OP_DMA_START for command in commands)
    slices = [weights for _, weights in merged(compiled_streams(compiled), "ethos-u55-256")]
    for op in network.ops:
        whole = op.weights_ohwi()
        while len(whole):
            part = slices.pop(0)
            assert (part == whole[: len(part)]).all()
            whole = whole[len(part) :]
    assert slices == []


def test_scales_of_compiled_layers_hold_their_biases():
    network = vela.layers(("CONV_2D", (40, 3, 3, 8), {}))
    compiled = load_bytes(vela.compile_model(to_bytes(network), "ethos-u55-128"))
    biases = [
        unpack_scales(stream.scales, stream.ofm_depth).bias for stream in compiled_streams(compiled)
    ]
    assert np.concatenate(biases).tolist() == network.ops[0].bias.data.tolist()


TIES = [(1, 3, 70), (1, 6, 68), (2, 7, 161), (3, 6, 138), (3, 6, 140), (3, 7, 164)]


@pytest.mark.parametrize(("height", "width", "ifm_depth"), TIES)
def test_ties_of_traversals_are_decided_like_arms(height, width, ifm_depth):
    network = vela.layers(("CONV_2D", (8, height, width, ifm_depth), {}))
    compiled = load_bytes(vela.compile_model(to_bytes(network), "ethos-u55-128"))
    (stream,) = compiled_streams(compiled)
    assert stream.traversal == choose_traversal(stream.shape, "CONV_2D")


@pytest.mark.parametrize(("ofm_depth", "multiplier"), [(1, 1), (4, 4), (8, 1)])
def test_depthwise_of_one_channel_is_read_like_arms(ofm_depth, multiplier):
    attributes = {"depth_multiplier": multiplier, "ifm_depth": ofm_depth // multiplier}
    network = vela.layers(("DEPTHWISE_CONV_2D", (1, 3, 3, ofm_depth), attributes))
    compiled = load_bytes(vela.compile_model(to_bytes(network), "ethos-u55-128"))
    (stream,) = compiled_streams(compiled)
    expected = choose_traversal(stream.shape, "DEPTHWISE_CONV_2D", depth_multiplier=multiplier)
    assert stream.traversal == expected


@pytest.mark.data
@pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u65-512"])
def test_streams_of_real_models_hold_their_weights(models_dir, npu):
    for name in ("mlperf_kws_dscnn_int8", "mlperf_resnet8_int8", "tflm_person_detect_int8"):
        path = models_dir / f"{name}.tflite"
        network = load(path)
        compiled = load_bytes(vela.compile_model(path.read_bytes(), npu))
        slices = list(merged(compiled_streams(compiled), npu))
        ours = [op.weights_ohwi() for op in network.ops if op.weight_tensors]
        for weights in ours:
            found = np.zeros(len(weights), bool)
            for _, part in slices:
                if part.shape[3] == weights.shape[3] and part.shape[1:3] == weights.shape[1:3]:
                    for first in range(len(weights) - len(part) + 1):
                        if (weights[first : first + len(part)] == part).all():
                            found[first : first + len(part)] = True
            assert found.all()
        chosen = [
            (stream.traversal, choose_traversal(stream.shape, "CONV_2D"))
            for stream, _ in slices
            if stream.kind == "conv"
        ]
        assert all(theirs == ours for theirs, ours in chosen)
