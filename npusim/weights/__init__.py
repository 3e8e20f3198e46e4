# SPDX-License-Identifier: Apache-2.0
"""The Ethos-U weight stream: real weights to bytes and back, sizes without bytes, estimates."""
