# SPDX-License-Identifier: Apache-2.0
"""Candidates as torch modules: quantized, pruned weights on exactly the layers they describe.

`quantizers` has the number formats of weights, `masks` what is pruned, `weights` both on one
tensor, `activations` int8 feature maps, `modules` the layers, `candidate_net` the whole network.
"""

from spaces.nets.activations import ActivationQuantizer as ActivationQuantizer
from spaces.nets.candidate_net import CandidateNet as CandidateNet
from spaces.nets.candidate_net import build as build
from spaces.nets.masks import magnitude_mask as magnitude_mask
from spaces.nets.modules import Weighted as Weighted
from spaces.nets.quantizers import quantize as quantize
from spaces.nets.weights import CompressedWeight as CompressedWeight
