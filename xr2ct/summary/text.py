"""A summary for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GIB = 2**30


def format_summary(told: Mapping[str, Any]) -> str:
    """What `summarise` says, as text."""
    views = ", ".join(f"{angle:g}°" for angle in told["views"])
    side = f"{told['size']}³" if told["window"] is None else f"{told['window']}³ of {told['size']}³"
    lines = [
        f"{told['name']}: {side} from views at {views}",
        "",
        f"{'network':<14}{'parameters':>12}{'forward a sample':>20}{'saved for backward':>22}",
    ]
    for name, n in told["networks"].items():
        lines.append(
            f"{name:<14}{n['parameters'] / 1e6:>10.2f} M{n['flops'] / 1e12:>14.3f} TFLOP"
            f"{n['saved_bytes'] / GIB:>18.2f} GiB" + ("" if n["trained"] else "  never trained")
        )
    device = told["device"]
    lines += [
        "",
        f"{device['name']}, {told['precision']}: memory a rank, GiB, of {device['memory_bytes'] / GIB:.0f} "
        "(* is configured), and time, "
        + ("from rates measured here" if device["measured"] else "extrapolated"),
        f"{'ranks':>5}{'micro-batch':>13}"
        + "".join(f"{f'ZeRO {stage}':>10}" for stage in range(4))
        + f"{'s a step':>12}{'GPU-hours':>12}",
    ]
    for row in told["memory"]:
        cells = (
            f"{size / GIB:.2f}{'*' if stage == told['zero_stage'] else ' '}"
            for stage, size in enumerate(row["bytes_by_zero_stage"])
        )
        hours = "–" if row["gpu_hours"] is None else f"{row['gpu_hours']:.1f}"
        lines.append(
            f"{row['ranks']:>5}{row['micro_batch']:>13}"
            + "".join(f"{cell:>10}" for cell in cells)
            + f"{row['step_seconds']:>12.3g}{hours:>12}"
        )
    weights, engines = (told["checkpoint_bytes"][part] / 1e9 for part in ("weights", "engines"))
    lines += [
        "",
        f"an outer step: {told['step_flops'] / 1e12:.3g} TFLOP; {told['steps']} of them",
        f"a checkpoint: {weights:.2f} GB, {engines:.2f} GB more while training can resume from it",
        _assumed(device),
    ]
    return "\n".join(lines)


def _assumed(device: Mapping[str, Any]) -> str:
    if device["measured"]:
        return "time: each operation at the rate of a convolution or a copy here, one after the other"
    return (
        f"assumed: {device['compute_efficiency']:.0%} of the data sheet's matrix rate and "
        f"{device['memory_efficiency']:.0%} of its memory's, "
        "nodes of 8 ranks and 400 Gb/s a rank between them; nothing of it is measured"
    )
