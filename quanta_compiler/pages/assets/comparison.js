"use strict";
// The page of a comparison.

const LONG = ["source", "note"];
// What is shown at first, in this order; the others wait in the chooser.
const FIRST = ["name", "rank_upper", "step_seconds", "trainable", "saved_bytes_per_token", "gates_to_connect"];
const BARS = ["step_seconds", "trainable", "saved_bytes_per_token"];
const ordered = [
  ...FIRST.map((key) => filled.find((column) => column.key === key)).filter(Boolean),
  ...filled.filter(({ key }) => !FIRST.includes(key) && !SAME.includes(key)),
];
const chosenColumns = new Set(FIRST);
let redrawChart = () => {};

function main() {
  setText("title", data.title);
  setText("subtitle", subtitle());
  setText("remark", data.device.remark);
  if (data.problems.length) {
    byId("problems-card").hidden = false;
    const failed = data.problems.some(({ severity }) => severity === "error");
    setText("problems-title", failed ? "Problems" : "Warnings");
    byId("problems").append(...data.problems.map(problem));
  }
  setText("findings", findings());
  byId("findings-card").hidden = !findings();
  chartControls();
  tableControls();
  columnControls();
  byId("meanings").append(
    ...filled.flatMap((column) => [el("dt", { text: heading(column) }), el("dd", { text: column.meaning })]),
  );
  redrawChart = drawn(byId("chart"), scatter);
  update();
}

function subtitle() {
  const { device, model } = data;
  const target = (one) =>
    `${exact(one.layers)} × ${one.target} (${exact(one.in_features)} → ${exact(one.out_features)})`;
  return [
    ...(model ? [model.targets.map(target).join(", ")] : []),
    `percent of ${data.percent_of}`,
    "times of the update alone, without the frozen layer",
    device.origin === "computed" ? `computed for ${device.name}, not measured` : `predicted for ${device.name}`,
  ].join(" · ");
}

function problem(one) {
  const place = [one.source, one.line, one.column].filter((part) => part !== null && part !== undefined).join(":");
  const hint = one.hint ? [el("p", { class: "says", text: `hint: ${one.hint}` })] : [];
  return el(
    "div",
    { class: `problem ${one.severity}` },
    el("p", {}, el("strong", { text: `${place}: ` }), `${one.severity === "warning" ? "warning: " : ""}${one.message}`),
    ...hint,
  );
}

// ---- figures ----------------------------------------------------------------------------------------------------

const heading = ({ title, unit }) => (unit ? `${title} (${unit})` : title);

function shown(value, { unit }) {
  if (value === null || value === undefined || value === "") return NONE;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (!isNumber(value)) return String(value);
  if (unit.startsWith("bytes")) return bytesText(value);
  if (unit === "s") return secondsText(value);
  if (unit === "%") return percentText(value);
  return unit.startsWith("FLOPs") ? amountText(value) : exact(value);
}

// ---- table ------------------------------------------------------------------------------------------------------

function tableControls() {
  const field = (name, properties) =>
    el("input", {
      type: "search",
      autocomplete: "off",
      spellcheck: "false",
      ...properties,
      input: (event) => {
        state[name] = event.target.value;
        update();
      },
    });
  byId("table-controls").append(
    labelled(
      "Filter",
      field("words", {
        id: "filter",
        placeholder: "lora trainable<1e6",
        size: 26,
        title: "Words of a name, and conditions such as trainable<1e6 or percent>=0.5",
      }),
    ),
    labelled(
      "Column",
      select(
        numeric.map((column) => [column.key, heading(column)]),
        state.bounded,
        (key) => {
          state.bounded = key;
          update();
        },
      ),
    ),
    labelled("from", field("least", { id: "least", size: 9 })),
    labelled("to", field("most", { id: "most", size: 9 })),
  );
}

/** Rows by the chosen column, in the order of the file where they are equal; what has no figure comes last. */
function sorted(chosen) {
  if (!state.sort) return chosen;
  const sign = state.descending ? -1 : 1;
  const missing = (value) => value === null || value === undefined || value === "";
  const order = (a, b) =>
    isNumber(a) && isNumber(b)
      ? a - b
      : typeof a === "boolean"
        ? Number(a) - Number(b)
        : String(a).localeCompare(String(b), "en", { numeric: true });
  return [...chosen].sort((first, second) => {
    const [a, b] = [first[state.sort], second[state.sort]];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return sign * order(a, b);
  });
}

