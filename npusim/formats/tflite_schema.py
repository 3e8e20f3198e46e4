# SPDX-License-Identifier: Apache-2.0
"""Facts of the public TFLite schema, version 3: codes, enumerations, attributes of operators.

An attribute has the schema's name, except that ``filter_height`` is `filter_h`, ``stride_w`` and
the like stay, ``dilation_h_factor`` is `dilation_h` and ``fused_activation_function`` is
`fused_activation`. Values: numbers, booleans, enumerators by name ("SAME", "RELU6"), data types by
name ("int8"), vectors as tuples.

Source: [TFLITE] schema.fbs.
"""

# ruff: noqa: SIM905 - two hundred names read better as words than as string literals

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from npusim._arguments import choice, integer, real, real_array
from npusim.errors import ConfigError

IDENTIFIER: Final = b"TFL3"
VERSION: Final = 3

TENSOR_TYPES: Final = tuple(
    "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 "
    "resource variant uint32 uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2".split()
)
"""Names of `npusim.tensor.DTYPES` by their code in a file."""

ENUMS: Final[dict[str, tuple[str, ...]]] = {
    "activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "combiner": ("SUM", "MEAN", "SQRTN"),
    "dtype": TENSOR_TYPES,
    "lsh_projection": ("UNKNOWN", "SPARSE", "DENSE"),
    "lstm_kernel": ("FULL", "BASIC"),
    "mirror_pad": ("REFLECT", "SYMMETRIC"),
    "padding": ("SAME", "VALID"),
    "weights_format": ("DEFAULT", "SHUFFLED4x16INT8"),
}
"""Enumerators by their code, one signed byte each."""

CUSTOM_CODE: Final = 32
"""Code of every custom operator; its name stands beside."""
LEGACY_CODE_MAX: Final = 127
"""Codes from here on are in the second code field; the first then holds this value."""
ETHOS_U: Final = "ethos-u"
"""Custom operator whose work a compiler gave to the NPU; its kind here is "ETHOS_U"."""

_INTEGER_BITS: Final = {"int": 32, "int64": 64, "subgraph": 32}
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_INITIAL: Final[dict[str, Callable[[int], float | str | tuple[int, ...]]]] = {
    "bool": bool,
    "float": float,
    "string": lambda _: "",
    **dict.fromkeys(("ints", "floats", "bytes"), lambda _: ()),
}


class Field(NamedTuple):
    """One attribute of a table of options; the position in its table is the slot in the file.

    Attributes:
        name: key in `Op.attributes`; empty for a slot that is deprecated and ignored.
        type: "int", "int64", "bool", "float", "ints", "floats", "bytes" (vectors),
            "string", "subgraph" (an int that names a subgraph) or a key of `ENUMS`.
        default: number in a file that does not say otherwise.
        minimum: least value of an operator that can be executed.
    """

    name: str
    type: str
    default: int = 0
    minimum: int | None = None

    @property
    def initial(self) -> int | float | str | tuple[int | float, ...]:
        """Value in a file that does not say otherwise, as `Op.attributes` holds it."""
        if self.type in ENUMS:
            return ENUMS[self.type][self.default]
        return _INITIAL[self.type](self.default) if self.type in _INITIAL else self.default


_ACTIVATION = Field("fused_activation", "activation")
_ASYMMETRIC = Field("asymmetric_quantize_inputs", "bool")
_AXIS = Field("axis", "int")
_BIAS_TYPE = Field("quantized_bias_type", "dtype")
_BLOCK_SIZE = Field("block_size", "int", 0, 1)
_CLIPS = (Field("cell_clip", "float"), Field("proj_clip", "float"))
_DEPRECATED = Field("", "int")
_DILATION_D = Field("dilation_d", "int", 1, 1)
_DILATION = (Field("dilation_w", "int", 1, 1), Field("dilation_h", "int", 1, 1))
_FILTER = (Field("filter_w", "int", 0, 1), Field("filter_h", "int", 0, 1))
_NUM_SPLITS = Field("num_splits", "int", 0, 1)
_OUTPUT_TYPE = Field("output_type", "dtype")
_PADDING = Field("padding", "padding")
_POT_SCALE = Field("pot_scale_int16", "bool", 1)
_RESIZE = (Field("align_corners", "bool"), Field("half_pixel_centers", "bool"))
_STRIDE = (Field("stride_w", "int", 0, 1), Field("stride_h", "int", 0, 1))
_TIME_MAJOR = Field("time_major", "bool")

