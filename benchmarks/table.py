"""docs/performance.md from benchmarks/results/*.json: the tables between the markers are replaced, the rest is kept.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- tables begin -->", "<!-- tables end -->"


def main() -> None:
    records = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((HERE / "results").glob("*.json"))}
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = [section for make in (unets, samplers, pipelines, loads, decodes, listings) for section in make(records)]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(sections) + f"\n{END}{after}", encoding="utf-8")
    print(f"wrote {PAGE}")


def unets(records: dict[str, Any]) -> Iterable[str]:
    tables = []
    for record in (records[name] for name in records if name.startswith("unet_step")):
        rows: list[list[str]] = []
        for row in record["rows"]:
            what = [row["case"], f"{row['million_parameters']:g} M", row["dtype"], shape(row["latents"])]
            for plan, result in row["result"].items():
                if plan != "diffusers":
                    base, error = row["result"]["diffusers"]["ms"], row["deviation"][plan]
                    numbers = [f"{base:.1f}", f"{result['ms']:.1f}", f"{result['speedup']:.2f}", f"{error:.1e}"]
                    rows.append([*what, plan, *numbers])
                    what = [""] * 4
        tables.append((record, rows))
    head = ["U-Net", "weights", "dtype", "latents", "plan", "diffusers ms", "ms", "speedup", "deviation"]
    yield section("U-Net, one forward", head, tables)


def samplers(records: dict[str, Any]) -> Iterable[str]:
    """Like for like: where diffusers' step draws its noise, so does ours, and so does the floor."""
    record = records.get("sampler_overhead")
    if record:
        rows = []
        for r in record["rows"]:
            us = r["us_per_step"]
            randn = us.get("randn", 0)
            mine, floor = us.get("ours_drawing", us["ours"]), us["floor"] + randn
            figures = (f"{us['diffusers']:.1f}", f"{mine:.1f}", f"{floor:.1f}")
            rows.append([r["sampler"], shape(r["shape"]), f"{randn:.1f}" if randn else "none", *figures])
        head = ["sampler", "state", "of it torch.randn µs", "diffusers µs", "ours µs", "floor µs"]
        yield section("A sampler's own cost a step", head, [(record, rows)])


def pipelines(records: dict[str, Any]) -> Iterable[str]:
    record = records.get("pipeline_overhead")
    if record:
        rows = []
        for r in record["rows"]:
            us = r["microseconds"]
            rows.append([r["sampler"], shape(r["latents"]), f"{us['diffusers']:.0f}", f"{us['ldmkit']:.0f}"])
        head = ["sampler", "state", "diffusers µs", "ours µs"]
        yield section("A whole pipeline's cost a step beside its network, with guidance", head, [(record, rows)])


def loads(records: dict[str, Any]) -> Iterable[str]:
    record = records.get("loading")
    if not record:
        return
    rows = []
    for r in record["rows"]:
        if "beyond_torch_s" in r:
            rows.append([r["what"], "", f"{r['import_torch_s']:.2f} (import torch)", f"{r['sample_s']:.2f}", ""])
            continue
        for key, what in (("ready_s", "process start to ready, s"), ("again_s", "the load itself, s"),
                          ("touched_s", "touching the U-Net's pages, s")):  # fmt: skip
            theirs, ours = r["diffusers"][key], r["ldmkit"][key]
            rows.append([what, r["as"], f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.2f}"])
        theirs, ours = r["diffusers"]["peak_bytes"], r["ldmkit"]["peak_bytes"]
        rows.append(["peak memory, MB", r["as"], f"{theirs / 1e6:.0f}", f"{ours / 1e6:.0f}", f"{theirs / ours:.2f}"])
    yield section("Loading", ["what", "as", "diffusers", "ours", "ratio"], [(record, rows)])


def decodes(records: dict[str, Any]) -> Iterable[str]:
    record = records.get("codec_decode")
    if record:
        (r,) = record["rows"]
        rows = [
            [name, f"{result['ms']:.0f}", f"{result['speedup']:.2f}", str(r["peak_mib_beyond_weights"][name])]
            for name, result in r["result"].items()
        ]
        head = [f"{r['what']}, budget {r['budget_mib']:g} MiB", "ms", "speedup", "peak MiB beyond weights"]
        yield section("Decoding", head, [(record, rows)])


def listings(records: dict[str, Any]) -> Iterable[str]:
    record = records.get("plugins_listing")
    if record:
        counts = sorted({r["plugins"] for r in record["rows"]})
        took = {(r["command"], r["plugins"]): f"{r['seconds']:.3f}" for r in record["rows"]}
        rows = [[f"`{name}`", *(took[name, n] for n in counts)] for name in dict.fromkeys(name for name, _ in took)]
        head = ["processor time of a fresh process", *(f"s with {n} plugins" for n in counts)]
        yield section("Listing plugins", head, [(record, rows)])


def section(title: str, head: list[str], tables: list[tuple[Any, list[list[str]]]]) -> str:
    """A heading, where the numbers come from, and the table, with the CPU's kind in every row.

    Args:
        tables: records, each with the rows that it gives.
    """
    machines = [record["machine"] for record, _ in tables]
    lines = [f"### {title}", ""]
    lines += dict.fromkeys(
        f"torch {m['torch']}, diffusers {m['diffusers']}, {m['threads']} thread(s). " for m in machines
    )
    lines += [f"`{record['command']}`  " for record, _ in tables] + [""]
    rows = [[*row, record["machine"]["cpu"]] for record, some in tables for row in some]
    lines += [f"| {' | '.join(row)} |" for row in ([*head, "CPU"], ["---"] * (len(head) + 1), *rows)]
    return "\n".join(lines) + "\n"


def shape(sides: list[int]) -> str:
    return "x".join(map(str, sides))


if __name__ == "__main__":
    main()
