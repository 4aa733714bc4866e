"""The page, from the result files alone."""

from collections.abc import Sequence
from typing import Any

from benchmarks.verdicts.cases import cases
from benchmarks.verdicts.results import RESULTS, loaded
from phystrain.files import write_text


def rung(kelvin: float | None, ladder: Sequence[float]) -> int:
    """How many rungs of a ladder are not above a temperature."""
    return sum(step <= (kelvin or 0.0) + 1e-6 for step in ladder)


def predicted(verdict: dict[str, Any]) -> float:
    """K that a verdict calls safe: none if it calls the potential unsafe."""
    return 0.0 if verdict["grade"] == "unsafe" else float(verdict["kelvin"] or 0.0)


def lowest(verdict: dict[str, Any]) -> float:
    """K, the lowest temperature that survival or a test that failed named, which an unsafe verdict does not tell."""
    named = [verdict["survival, K"], *verdict["failed"].values()]
    return min((float(kelvin) for kelvin in named if kelvin is not None), default=0.0)


READINGS = {
    "the whole verdict": predicted,
    "its temperature, whatever its grade": lowest,
    "its survival test alone": lambda verdict: float(verdict["survival, K"] or 0.0),
}
"""What of a verdict may be taken for the prediction, K; the first one is what counts."""


def cause(result: dict[str, Any]) -> str:
    """Why a verdict names another rung than the truth, in one line."""
    verdict, true, ladder = result["verdict"], result["truth"], result["case"]["ladder"]
    said, found = rung(predicted(verdict), ladder), rung(true["survival, K"], ladder)
    alone = rung(verdict["survival, K"], ladder)
    if said > found:
        return f"too high: runs of {result['case']['picoseconds']:g} ps are too short. Longer: {true['sentence']}"
    if alone < found:
        return f"too low: a short run was lost, with other random numbers: {verdict['survival']}"
    grade = "unsafe" if verdict["grade"] == "unsafe" else "limited"
    low = [test for test, each in verdict["grades"].items() if each == grade]
    return f"too low: runs live, but it is {verdict['grade']} by {', '.join(low)}."


def table() -> str:
    """Write the page."""
    done = [result for case in cases() if "truth" in (result := case.load())]
    lines = [
        "# Verdicts",
        "",
        f"Made by `python -m benchmarks.verdicts table` from the files in `{RESULTS.name}/`.",
        "",
    ]
    lines += _case_lines(done) if done else []
    lines += _real_lines(others) if (others := loaded("real")) else []
    lines += _time_lines(timed) if (timed := loaded("times")) else []
    page = "\n".join(lines).rstrip() + "\n"
    write_text(RESULTS.with_suffix(".md"), page)
    return page


def _case_lines(done: Sequence[dict[str, Any]]) -> list[str]:
    settings = done[0]["case"]
    lines = [
        "## Beside runs that are longer",
        "",
        f"Verdict: `phystrain audit RUN --alone`, runs of {settings['picoseconds']:g} ps, "
        f"{settings['replicas']['verdict']} at each of three temperatures. Truth: the survival test, "
        f"{settings['longer']} times as long, {settings['replicas']['truth']} runs at each, other random numbers. "
        "The cases and guesses of good and bad were listed beforehand in `benchmarks/verdicts/cases.yaml`. K is the "
        "highest temperature at which runs are safe, 0 if there is none. In brackets: by how many rungs of the ladder "
        "(none, 1, 1.5 and 2 times the training temperature) that is off. What counts is the whole verdict, of which "
        "`unsafe` says that no temperature is safe. Seconds are those of the processor.",
        "",
        "| case | guess | grade | verdict, K | temperature, K | survival, K | truth, K | verdict, s | truth, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    off: dict[str, list[int]] = {name: [] for name in READINGS}
    misses = []
    for result in done:
        case, verdict, true = result["case"], result["verdict"], result["truth"]
        found = rung(true["survival, K"], case["ladder"])
        cells = []
        for name, reading in READINGS.items():
            off[name].append(rung(reading(verdict), case["ladder"]) - found)
            cells.append(f"{reading(verdict):,.0f} ({off[name][-1]:+d})".replace("(+0)", "(0)"))
        title = f"{case['experiment']}, {case['variant']}, {case['seed']}"
        lines.append(
            f"| {title} | {case['expect']} | {verdict['grade']} | {' | '.join(cells)} | {true['survival, K']:,.0f} | "
            f"{verdict['seconds']['processor']:.0f} | {true['seconds']:.0f} |"
        )
        if off["the whole verdict"][-1]:
            misses.append(f"* {title} ({off['the whole verdict'][-1]:+d}): {cause(result)}")
    always = [2 - rung(result["truth"]["survival, K"], result["case"]["ladder"]) for result in done]
    lines += ["", "| read as | exact | within one rung | too high | too low |", "| --- | --- | --- | --- | --- |"]
    for name, each in (off | {f"{settings['multiples'][1]:g} times the training temperature, always": always}).items():
        counts = (each.count(0), sum(abs(one) <= 1 for one in each), sum(one > 0 for one in each))
        shown = " | ".join(f"{count} of {len(each)}" for count in (*counts, sum(one < 0 for one in each)))
        lines.append(f"| {name} | {shown} |")
    return [*lines, "", *(["Where the whole verdict is off:", "", *misses, ""] if misses else [])]


def _real_lines(others: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["## Other models", "", "From the command line; seconds of the processor.", ""]
    for found in others:
        sentence = found["sentence"].split(" Known besides")[0].split(";")[0].rstrip(".")  # without the conditions
        lines += [f"**{found['name']}** ({found['seconds']['processor']:.0f} s): {sentence}.", ""]
        lines += [*(f"* {reason}" for reason in found["reasons"]), ""]
    return lines


def _time_lines(timed: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "## What the levels cost",
        "",
        "Wall time with the small preset of PaiNN beside a wall. Tests in dynamics share the minutes they are given.",
        "",
        "| system | atoms that move | levels | threads | minutes given | seconds | asked for | slowest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in timed:
        slow = sorted(found["tests"].items(), key=lambda item: -item[1])[:3]
        lines.append(
            f"| {found['name']}, {found['elements']} elements | {', '.join(map(str, found['atoms']))} | "
            f"{', '.join(map(str, found['levels']))} | {found['threads']} | "
            f"{found['minutes'] if 1 in found['levels'] else '–'} | {found['seconds']:.0f} | {found['limit']} | "
            f"{', '.join(f'{test} {seconds:.0f} s' for test, seconds in slow)} |"
        )
    return [*lines, ""]
