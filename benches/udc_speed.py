# SPDX-License-Identifier: Apache-2.0
"""How fast UDC searches: its weights, a step beside plain training, many samples beside one.

    python benches/udc_speed.py [weights] [overhead] [amortisation] [memory] [operators]

CPU time on one thread, alternating in one process, the best of several; random images. Raw results
go to ``benches/results/udc_speed.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import spaces
from searchers.data import Split
from searchers.training import recipes
from searchers.training.tasks import Classification
from searchers.udc.assemble import Layout, Mixture, assemble, assemble_shared
from searchers.udc.config import config
from searchers.udc.sampling import Decisions
from searchers.udc.search import Search
from searchers.udc.supernet import Supernet
from spaces.base import Space
from spaces.layers import BITWIDTH_MAX
from spaces.limits import Limit
from spaces.nets import build
from spaces.nets.quantizers import quantize

RESULTS = Path(__file__).parent / "results" / "udc_speed.json"
SPACE_NAME, MULTIPLIER = "cifar100", 2
BATCH = 32


def main() -> None:
    """Run the parts that are named, or all of them."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    parts = {
        "weights": weights,
        "overhead": overhead,
        "amortisation": amortisation,
        "memory": memory,
        "operators": operators,
    }
    if sys.argv[1:2] == ["peak"]:
        peak(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["operators_peak"]:
        operators_peak(sys.argv[2] == "True")
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or parts:
        found[name] = parts[name]()
        for what, value in found[name].items():
            print(f"{name:>14}  {what:<40} {value:10.3f}")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def alternating(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each function, called in turns; once before, for nothing."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: min(each) for name, each in times.items()}


# -- weights


def weights() -> dict[str, float]:
    """ns a weight and sample, forward and backward, of all weights of a wide ResNet."""
    space = spaces.get(SPACE_NAME, multiplier=MULTIPLIER)
    net = Supernet(space, torch.Generator().manual_seed(0))
    n = net.layout.n_weights
    found = {}
    for n_mc in (1, 32):
        rng = torch.Generator().manual_seed(1)
        n_layers, n_options = len(net.full), int(space.n_options.max())
        mixture = [
            torch.rand(n_mc, n_layers, 2 + len(net.layout.bitwidths), generator=rng),
            torch.rand(n_mc, n_layers, n_options + 1, generator=rng),
            torch.rand(n_mc, net.layout.n_columns, generator=rng),
        ]
        ways: dict[str, Callable[..., Tensor]] = {"one pass": assemble, "torch": assemble_shared}
        if n_mc == 1:
            ways["naive torch"] = naive

        def call(way: Callable[..., Tensor], mixture: list[Tensor] = mixture) -> None:
            leaves = [each.requires_grad_() for each in mixture]
            r = net.log_r.exp().detach().requires_grad_()
            result = way(net.layout, net.theta, r, net.beta, net.level, Mixture(*leaves))
            result.sum().backward()

        functions = {name: lambda way=way: call(way) for name, way in ways.items()}
        times = alternating(functions, 5 if n_mc == 1 else 2)
        found |= {f"{k}, {n_mc} samples, ns": 1e9 * v / n / n_mc for k, v in times.items()}
    return found


def naive(
    layout: Layout, theta: Tensor, r: Tensor, beta: Tensor, level: Tensor, mixture: Mixture
) -> Tensor:
    """The equations one after the other: every format and every mask, for every sample."""
    samples = []
    for s in range(len(mixture.kept)):
        parts = []
        for at, (first, n, width, column) in enumerate(layout.layers.tolist()):
            dense = theta[first : first + n]
            formats = mixture.formats[s, at]
            q = formats[0] * dense + formats[1] * quantize(dense, layout.sign_scale[at], 1)
            for b, bitwidth in enumerate(layout.bitwidths):
                q = q + formats[2 + b] * quantize(dense, r[at, b], bitwidth, beta[at])
            m = torch.zeros_like(dense)
            kept = mixture.kept[s, at]
            for k in range(len(kept) - 1):
                m = m + (kept[k] - kept[k + 1]) * (level[first : first + n] <= k)
            columns = mixture.columns[s, column : column + width]
            parts.append(((q * m).view(-1, width) * columns).flatten())
        samples.append(torch.cat(parts))
    return torch.stack(samples)


# -- steps


def overhead() -> dict[str, float]:
    """Time an image of a search step as a part of that of plain training at full width."""
    space = spaces.get(SPACE_NAME, multiplier=MULTIPLIER)
    plain = plain_step(space)
    found = {}
    for n_mc, repeats in ((1, 12), (4, 6), (32, 2)):
        search = a_search(space, n_mc, 1, "bfloat16")

        def several(n: int = n_mc) -> None:
            for _ in range(n):
                plain()

        # masks are refreshed every 16 steps: so often must a step be, in the mean
        times = alternating({"search": search.step, "plain": several}, repeats)
        start = time.process_time()
        search.net.refresh_masks(search.log_pi().detach().exp())
        refresh = (time.process_time() - start) / 16
        per_image = (times["search"] + refresh) / (n_mc * BATCH)
        found[f"search, {n_mc} samples, ms an image"] = 1e3 * per_image
        found[f"plain beside it, {n_mc}, ms an image"] = 1e3 * times["plain"] / (n_mc * BATCH)
        found[f"search / plain, {n_mc} samples"] = per_image * n_mc * BATCH / times["plain"]
    return found


def plain_step(space: Space) -> Callable[[], None]:
    """A step of SGD on the largest candidate, neither quantized nor pruned, in bfloat16."""
    net = build(space, space.largest(), torch.Generator().manual_seed(0))
    for weight in net.weights().values():
        assert weight.bitwidth == BITWIDTH_MAX
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    height, width, depth = space.image_shape
    images = torch.rand(BATCH, depth, height, width)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 100, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(images)
        loss = functional.cross_entropy(outputs.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def a_search(space: Space, n_mc: int, n_together: int, precision: str) -> Search:
    """A search on random images, past its first steps."""
    rng = np.random.default_rng(0)
    n = 4 * BATCH
    data = Split(rng.random((n, *space.image_shape), np.float32), rng.integers(0, 10, n))
    task = Classification(data, recipes.get(space.data_set), torch.device("cpu"))
    settings = config(
        "cpu",
        n_images=50_000 if precision == "bfloat16" else 0,
        epochs=1_000_000,
        batch_size=BATCH,
        n_mc=n_mc,
        n_together=n_together,
        precision=precision,
    )
    found = Search(space, (Limit.size("1.5KB"),), task, settings, 0)
    found.step()
    return found


def amortisation() -> dict[str, float]:
    """Time an image on digits: one sample a step, many one after the other, many side by side."""
    space = spaces.get("digits")
    searches = {
        "1 sample": (1, 1),
        "32 samples, one after the other": (32, 1),
        "32 samples, side by side": (32, 32),
    }
    made = {name: a_search(space, *counts, "float32") for name, counts in searches.items()}

    def steps(search: Search) -> None:
        for _ in range(32 // search.config.n_mc):
            search.step()

    functions = {name: lambda search=search: steps(search) for name, search in made.items()}
    times = alternating(functions, 8)
    found = {f"{name}, ms an image": 1e3 * t / (32 * BATCH) for name, t in times.items()}
    first, *_, last = times.values()
    return found | {"1 sample / 32 side by side": first / last}


# -- memory


def memory() -> dict[str, float]:
    """Most memory of a process that makes two steps on a wide ResNet, MB."""
    found = {}
    for n_mc in (1, 8, 32):
        command = [sys.executable, __file__, "peak", str(n_mc)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[f"{n_mc} samples, MB"] = float(text)
    return found


def peak(n_mc: int) -> None:
    """Print the most memory that two steps with so many samples take, MB."""
    a_search(spaces.get(SPACE_NAME, multiplier=MULTIPLIER), n_mc, 1, "bfloat16").step()
    print(status_mb("VmHWM"))


def operators() -> dict[str, float]:
    """A pass each way of one sample of 128 images through all operators, rematerialized or not.

    Most memory beyond what the process has before, MB, with what is freed given back at once.
    """
    found = {}
    for rematerialize in (False, True):
        command = [sys.executable, __file__, "operators_peak", str(rematerialize)]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        text = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout
        name = "rematerialized" if rematerialize else "kept"
        found[f"{name}, MB"] = float(text)
    passes = {name: operators_pass(name == "rematerialized") for name in ("kept", "rematerialized")}
    times = alternating(passes, 3)
    return {**found, "times the CPU time": times["rematerialized"] / times["kept"]}


def operators_pass(rematerialize: bool) -> Callable[..., Any]:
    """What makes a pass each way, of so many images."""
    space = spaces.get("tiny_imagenet", operators=True, widen=0.25)
    generator = torch.Generator().manual_seed(0)
    net = Supernet(space, generator, rematerialize=rematerialize)
    valid = Decisions.of(space).valid
    z = (valid / valid.sum(1, keepdim=True).double())[None]
    images = torch.randn(1, 128, 3, 64, 64, generator=generator)

    def run(n_images: int = 128) -> None:
        net(images[:, :n_images], z).square().mean().backward()
        net.zero_grad()

    return run


def operators_peak(rematerialize: bool) -> None:
    """Print the most memory that a pass takes beyond what there was before, MB."""
    run = operators_pass(rematerialize)
    run(2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = status_mb("VmRSS")
    run()
    print(status_mb("VmHWM") - before)


def status_mb(what: str) -> float:
    """A figure of this process's memory, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
