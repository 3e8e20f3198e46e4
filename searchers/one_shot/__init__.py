# SPDX-License-Identifier: Apache-2.0
"""Searches on shared weights beside UDC, on its supernet; the step of each is on one screen.

* `reinforce`: TuNAS and TabNAS, policy gradients;
* `frank_wolfe`: HardCoRe-NAS, conditional gradients within the limit;
* `single_path`: uniform sampling, then evolution among scores of `scores`;
* `searchers`: them all as plug-ins.
"""
