"""Tables for a paper: a short one that fits a column, and one that says all, across the page."""

import re

import pandas as pd

from rmlab.report.tables import WORDY, Tables, Words, known

WIDEST = 12  # columns that can be read across a page
ESCAPED = {
    **{"\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "$": "\\$", "&": "\\&", "%": "\\%", "#": "\\#", "_": "\\_"},
    **{"~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "<": "$<$", ">": "$>$", "\u2212": "$-$"},
}


def tex(text: str) -> str:
    """Text with all that TeX takes for a command escaped; a minus before a number is one, not a hyphen."""
    text = re.sub(r"(?<![\w.)\]])-(?=[\d.])", "\u2212", text)
    return "".join(ESCAPED.get(sign, sign) for sign in text)


def short_tables(rows: pd.DataFrame, baseline: str, name: str) -> str:
    """Accuracy of each set in percent: arm, mean and sd, difference with its interval; the best mean in bold.

    rows: of `compare`; name: of the study, for labels.
    """
    parts = ["% \\usepackage{booktabs}"]
    for of_set, part in rows[(rows["metric"] == "accuracy") & (rows["subset"] == "")].groupby("set", sort=False):
        part = part[part["mean"].notna()]
        lines = [
            short_line(row, row["mean"] == part["mean"].max(), row["arm"] == baseline) for _, row in part.iterrows()
        ]
        seeds = part[~part["outside"].astype(bool)]["seeds"]
        number = (
            f"{seeds.min()} to {seeds.max()}" if seeds.nunique() > 1 else f"{seeds.max()}" if len(seeds) else "none"
        )
        caption = (
            f"Accuracy (\\%) on {tex(str(of_set))}, {part['n'].max():,} preferences; chance is 50. Mean $\\pm$ "
            f"standard deviation over seeds ({number}); difference to {tex(baseline)} with its 95\\% interval over "
            "prompts and seeds. Bold: highest mean. *: $p < 0.05$ after Holm's correction."
        )
        widest = max(len(str(arm)) for arm in part["arm"])
        names = "l" if widest <= 18 else "p{0.34\\columnwidth}"
        lines = [[f"\\raggedright {arm}" if widest > 18 else arm, *rest] for arm, *rest in lines]
        parts += table(
            lines, ["", "accuracy", "difference"], f"@{{}}{names}rr@{{}}", caption, f"{name}-{of_set}", "table"
        )
    return "\n".join(parts) + "\n"


def short_line(row: "pd.Series[float]", best: bool, is_baseline: bool) -> list[str]:
    """Cells of an arm; nothing is the difference of the baseline to itself."""
    mean = f"{100 * row['mean']:.1f}"
    mean = f"\\textbf{{{mean}}}" if best else mean
    spread = f" $\\pm$ {100 * row['sd']:.1f}" if known(row["sd"]) else ""
    told = "" if is_baseline else "--"
    if known(row["difference"]):
        low, high = (100 * row[end] for end in ("diff_low", "diff_high"))
        told = tex(f"{100 * row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]" if known(low) else "")
        told += "*" if row["verdict"] else "\\phantom{*}"
    return [tex(str(row["arm"])), mean + spread, told]


def long_tables(tables: Tables, words: Words, name: str) -> str:
    """All tables across the page but those of texts and what is too wide for it; what to know of them as comments."""
    parts = ["% \\usepackage{booktabs,graphicx}"]
    for number, cut in enumerate(
        table for table in tables if table.kind != "flips" and len(table.cells.columns) <= WIDEST
    ):
        lines = [[tex(cell) for cell in line] for line in cut.cells.to_numpy().tolist()]
        titles = [tex(column) for column in cut.cells.columns]
        plain = sum(column in WORDY for column in titles)
        columns = "@{}" + "l" * plain + "r" * (len(titles) - plain) + "@{}"
        label = f"{name}-{cut.set}-{cut.metric}-{cut.kind}" if cut.metric else f"{name}-{cut.kind}-{number}"
        parts += table(lines, titles, columns, tex(cut.title), label, "table*")
    return "\n".join([*parts, *(f"% {fact}" for fact in [*words.facts, *words.notes])]) + "\n"


def table(
    lines: list[list[str]], titles: list[str], columns: str, caption: str, label: str, environment: str
) -> list[str]:
    """A booktabs table; across the page it is set small, and no wider than the text."""
    wide = environment == "table*"
    body = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", " & ".join(titles) + " \\\\", "\\midrule"]
    body += [" & ".join(line) + " \\\\" for line in lines]
    body += ["\\bottomrule", "\\end{tabular}" + "}" * wide]
    size = [
        "\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
    ]
    label = re.sub(r"[^A-Za-z0-9-]+", "-", label)
    head = [
        f"\\begin{{{environment}}}[t]",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:{label}}}",
        "\\smallskip\\centering",
    ]
    return [
        *head,
        *(size if wide else ["\\footnotesize\\setlength{\\tabcolsep}{3pt}"]),
        *body,
        f"\\end{{{environment}}}",
    ]
