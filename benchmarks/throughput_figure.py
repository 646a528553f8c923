"""The figures of throughput.py: where the time of a step goes, and pairs per second."""

from pathlib import Path
from typing import Any

from throughput_arms import PARTS


def draw_all(report: dict[str, Any], out: Path) -> None:
    """One figure per model; that of the first is throughput.png."""
    for model in dict.fromkeys(result["model"] for result in report["results"]):
        results = [result for result in report["results"] if result["model"] == model]
        file = out / ("throughput.png" if results[0] is report["results"][0] else f"throughput_{model}.png")
        draw(results, f"{model} on {report['hardware']['device']}", file)
        print(f"wrote {file}", flush=True)


def draw(results: list[dict[str, Any]], title: str, file: Path) -> None:
    """A row per data set. Left: where the time of a step goes, in the first dtype. Right: pairs/s beside trl's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets, dtypes = (list(dict.fromkeys(result[key] for result in results)) for key in ("data", "dtype"))
    pyplot.rcParams.update({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False})
    shape = {"figsize": (12, 1.2 + 2.4 * len(sets)), "layout": "constrained", "squeeze": False, "sharey": "row"}
    figure, axes = pyplot.subplots(len(sets), 2, **shape)
    figure.suptitle(title, fontsize=13)
    for (left, right), name in zip(axes, sets, strict=True):
        of_set = {r["dtype"]: r["arms"] for r in results if r["data"] == name}
        arms = {d: {k: a for k, a in of_set[d].items() if not a["error"]} for d in dtypes if d in of_set}
        draw_parts(left, arms.get(dtypes[0], {}))
        draw_ratios(right, arms, list(next(iter(of_set.values()))))
        for axis, text in ((left, f"{name}: ms per optimizer step, {dtypes[0]}"), (right, "pairs/s, times trl's")):
            axis.set_title(text, loc="left", fontsize=12, fontweight="bold")
    for axis, place in zip(axes[0], ("left", "right"), strict=True):
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc=f"outside lower {place}", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def draw_parts(axis: Any, arms: dict[str, Any]) -> None:
    starts = [0.0] * len(arms)
    for part, colour in zip(PARTS, ("#9aa5b1", "#4c78a8", "#1f3f66", "#f2a541", "#d1495b"), strict=True):
        widths = [max(arm["ms_per_step"][part], 0.0) for arm in arms.values()]
        axis.barh(list(arms), widths, 0.7, starts, label=part, color=colour)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]


def draw_ratios(axis: Any, arms: dict[str, dict[str, Any]], names: list[str]) -> None:
    height = 0.8 / len(arms)
    for i, (dtype, of_dtype) in enumerate(arms.items()):
        ratios = [of_dtype.get(name, {}).get("x_trl_total", 0.0) for name in names]
        places = [j + (i - (len(arms) - 1) / 2) * height for j in range(len(names))]
        bars = axis.barh(places, ratios, height * 0.9, label=dtype, color=("#2a7f62", "#8cc9a1")[i])
        labels = [f"{r:.2f}" if name in of_dtype else "no result" for name, r in zip(names, ratios, strict=True)]
        axis.bar_label(bars, labels, padding=3, fontsize=10)
    axis.axvline(1.0, color="#666666", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.margins(x=0.12)
