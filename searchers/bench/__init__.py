# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of search strategies: one protocol for all, statistics, parts that are merged.

`protocol` says what is compared, `protocol_files` reads and writes that, `run` runs it, `fronts`
and `results` say what came out, `merge` puts parts together, `cli` has the commands.
"""
