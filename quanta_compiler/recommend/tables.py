"""A recommendation for people: the families, then the circuits of one of them by target."""

from quanta_compiler.compare.tables import connected_text
from quanta_compiler.diagnostics import escape
from quanta_compiler.predict.calibration import PREDICTED
from quanta_compiler.recommend.candidates import own_and_shared
from quanta_compiler.recommend.run import Recommendation, Recommended
from quanta_compiler.text.quantities import bytes_text, percent_text, times_text
from quanta_compiler.text.tables import Column, Table, numbers
from quanta_compiler.text.words import DASH, UPDATE_ALONE, plural, span_text


def recommendation_tables(recommendation: Recommendation, chosen: Recommended | None) -> tuple[Table, ...]:
    """Return the table of families, what was left out, and the circuits of the chosen family."""
    tables = [_families(recommendation)]
    if recommendation.left_out:
        rows = tuple(recommendation.left_out.items())
        tables.append(Table("nothing under the budget", (Column(""), Column("", is_remark=True)), rows))
    if chosen is not None:
        tables.append(_circuits(recommendation, chosen))
    return tuple(tables)


def _families(recommendation: Recommendation) -> Table:
    model, budget = recommendation.model, recommendation.budget
    modules = ", ".join(f"{group.layers} {group.name}" for group in recommendation.groups)
    said = PREDICTED[recommendation.origin]
    of = f" ({escape(recommendation.device)})" if recommendation.origin == "computed" else ""
    title = (
        f"{escape(model.name)}, {plural(len(model.shapes()), 'module')} ({escape(modules)})\n"
        f"budget {escape(budget.text)}: {recommendation.numbers:,} of {model.parameters:,} parameters\n"
        f"step: its time as a multiple of that of LoRA r=8,\n{UPDATE_ALONE};\n"
        f"{said}{of}, {recommendation.tokens:,} tokens"
    )
    columns = (Column(""), *numbers("trainable", "of budget", "step", "saved/token", "rank", "connected"))
    return Table(title, columns, tuple(_family(recommendation, one) for one in recommendation.choices))


def _family(recommendation: Recommendation, choice: Recommended) -> tuple[str, ...]:
    row, slower = choice.row, recommendation.slower_than_lora(choice)
    return (
        choice.family,
        f"{row.trainable:,}",
        percent_text(100 * row.trainable / recommendation.numbers),
        DASH if slower is None else times_text(slower),
        bytes_text(row.saved_bytes_per_token),
        span_text(min(choice.ranks.values()), max(choice.ranks.values())),
        connected_text(row),
    )


def _circuits(recommendation: Recommendation, choice: Recommended) -> Table:
    rows = tuple(
        (
            escape(group.name),
            f"{group.in_features} -> {group.out_features}",
            str(group.layers),
            choice.circuits[group.shape]["name"],
            _trained_text(*own_and_shared(choice.circuits[group.shape], group.shape)),
        )
        for group in recommendation.groups
    )
    headings = (Column("target"), Column("features"), *numbers("modules"), Column("circuit"), *numbers("trainable"))
    return Table(f"circuits of {choice.family}", headings, rows)


def _trained_text(own: int, shared: int) -> str:
    """Return what a layer trains, and what it trains together with others, as `64 + 98,304 shared`."""
    return f"{own:,} + {shared:,} shared" if shared else f"{own:,}"
