# SPDX-License-Identifier: Apache-2.0
"""What a network costs on the NPU; so far the blocks and the weights of its layers."""
