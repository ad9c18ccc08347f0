"use strict";
// The picture of a comparison: a cost over trainable numbers, with the Pareto front.

const SYMBOLS = { circuit: ["circle", "●"], dense: ["square", "■"], method: ["triangle", "▲"] };
const symbolOf = (kind) => SYMBOLS[kind] ?? SYMBOLS.method;
// A colour for each family, the reference's first, then in the order of the rows; what does not fit gets the last one.
const COLOURS = 8;
const familyOf = (row) => row.family || row.kind;
const families = [...new Set([...rows.filter(isReference), ...rows].map(familyOf))];
const colourOf = (row) => `var(--family-${Math.min(families.indexOf(familyOf(row)), COLOURS - 1)})`;
const LINES = { stroke: "var(--line)", strokeOpacity: 1 };

function chartControls() {
  const options = costs.map((column) => [column.key, heading(column)]);
  byId("chart-controls").append(
    labelled(
      "Cost",
      select(options, state.cost, (key) => {
        state.cost = key;
        update();
      }),
    ),
  );
}

/** The rows that no other row beats in both, ordered by parameters; of equal ones all. */
function front(points, higher) {
  const sign = higher ? -1 : 1;
  const beats = (a, b) => a.x <= b.x && sign * a.y <= sign * b.y && (a.x < b.x || sign * a.y < sign * b.y);
  return points
    .filter((point) => !points.some((other) => beats(other, point)))
    .sort((a, b) => a.x - b.x || sign * (b.y - a.y));
}

function points() {
  return visible()
    .filter((row) => isNumber(row.trainable) && row.trainable > 0 && isNumber(row[state.cost]))
    .map((row) => ({ row, x: row.trainable, y: row[state.cost], name: nameOf(row) }));
}

/** A row's name; with the layer's widths where the rows are of several. */
function nameOf(row) {
  const one = ["in_features", "out_features"].every((key) => rows.every((other) => other[key] === row[key]));
  return one ? row.name : `${row.name} (${exact(row.in_features)} → ${exact(row.out_features)})`;
}

function scatter(width) {
  const column = known.get(state.cost);
  const all = points();
  if (!column || !all.length) return el("p", { class: "says", text: "There is nothing to draw." });
  const best = front(all, column.better === "higher");
  const yTick = (value) =>
    column.unit.startsWith("bytes") ? bytesText(value) : column.unit === "s" ? secondsText(value) : tick(value);
  const xAxis = logAxis(
    all.map((point) => point.x),
    "",
  );
  const yAxis = all.every((point) => point.y > 0)
    ? logAxis(
        all.map((point) => point.y),
        column.unit,
      )
    : plainAxis(all.map((point) => point.y));
  const others = all.filter(({ row }) => isReference(row));
  const chart = Plot.plot({
    width,
    height: Math.max(300, Math.min(480, width * 0.55)),
    marginLeft: 74,
    marginRight: 40,
    marginTop: 34,
    marginBottom: 44,
    style: CHART_STYLE,
    ariaLabel: `${column.title} against trainable numbers`,
    x: xAxis.scale,
    y: yAxis.scale,
    r: { type: "identity" },
    marks: [
      Plot.gridX(xAxis.ticks, LINES),
      Plot.gridY(yAxis.ticks, LINES),
      Plot.axisX(xAxis.ticks, { text: tick, label: "trainable numbers →" }),
      Plot.axisY(yAxis.ticks, { text: yTick, label: `↑ ${heading(column)}` }),
      Plot.line(best, {
        x: "x",
        y: "y",
        curve: column.better === "higher" ? "step-before" : "step-after",
        stroke: "var(--front)",
        strokeWidth: 1.5,
        strokeDasharray: "5 4",
      }),
      Plot.ruleX(others, { x: "x", stroke: "var(--line-strong)", strokeDasharray: "2 4" }),
      Plot.ruleY(others, { y: "y", stroke: "var(--line-strong)", strokeDasharray: "2 4" }),
      Plot.dot(all, {
        x: "x",
        y: "y",
        fill: ({ row }) => colourOf(row),
        symbol: ({ row }) => (isReference(row) ? "star" : symbolOf(row.kind)[0]),
        r: ({ row }) => (isReference(row) ? 8 : 5),
        stroke: "var(--paper)",
        strokeWidth: 1,
      }),
      Plot.text(all.length > mostLabels(width) ? best : all, {
        x: "x",
        y: "y",
        text: "name",
        className: "names",
        dy: -LIFT,
        stroke: "var(--paper)",
        strokeWidth: 4,
        fill: "currentColor",
      }),
      Plot.dot(best, { x: "x", y: "y", stroke: "var(--front)", r: 9, strokeWidth: 1.5 }),
      Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: tipOf, ...TIP })),
    ],
  });
  const holder = el("div", {}, legend(all), chart);
  // The boxes of texts are known once they are in the document.
  requestAnimationFrame(() => tidyLabels(chart, all, best));
  return holder;
}

