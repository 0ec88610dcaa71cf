"""The GPU benchmark's table."""

from __future__ import annotations

from typing import Any


def name(cell: dict[str, Any]) -> str:
    """One line on a cell."""
    how = [cell["variant"]] if cell["variant"] else []
    if cell.get("micro", 1) > 1:
        how.append(f"in {cell['micro']} parts")
    return " ".join([cell["library"], cell["architecture"], *how, cell["dtype"], f"B={cell['batch']}"])


def line(result: dict[str, Any]) -> str:
    """What is printed when a cell is done."""
    if "failed" in result:
        return f"{name(result['cell'])}: {result['failed']}: {result['message']}"
    parts = result.get("parts", {})
    found = (
        f"{name(result['cell'])}: {1e3 * result['step_seconds']:.2f} ms, {result['ratio']:.2f} G "
        f"({result['ratio_range'][0]:.2f} to {result['ratio_range'][1]:.2f}); G {1e3 * result['product_seconds']:.2f} ms, "
        f"{result['product_tflops']:.0f} TFLOP/s; peak {result.get('peak_bytes', 0) / 2**30:.1f} GiB; {result['described']}"
    )
    if parts:
        found += f"; busy {1e3 * parts['busy']:.2f} ms, {parts['launches']:.0f} launches: " + ", ".join(
            f"{part} {1e3 * seconds:.2f}" for part, seconds in parts["parts"].items()
        )
        for kernel, facts in sorted(parts["kernels"].items(), key=lambda item: -item[1]["seconds"]):
            found += f"\n    {1e3 * facts['seconds']:8.3f} ms {facts['launches']:6.1f} x {kernel}"
    return found


def table(found: dict[str, Any]) -> str:
    """The whole report in Markdown."""
    machine, sizes = found["machine"], found["sizes"]
    lines = [
        f"# GPU, {machine['device']}",
        "",
        ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if key != "device") + ".",
        "",
        f"d = {sizes['width']}, F = {sizes['features']:,}, k = {sizes['k']}. G is `torch.mm(x[B, d], W[d, F], out=)` of bfloat16 factors "
        "into bfloat16. A step is a whole one, from an idle device to an idle device, mean over 16 (ours) or 4 (peers) in a row; "
        "step / G is the median over rounds, each divided by the median of ten products around it; in brackets the range. "
        "Batches lie on the device. "
        "`fastest` divides by the fastest product at that size in the run: after many steps the card multiplies slower. "
        f"A copy moves {found.get('copy_bytes_per_second', 0) / 1e12:.2f} TB/s, bytes read and written.",
        "",
        "| | step / G | fastest | step ms | G ms | TFLOP/s of G | peak GiB | L0 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    fastest = _fastest(found["cells"])
    for result in found["cells"]:
        if "failed" in result:
            lines.append(f"| {name(result['cell'])} | {result['failed']} | | | | | | |")
            continue
        low, high = result["ratio_range"]
        lines.append(
            f"| {name(result['cell'])} | {result['ratio']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{result['step_seconds'] / fastest[result['cell']['batch']]:.2f} | {1e3 * result['step_seconds']:.2f} | "
            f"{1e3 * result['product_seconds']:.2f} | {result['product_tflops']:.0f} | {result.get('peak_bytes', 0) / 2**30:.1f} | "
            f"{result['described']['l0']:.1f} |"
        )
    lines += [f"| {name(cell)} | not measured: no time left | | | | | | |" for cell in found["left_out"]]
    lines += _parts(found)
    if "feeding" in found:
        lines += [
            "",
            "## Feeding",
            "",
            "Float32 rows from pageable memory to the device, as `Session` brings them; not in the steps above.",
            "",
        ]
        lines += [
            f"- B = {int(batch):,}: pinning {1e3 * times['pinning']:.1f} ms, copying {1e3 * times['copying']:.1f} ms"
            for batch, times in found["feeding"].items()
        ]
    if "same_bits" in found:
        lines += ["", f"Two runs of four steps leave the same bits in every parameter: {found['same_bits']}."]
    return "\n".join(lines) + "\n"


def _fastest(results: list[dict[str, Any]]) -> dict[int, float]:
    """Seconds of the fastest product by the rows of a step."""
    times: dict[int, list[float]] = {}
    for result in results:
        for samples in result.get("samples", {}).get("products", []):
            times.setdefault(result["cell"]["batch"], []).extend(samples)
    return {batch: min(found) for batch, found in times.items()}


def _parts(found: dict[str, Any]) -> list[str]:
    """Where the time of our steps goes."""
    lines = []
    for result in found["cells"]:
        if "parts" not in result:
            continue
        parts, unit = result["parts"], result["product_seconds"]
        lines += [
            "",
            f"## {name(result['cell'])}: where the time goes",
            "",
            f"{parts['launches']:.0f} launches a step. In four steps that were profiled by themselves the device was busy for "
            f"{1e3 * parts['busy']:.2f} ms each.",
            "",
            "| part | ms | of G | its bytes at the speed of a copy, ms |",
            "| --- | --- | --- | --- |",
        ]
        floors = result.get("floors", {})
        for part, seconds in sorted(parts["parts"].items(), key=lambda item: -item[1]):
            floor = f"{1e3 * floors[part]:.2f}" if part in floors else ""
            lines.append(f"| {part} | {1e3 * seconds:.2f} | {seconds / unit:.2f} | {floor} |")
    return lines
