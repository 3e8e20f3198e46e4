# SPDX-License-Identifier: Apache-2.0
"""Trained candidates and other int8 networks, deployed and measured: the commands for it."""