/** A logarithmic axis: its domain, a little wider than the values, and few round ticks; bytes count in powers of two. */
function logAxis(values, unit) {
  const base = unit.startsWith("bytes") ? 2 : 10;
  const [low, high] = d3.extent(values).map((value) => Math.log(value) / Math.log(base));
  const room = Math.max(0.08 * (high - low), base === 2 ? 1 : 0.25);
  const domain = [base ** (low - room), base ** (high + room)];
  const decades = high - low + 2 * room;
  const steps = base === 2 ? [1] : decades > 2.5 ? [1] : [1, 2, 5];
  const stride = Math.max(1, Math.ceil(decades / 8));
  const powers = d3.range(Math.floor(low - room), Math.ceil(high + room) + 1).filter((power) => power % stride === 0);
  const ticks = powers
    .flatMap((power) => steps.map((step) => step * base ** power))
    .filter((value) => value >= domain[0] && value <= domain[1]);
  return { scale: { type: "log", base, domain, axis: null }, ticks };
}

/** An axis from zero, for figures of which some are zero. */
function plainAxis(values) {
  const scale = d3.scaleLinear([Math.min(0, d3.min(values)), d3.max(values) || 1], [0, 1]).nice(5);
  return { scale: { domain: scale.domain(), axis: null }, ticks: scale.ticks(5) };
}

function mark(row) {
  const text = isReference(row) ? "★" : symbolOf(row.kind)[1];
  return el("span", { class: "mark", style: `color:${colourOf(row)}`, title: familyOf(row), "aria-hidden": "true", text });
}

function legend(all) {
  const shown = families.map((family) => all.find(({ row }) => familyOf(row) === family)).filter(Boolean);
  const entries = shown.map(({ row }) =>
    el("span", {}, mark(row), isReference(row) ? `${familyOf(row)}, the reference` : familyOf(row)),
  );
  const front = el(
    "span",
    {},
    el("span", { class: "dashes", "aria-hidden": "true" }),
    "Pareto front: no other is better in both",
  );
  return el("p", { class: "legend" }, ...entries, front);
}

// Above this many points only those on the front have labels; pointing at any other tells its name.
const mostLabels = (width) => Math.min(40, width / 18);
// How far a label stands over its dot, clear of the ring of the front; and where it is tried, from there outwards.
const LIFT = 18;
const PLACES = [0, 15, 30, 46, 62, 78, 94].flatMap((far) => [
  [0, -far],
  [1, LIFT - far],
  [-1, LIFT - far],
  [1, LIFT + far],
  [-1, LIFT + far],
  [0, 2 * LIFT + far],
]);

/** Move each label to where it covers neither dots nor labels, nor the front if it can, with a line to a far dot. */
function tidyLabels(chart, all, best) {
  const [x, y] = [chart.scale("x"), chart.scale("y")];
  const taken = all.map((point) => ({ x: x.apply(point.x) - 6, y: y.apply(point.y) - 6, width: 12, height: 12 }));
  const front = d3.pairs(best).flatMap(([from, to]) => {
    const [left, right, before, after] = [x.apply(from.x), x.apply(to.x), y.apply(from.y), y.apply(to.y)];
    const [level, turn] = known.get(state.cost).better === "higher" ? [after, left] : [before, right];
    return [
      { x: left, y: level, width: right - left, height: 0 },
      { x: turn, y: Math.min(before, after), width: 0, height: Math.abs(before - after) },
    ];
  });
  const frame = chart.viewBox.baseVal;
  const inside = (box) =>
    box.x >= 80 && box.x + box.width <= frame.width - 4 && box.y >= 16 && box.y + box.height <= frame.height - 46;
  const apart = (a, b) => a.x + a.width < b.x || b.x + b.width < a.x || a.y + a.height < b.y || b.y + b.height < a.y;
  const names = chart.querySelector(".names");
  const moved = names.transform.baseVal.consolidate()?.matrix ?? { e: 0, f: 0 };
  const told = new Set();
  for (const text of names.querySelectorAll("text")) {
    const own = text.getBBox();
    const { e, f } = text.transform.baseVal.consolidate().matrix;
    const same = `${e},${f},${text.textContent}`;
    const side = own.width / 2 + 13;
    const box = ([across, dy]) => ({
      x: own.x + e + moved.e + across * side,
      y: own.y + f + moved.f + dy,
      width: own.width,
      height: own.height,
    });
    const clear = (place, others) => inside(box(place)) && others.every((one) => apart(box(place), one));
    const free = PLACES.find((place) => clear(place, [...taken, ...front])) ?? PLACES.find((place) => clear(place, taken));
    if (!free || told.has(same)) {
      text.remove();
      continue;
    }
    told.add(same);
    taken.push(box(free));
    text.setAttribute("transform", `translate(${e + free[0] * side},${f + free[1]})`);
    if (free[1] < -15 || free[1] > 2 * LIFT) text.before(leader(e, f + LIFT, box(free), moved));
  }
}

/** A line from a dot to the label that had to move away from it. */
function leader(x, y, box, moved) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const bottom = box.y - moved.f < y ? box.y + box.height - moved.f : box.y - moved.f;
  const ends = { x1: x, y1: y, x2: box.x + box.width / 2 - moved.e, y2: bottom, class: "leader" };
  for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
  return line;
}

function tipOf({ row }) {
  const lines = [known.get("trainable"), known.get(state.cost), known.get("rank_upper")]
    .filter((column, place, all) => column && all.indexOf(column) === place)
    .map((column) => `${column.title}: ${shown(row[column.key], column)}`);
  return [nameOf(row), ...lines].join("\n");
}