function update() {
  const { complaints } = tests();
  const chosen = visible();
  const column = known.get(state.cost);
  const best = new Set(column ? front(points(), column.better === "higher").map((point) => point.row) : []);
  byId("table").replaceChildren(figures(sorted(chosen), best));
  byId("table").classList.toggle("tall", chosen.length > 20);
  setText(
    "count",
    [
      `${chosen.length === rows.length ? plural(rows.length, "row") : `${chosen.length} of ${plural(rows.length, "row")}`}.`,
      ...complaints,
    ].join(" "),
  );
  setText("chart-says", column ? column.meaning : "");
  const missing = chosen.length - points().length;
  setText(
    "chart-missing",
    missing ? `${plural(missing, "row")} without this figure ${missing === 1 ? "is" : "are"} not in the picture.` : "",
  );
  redrawChart();
}

function columnControls() {
  const boxes = ordered
    .filter(({ key }) => key !== "name")
    .map((column) =>
      labelled(
        column.title,
        el("input", {
          type: "checkbox",
          "data-column": column.key,
          checked: chosenColumns.has(column.key),
          change: (event) => {
            if (event.target.checked) chosenColumns.add(column.key);
            else chosenColumns.delete(column.key);
            update();
          },
        }),
      ),
    );
  byId("columns").append(...boxes);
}

function figures(chosen, best) {
  const columns = ordered.filter(({ key }) => chosenColumns.has(key));
  const numbers = new Set(numeric.map(({ key }) => key));
  const head = columns.map((column) => {
    const sorting = state.sort === column.key ? (state.descending ? "descending" : "ascending") : "none";
    const unit = column.unit ? [el("span", { class: "unit", text: column.unit })] : [];
    const button = el(
      "button",
      { type: "button", title: column.meaning, "data-key": column.key, click: () => sortBy(column) },
      el("span", { text: column.title }),
      ...unit,
    );
    return el("th", { scope: "col", "aria-sort": sorting, class: numbers.has(column.key) ? "number" : null }, button);
  });
  const line = (row) =>
    el(
      "tr",
      { class: best.has(row) ? "best" : null },
      ...columns.map((column) => cell(row, column, best.has(row), numbers.has(column.key))),
    );
  return el(
    "table",
    { class: "figures" },
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...chosen.map(line)),
  );
}

function cell(row, column, isBest, number) {
  const value = row[column.key];
  const text = shown(value, column);
  if (column.key !== "name") {
    const title = LONG.includes(column.key)
      ? value
      : isNumber(value) && text !== exact(value)
        ? `${exact(value)} ${column.unit}`
        : null;
    const properties = { class: number ? "number" : LONG.includes(column.key) ? "long" : null, title };
    const ratio = BARS.includes(column.key) ? ratioTo(row, column.key) : null;
    const made = el("td", { ...properties, "data-title": column.title });
    if (ratio === null) made.append(text);
    else made.append(el("span", { class: "cost" }, relative(ratio), el("span", { text })));
    return made;
  }
  return el("th", { scope: "row", title: isBest ? "on the Pareto front" : null }, mark(row), el("span", { text }));
}

// A bar reaches its ends at a hundredth of the reference's figure and at a hundred times it.
const DECADES = 2;

/** How many times the reference's figure it is: in digits, and as a bar to the left or the right of it, by logarithm. */
function relative(ratio) {
  const end = Math.max(-1, Math.min(1, Math.log10(Math.max(ratio, 1e-9)) / DECADES));
  const [left, width] = [50 + 50 * Math.min(end, 0), 50 * Math.abs(end)];
  const filled = el("span", { style: `margin-left:${left.toFixed(2)}%;width:${width.toFixed(2)}%` });
  return el(
    "span",
    { class: "relative" },
    el("span", { class: "bar", "aria-hidden": "true" }, filled),
    el("span", { class: "ratio", text: timesText(ratio) }),
  );
}

function sortBy(column) {
  const starts = column.better === "higher";
  state.descending = state.sort === column.key ? !state.descending : starts;
  state.sort = column.key;
  update();
  byId("table")
    .querySelector(`button[data-key="${CSS.escape(column.key)}"]`)
    ?.focus();
}

main();
