# SPDX-License-Identifier: Apache-2.0
"""Training of candidates, the paper's three stages: quantize, prune more and more, both.

`recipes` has all settings, `plan` what they mean at each step, `tasks` images and losses, `loop`
the training itself, `group` several processes, `runs` a training in a directory that can be
resumed.

Source: [UDC] section 5.
"""