_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")

OPTION_FIELDS: Final[dict[str, tuple[Field, ...]]] = {
    "Conv2D": (_PADDING, *_STRIDE, _ACTIVATION, *_DILATION, _BIAS_TYPE),
    "DepthwiseConv2D": (
        *(_PADDING, *_STRIDE, Field("depth_multiplier", "int"), _ACTIVATION, *_DILATION),
    ),
    "ConcatEmbeddings": (
        Field("num_channels", "int"),
        Field("num_columns_per_channel", "ints"),
        Field("embedding_dim_per_channel", "ints"),
    ),
    "LSHProjection": (Field("type", "lsh_projection"),),
    "Pool2D": (_PADDING, *_STRIDE, *_FILTER, _ACTIVATION),
    "SVDF": (Field("rank", "int"), _ACTIVATION, _ASYMMETRIC),
    "RNN": (_ACTIVATION, _ASYMMETRIC),
    "FullyConnected": (
        _ACTIVATION,
        Field("weights_format", "weights_format"),
        Field("keep_num_dims", "bool"),
        _ASYMMETRIC,
        _BIAS_TYPE,
        Field("quant_spec", "bytes"),
    ),
    "Softmax": (Field("beta", "float"),),
    "Concatenation": (_AXIS, _ACTIVATION),
    "Add": (_ACTIVATION, _POT_SCALE),
    "L2Norm": (_ACTIVATION,),
    "LocalResponseNormalization": (
        Field("radius", "int"),
        *(Field(name, "float") for name in ("bias", "alpha", "beta")),
    ),
    "LSTM": (_ACTIVATION, *_CLIPS, Field("kernel_type", "lstm_kernel"), _ASYMMETRIC),
    "ResizeBilinear": (_DEPRECATED, _DEPRECATED, *_RESIZE),
    "Call": (Field("subgraph", "subgraph"),),
    "Reshape": (Field("new_shape", "ints"),),
    "SkipGram": (
        Field("ngram_size", "int"),
        Field("max_skip_size", "int"),
        Field("include_all_ngrams", "bool"),
    ),
    "SpaceToDepth": (_BLOCK_SIZE,),
    "EmbeddingLookupSparse": (Field("combiner", "combiner"),),
    "Mul": (_ACTIVATION,),
    "Gather": (_AXIS, Field("batch_dims", "int")),
    "Reducer": (Field("keep_dims", "bool"),),
    "Sub": (_ACTIVATION, _POT_SCALE),
    "Div": (_ACTIVATION,),
    "Squeeze": (Field("squeeze_dims", "ints"),),
    "SequenceRNN": (_TIME_MAJOR, _ACTIVATION, _ASYMMETRIC),
    "StridedSlice": (*(Field(name, "int") for name in _MASKS), Field("offset", "bool")),
    "Split": (_NUM_SPLITS,),
    "Cast": (Field("in_data_type", "dtype"), Field("out_data_type", "dtype")),
    "ArgMax": (_OUTPUT_TYPE,),
    "TransposeConv": (_PADDING, *_STRIDE, _ACTIVATION, _BIAS_TYPE),
    "SparseToDense": (Field("validate_indices", "bool"),),
    "Shape": (Field("out_type", "dtype"),),
    "ArgMin": (_OUTPUT_TYPE,),
    "FakeQuant": (
        Field("min", "float"),
        Field("max", "float"),
        Field("num_bits", "int"),
        Field("narrow_range", "bool"),
    ),
    "Pack": (Field("values_count", "int"), _AXIS),
    "OneHot": (_AXIS,),
    "Unpack": (Field("num", "int"), _AXIS),
    "BidirectionalSequenceLSTM": (
        *(_ACTIVATION, *_CLIPS, Field("merge_outputs", "bool"), Field("time_major", "bool", 1)),
        _ASYMMETRIC,
    ),
    "BidirectionalSequenceRNN": (
        *(_TIME_MAJOR, _ACTIVATION, Field("merge_outputs", "bool"), _ASYMMETRIC),
    ),
    "UnidirectionalSequenceLSTM": (
        *(_ACTIVATION, *_CLIPS, _TIME_MAJOR, _ASYMMETRIC),
        Field("diagonal_recurrent_tensors", "bool"),
    ),
    "ResizeNearestNeighbor": _RESIZE,
    "LeakyRelu": (Field("alpha", "float"),),
    "MirrorPad": (Field("mode", "mirror_pad"),),
    "SplitV": (_NUM_SPLITS,),
    "Unique": (Field("idx_out_type", "dtype", TENSOR_TYPES.index("int32")),),
    "ReverseSequence": (Field("seq_dim", "int"), Field("batch_dim", "int")),
    "If": (Field("then_subgraph_index", "subgraph"), Field("else_subgraph_index", "subgraph")),
    "While": (Field("cond_subgraph_index", "subgraph"), Field("body_subgraph_index", "subgraph")),
    "DepthToSpace": (_BLOCK_SIZE,),
    "BatchMatMul": (Field("adj_x", "bool"), Field("adj_y", "bool"), _ASYMMETRIC),
    "Cumsum": (Field("exclusive", "bool"), Field("reverse", "bool")),
    "CallOnce": (Field("init_subgraph_index", "subgraph"),),
    "Conv3D": (
        *(_PADDING, Field("stride_d", "int", 0, 1), *_STRIDE, _ACTIVATION),
        *(_DILATION_D, *_DILATION),
    ),
    "Hashtable": (
        Field("table_id", "int"),
        Field("key_dtype", "dtype"),
        Field("value_dtype", "dtype"),
    ),
    "VarHandle": (Field("container", "string"), Field("shared_name", "string")),
    "Random": (Field("seed", "int64"), Field("seed2", "int64")),
    "Bucketize": (Field("boundaries", "floats"),),
    "Gelu": (Field("approximate", "bool"),),
}
"""Attributes of each table of options (named as in the schema, less "Options") that has any."""

