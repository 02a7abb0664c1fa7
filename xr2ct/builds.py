"""What CUDA torch and DALI are built for, and the driver here takes: `python -m xr2ct.builds [cpu|12|13]`.

`make install` ends with it, since a package index hands out the build that it likes. It looks at this machine
alone; `xr2ct doctor --cluster NAME` looks at a cluster's nodes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

WANTED = ("cpu", "12", "13")


@dataclass(frozen=True)
class Builds:
    """What is installed."""

    torch: str
    torch_cuda: str | None
    """CUDA that torch is built for, as 13.0; None for the CPU."""
    dali: dict[str, str]
    """CUDA's first number → version, of every DALI that is installed."""
    driver_cuda: str | None
    """The newest CUDA that this machine's driver takes; None without one."""

    def __str__(self) -> str:
        torch = f"CUDA {self.torch_cuda}" if self.torch_cuda else "the CPU"
        dali = " and ".join(f"{version} for CUDA {cuda}" for cuda, version in self.dali.items()) or "none"
        driver = f"takes CUDA {self.driver_cuda}" if self.driver_cuda else "none on this machine"
        return f"torch {self.torch} for {torch}; DALI {dali}; driver: {driver}"


def builds() -> Builds:
    """What is installed, and the driver."""
    import torch

    found = {}
    for cuda in ("12", "13"):
        try:
            found[cuda] = metadata.version(f"nvidia-dali-cuda{cuda}0")
        except metadata.PackageNotFoundError:
            continue
    return Builds(torch.__version__, torch.version.cuda, found, driver_cuda())


def driver_cuda() -> str | None:
    """The newest CUDA that the driver takes, by nvidia-smi."""
    try:
        told = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"CUDA[A-Za-z ]* Version: *(\d+\.\d+)", told)
    return match[1] if match else None


def problems(found: Builds, wanted: str) -> list[str]:
    """What does not fit together, or is not what `wanted` (cpu, 12 or 13) asked for; a line each."""
    lines = []
    built = found.torch_cuda.split(".")[0] if found.torch_cuda else "cpu"
    if wanted != "cpu" and built != wanted:
        lines.append(
            f"CUDA={wanted} was asked for and torch {found.torch} is built for "
            f"{'the CPU' if built == 'cpu' else f'CUDA {found.torch_cuda}'}: "
            "name an index that has it by TORCH_INDEX"
        )
    if len(found.dali) > 1:
        lines.append("DALI is installed twice, and the two share a folder: make the environment anew")
    elif wanted != "cpu" and wanted not in found.dali:
        lines.append(f"CUDA={wanted} was asked for and DALI for it is not installed")
    if built != "cpu" and found.driver_cuda and int(found.driver_cuda.split(".")[0]) < int(built):
        lines.append(
            f"the driver here takes CUDA {found.driver_cuda}, torch is built for {found.torch_cuda}: "
            f"`make install CUDA={found.driver_cuda.split('.')[0]}`, or a newer driver"
        )
    return lines


def main(arguments: list[str]) -> int:
    """Say what is installed; 1 where it does not fit, 2 for a wrong request."""
    wanted = arguments[0] if arguments else "cpu"
    if wanted not in WANTED or len(arguments) > 1:
        print(f"expected one of {', '.join(WANTED)}", file=sys.stderr)
        return 2
    found = builds()
    print(found)
    wrong = problems(found, wanted)
    for line in wrong:
        print(line, file=sys.stderr)
    if found.torch_cuda is None and not wrong:
        print("for GPU nodes: `make install CUDA=12` or CUDA=13, as their driver is")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
