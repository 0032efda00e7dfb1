# SPDX-License-Identifier: Apache-2.0
"""What a report means, in sentences for somebody who has not read the tables, and what to do next."""

from __future__ import annotations

import math
import shlex

from paritas.verify.report.rows import Findings

#: The words of the tables, for somebody who meets them for the first time.
WORDS = (
    ("error", "the largest difference of any element, as a share of the mean magnitude of the original's values"),
    ("x tolerance", "how much of what is allowed the worst element uses; up to 1 agrees"),
    ("PyTorch/f64, port/f64", "how far PyTorch itself and the port each are from the same graph in float64"),
    ("ratio", "the port's distance from float64 over PyTorch's; about 1 where both round alike"),
    ("edge", "inputs that are extreme on purpose, as rows that a mask hides whole; they count too"),
    ("corner values", "whole numbers at both ends of what an input may hold"),
    ("guilty", "a node that makes something else of the original's own values than the original makes of them"),
)


def sentence(report: Findings) -> str:
    """What the verdict means for this report."""
    if report.training and not report.outputs:
        steps = len(report.training) - 1
        first = next((row for row in report.training if not row.agrees), None)
        if first is not None and not first.step:
            return "The port does not begin with the original's weights."
        if first is not None:
            return f"From step {first.step} of {steps} on, the training left the tolerance."
        return f"All of {steps} {plural(steps, 'step')} of training are within the tolerance."
    rows = report.outputs
    judged = [row for row in rows if not row.unjudged]
    cases = len({row.case for row in judged})
    compared = f"{len(judged)} {plural(len(judged), 'comparison')} in {cases} {plural(cases, 'case')}"
    off = sum(row.diverges for row in rows)
    if off:
        return f"{off} of {compared} left the tolerance."
    if report.agrees:
        return f"All of {compared} are within the tolerance."
    steps = sum(row.diverges for row in report.generation)
    if steps:
        of = f"{steps} of {len(report.generation)} steps of generations"
        return f"All of {compared} are within the tolerance, but {of} left it."
    backwards = sum(not row.agrees for row in report.gradients)
    if backwards:
        verb = "is" if backwards == 1 else "are"
        words = f"{backwards} {plural(backwards, 'gradient')} {verb} not"
        return f"All of {compared} are within the tolerance, but {words}."
    missing = len(report.unseen) + len(report.unseen_gradients) + len(rows) - len(judged)
    missing += sum(bool(row.unjudged) for row in report.generation)
    return f"Nothing left the tolerance in {compared}, but {missing} could not be compared or judged."


def in_words(report: Findings) -> list[str]:
    """How far off the outputs are, as people who compare models ask: the allowed share, the angle, the choice."""
    found = []
    worst = report.worst_output
    if worst is not None and worst.fault:
        found.append(f"The worst is not a matter of size: {worst.output}, {worst.fault}.")
    elif worst is not None and not worst.unjudged and not math.isnan(worst.excess):
        if worst.agrees:
            found.append(f"The worst element uses {percent(worst.excess)} of what is allowed.")
        else:
            found.append(f"The worst element is {worst.excess:.3g} times as far off as is allowed.")
    if not math.isnan(report.cosine):
        # Rounded down: what is printed as 1 is equal.
        found.append(f"The cosine similarity of the outputs is at least {math.floor(report.cosine * 1e7) / 1e7:.7g}.")
    same, places = report.same_choice
    if places:
        count = "all" if same == places else f"{same:,} of"
        found.append(f"The highest logit is the original's in {count} {places:,} places.")
    return found


def next_steps(report: Findings, directory: str) -> list[tuple[str, str]]:
    """What to do now, and the command that does it."""
    place = shlex.quote(directory)
    again = f" {report.again}" if report.again else ""
    of_pipeline = report.picture is not None or "--component" in report.again
    if report.agrees and of_pipeline:
        return [("use it", f"paritas.diffusers.DiffusionPipeline.from_pretrained({directory!r})")]
    if report.picture is not None:
        return [("see which network it is", f"paritas verify {place}")]
    if report.training and not report.agrees:
        words = "name the node whose gradient is wrong, with a port that is not for training"
        return [(words, f"paritas verify {place} --gradients")]
    if report.agrees and report.training:
        return [("train it", f"paritas.load({directory!r}).cell.set_train()")]
    if report.agrees:
        modified = ", allow_modified=True" if "--allow-modified" in report.again else ""
        return [("use it", f"paritas.load({directory!r}{modified})"), ("measure it", f"paritas bench {place}{again}")]
    steps = []
    if report.verdict == "incomplete":
        steps.append(("give inputs that the original takes", f"paritas verify {place} --inputs FILE.npz{again}"))
    elif report.level != "nodes":
        steps.append(("name the operator and its source line", f"paritas verify {place} --level nodes{again}"))
    if report.verdict == "diverges":
        steps.append(("cut the fault out as a script", f"paritas bisect {place}{again}"))
        if report.environment.precision in ("bfloat16", "float16") and not of_pipeline:
            words = f"see whether it is {report.environment.precision} alone"
            steps.append((words, "paritas port SOURCE --dtype fp32 --out DIR"))
    return steps


def command(report: Findings, directory: str) -> str:
    """What makes this report again, in a shell."""
    backwards = " --gradients" if report.gradient_case else ""
    again = f" {report.again}" if report.again else ""
    return f"paritas verify {shlex.quote(directory)} --level {report.level}{backwards}{again}"


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def plural(count: int, word: str) -> str:
    """The word for that many."""
    return word if count == 1 else f"{word}s"