OPTION_TYPES: Final = tuple(
    "NONE Conv2D DepthwiseConv2D ConcatEmbeddings LSHProjection Pool2D SVDF RNN FullyConnected "
    "Softmax Concatenation Add L2Norm LocalResponseNormalization LSTM ResizeBilinear Call Reshape "
    "SkipGram SpaceToDepth EmbeddingLookupSparse Mul Pad Gather BatchToSpaceND SpaceToBatchND "
    "Transpose Reducer Sub Div Squeeze SequenceRNN StridedSlice Exp TopKV2 Split LogSoftmax Cast "
    "Dequantize MaximumMinimum ArgMax Less Neg PadV2 Greater GreaterEqual LessEqual Select Slice "
    "TransposeConv SparseToDense Tile ExpandDims Equal NotEqual Shape Pow ArgMin FakeQuant Pack "
    "LogicalOr OneHot LogicalAnd LogicalNot Unpack FloorDiv Square ZerosLike Fill "
    "BidirectionalSequenceLSTM BidirectionalSequenceRNN UnidirectionalSequenceLSTM FloorMod Range "
    "ResizeNearestNeighbor LeakyRelu SquaredDifference MirrorPad Abs SplitV Unique ReverseV2 AddN "
    "GatherNd Cos Where Rank ReverseSequence MatrixDiag Quantize MatrixSetDiag HardSwish If While "
    "DepthToSpace NonMaxSuppressionV4 NonMaxSuppressionV5 ScatterNd SelectV2 Densify SegmentSum "
    "BatchMatMul Cumsum CallOnce BroadcastTo Rfft2d Conv3D Hashtable HashtableFind "
    "HashtableImport HashtableSize VarHandle ReadVariable AssignVariable Random Bucketize Gelu "
    "DynamicUpdateSlice UnsortedSegmentProd UnsortedSegmentMax UnsortedSegmentMin "
    "UnsortedSegmentSum ATan2 Sign Bitcast BitwiseXor RightShift".split()
)
"""Tables of options by the number that stands for them in a file."""

