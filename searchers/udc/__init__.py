# SPDX-License-Identifier: Apache-2.0
"""UDC, differentiable search for compressible networks, as its paper describes it.

`searchers.udc.search` is the algorithm; the other modules are what its lines call:

* `sampling`: relaxed samples of all decisions, Algorithm 1;
* `projection`: the most that one option may weigh, eq. (8);
* `cost`: the size of relaxed networks, eq. (4);
* `supernet`: the shared weights of all candidates, section 3; `assemble` makes its layers' weights.
"""
