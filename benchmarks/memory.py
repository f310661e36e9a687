"""How much memory does a search on a large network take at most?

ResNet-50 with random weights and random images of 224 x 224 pixels in batches of 32, with repair.
The result is the peak of the whole process, from the first step to the refit at the end.

    python benchmarks/memory.py --images 128
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter

import torch
import torchvision

from slimnet.groups.find import find_groups
from slimnet.options import Options
from slimnet.records.data import Split, Splits
from slimnet.records.search import Step
from slimnet.report.build import environment
from slimnet.search.search import search

RESULTS = Path(__file__).parent / "results" / "memory.json"
LIMIT_MIB = 4096  # a guess: a laptop with 8 GiB has about half of it free


def random_splits(model: torch.nn.Module, images: int, batch_images: int) -> Splits:
    """Return splits of random images, labelled with the network's own answers."""
    made = []
    for number, name in enumerate(("calibration", "selection", "test")):
        generator = torch.Generator().manual_seed(number)
        count = images if name == "calibration" else batch_images
        inputs = torch.randn(count, 3, 224, 224, generator=generator)
        with torch.no_grad():
            labels = torch.cat([model(part).argmax(1) for part in inputs.split(batch_images)])
        batches = list(zip(inputs.split(batch_images), labels.split(batch_images), strict=True))
        made.append(Split(name, count, batches))
    return Splits(*made, description="random", classes=None, preprocessing={})


def peak_mib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128, help="calibration images")
    parser.add_argument(
        "--max-ratio", type=float, default=0.02, help="share of each layer that may go"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    splits = random_splits(model, options.images, 32)
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    before, started = peak_mib(), perf_counter()

    def report(event: str | Step) -> None:
        if isinstance(event, Step):
            print(f"step {event.number}: peak {peak_mib():.0f} MiB", flush=True)

    run_options = Options(
        max_drop=100, confidence=0.5, objective="params", max_ratio=options.max_ratio
    )
    trajectory, _ = search(model, groups, splits, run_options, report)
    result = {
        "network": "resnet50, 224 px, batch 32, random weights",
        "calibration_images": options.images,
        "steps": len(trajectory.steps),
        "finished_by": trajectory.finished_by,
        "before_search_mib": round(before),
        "peak_mib": round(peak_mib()),
        "limit_mib": LIMIT_MIB,
        "seconds": round(perf_counter() - started, 1),
        "environment": environment(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"peak {result['peak_mib']} MiB of the {LIMIT_MIB} allowed")


if __name__ == "__main__":
    main()