OPERATORS: Final = tuple(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE "
    "EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D "
    "LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 "
    "RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS "
    "SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER "
    "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE "
    "UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT "
    "LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG "
    "PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE "
    "EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD "
    "REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV "
    "REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU "
    "SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE "
    "RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE "
    "NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM "
    "BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D "
    "IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL "
    "CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS "
    "RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE "
    "RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 "
    "UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT".split()
)
"""Kinds by the number that stands for them in a file."""

_NOT_KINDS = ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES")
CODES: Final = {kind: code for code, kind in enumerate(OPERATORS) if kind not in _NOT_KINDS}
"""Code in a file of each kind that npusim knows."""

_REDUCERS = ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL")
_SHARED_OPTIONS = {
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"), "Pool2D"),
    **dict.fromkeys(_REDUCERS, "Reducer"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimum"),
    **dict.fromkeys(("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL"), "Random"),
    "CONV_3D_TRANSPOSE": "Conv3D",
    "L2_NORMALIZATION": "L2Norm",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNN",
}
_OPTIONS_BY_KIND = {name.upper(): name for name in OPTION_TYPES if name != "NONE"}


def _options_of(kind: str) -> str:
    plain = kind.replace("_", "")
    return _SHARED_OPTIONS.get(kind) or _OPTIONS_BY_KIND.get(plain, "NONE")


OPTIONS: Final = {kind: _options_of(kind) for kind in CODES}
"""Table of options of each kind; "NONE" if it has none. Most are named like their kind."""

VERSIONS: Final = {
    **{"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "TRANSPOSE_CONV": 3},
    **dict.fromkeys(("ADD", "AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "TRANSPOSE"), 2),
    **dict.fromkeys(("CONCATENATION", "LOGISTIC", "SOFTMAX"), 2),
}
"""Version of a kind's definition that int8 networks need, where it is not 1."""


def fields(kind: str) -> tuple[Field, ...]:
    """Attributes of `kind` in the order of their slots; none for kinds without or unknown.

    >>> [field.name for field in fields("SOFTMAX")]
    ['beta']
    """
    return OPTION_FIELDS.get(OPTIONS.get(kind, "NONE"), ())


def checked(field: Field, what: str, value: Any) -> int | float | str | tuple[int | float, ...]:
    """`value` as a file would give it back: floats rounded to float32, sequences as tuples.

    Args:
        field: what the value must be.
        what: how an error calls it.
        value: a number, bool, enumerator, text or sequence.

    Raises:
        UnknownNameError: not an enumerator of the field.
        ConfigError: of another type, or out of range.
    """
    if field.type in ENUMS:
        return choice(what, value, ENUMS[field.type])
    if field.type in _INTEGER_BITS:
        bits = _INTEGER_BITS[field.type]
        low = -(2 ** (bits - 1)) if field.minimum is None else field.minimum
        return integer(what, value, low, 2 ** (bits - 1) - 1)
    if field.type == "float":
        return float(np.float32(real(what, value, -_FLOAT32_MAX, _FLOAT32_MAX)))
    if field.type == "floats":
        values = real_array(what, value, -_FLOAT32_MAX, _FLOAT32_MAX)
        return tuple(values.astype(np.float32).ravel().tolist())
    if field.type in ("ints", "bytes"):
        low, high = (0, 255) if field.type == "bytes" else (-(2**31), 2**31 - 1)
        return tuple(integer(what, item, low, high) for item in value)
    expected = bool if field.type == "bool" else str
    if not isinstance(value, expected):
        raise ConfigError(f"{what} must be of type {expected.__name__}, got {value!r}")
    return value
