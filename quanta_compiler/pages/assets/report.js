"use strict";
// The page of one circuit.

const report = data.report;
const planned = report.apply.planned_tokens;

function main() {
  setText("title", report.name);
  const layout = Object.entries(report.layout);
  const positional = layout.every(([axis], place) => axis === String(place));
  const axes = positional ? layout.map(([, size]) => size).join("×") : layout.map((pair) => pair.join(":")).join(" ");
  const features = `${exact(report.in_features)} → ${exact(report.out_features)} features`;
  setText("subtitle", `${features} · layout ${axes} · ${plural(report.gates.length, "gate")}`);
  byId("cards").append(...besideCards());
  const alone = "of the update alone, without the frozen layer";
  const machine = `the time is predicted for ${data.beside.machine}`;
  setText("beside-says", `x is a multiple of LoRA r=8 for the same widths, ${alone}; ${machine}.`);
  byId("inside-cards").append(...cards());
  byId("gate-table").append(gateTable());
  linkGates();
  drawn(byId("gates"), gateChart);
  rank();
  graph();
  plan("apply", `Planned by ${report.apply.optimizer} for a batch of ${plural(planned, "token")}`, report.apply.steps);
  const slices = report.operator.slices > 1 ? `, built in ${report.operator.slices} slices` : "";
  plan("operator", `Planned by ${report.operator.optimizer}${slices}`, report.operator.steps);
  byId("yaml").append(copyable("YAML", data.yaml));
  byId("einsums").append(...einsums());
}

// ---- key figures ------------------------------------------------------------------------------------------------

/** What a user asks first, each beside the reference. */
function besideCards() {
  const { own, reference } = data.beside;
  const { parameters, rank: bounds } = report;
  const full = Math.min(report.in_features, report.out_features);
  const frozen = parameters.frozen ? `, and ${exact(parameters.frozen)} frozen` : "";
  const rankText =
    bounds.lower === bounds.upper
      ? exact(bounds.upper)
      : bounds.lower
        ? `${exact(bounds.lower)} to ${exact(bounds.upper)}`
        : `at most ${exact(bounds.upper)}`;
  const beside = (key) =>
    own[key] > 0 && reference[key] > 0 ? `${timesText(own[key] / reference[key])} LoRA r=8` : "";
  const time = own.step_seconds === null ? NONE : secondsText(own.step_seconds);
  return [
    card(
      "Trainable parameters",
      exact(parameters.trainable),
      beside("trainable"),
      `${percentText(parameters.percent_of_dense)} of a dense layer’s ${exact(parameters.dense)}${frozen}`,
    ),
    card("Rank of the update", rankText, beside("rank_upper"), `by shapes, of at most ${exact(full)}`),
    card("Time of a step", time, beside("step_seconds"), `forward and backward of ${plural(planned, "token")}`),
    card(
      "Kept for backward",
      bytesText(own.saved_bytes_per_token),
      beside("saved_bytes_per_token"),
      `per token, on the backend ${own.backend}`,
    ),
  ];
}

function cards() {
  const { operator } = report;
  const never = report.breakeven_tokens === null;
  return [
    ...report.backends.flatMap(backendCards),
    card("operator(): FLOPs", amountText(operator.flops), against(operator.sequential_flops, operator.flops)),
    card("operator(): peak", bytesText(operator.peak_bytes), "at once while the matrix is built"),
    card(
      "Break-even",
      never ? "never" : plural(report.breakeven_tokens, "token"),
      never ? "building the matrix is never cheaper" : "in one batch, from which on the matrix is as cheap to build",
    ),
    card("Gain at initialization", figureText(report.init_gain), "size of the output over that of the input"),
  ];
}

/** What a batch takes on a backend; the first is the one that runs where nothing else is asked for. */
function backendCards(backend, place) {
  const aside = data.angles && backend.name === "fused" ? ", without what makes the rotations" : "";
  const byDefault = place ? "" : backend.name === "fused" ? " (default on the CPU)" : " (default)";
  return [
    card(
      `FLOPs per token, ${backend.name}${byDefault}`,
      amountText(backend.flops_per_token),
      against(report.apply.sequential_flops_per_token, backend.flops_per_token),
    ),
    card(
      `Saved per token, ${backend.name}${byDefault}`,
      bytesText(backend.saved_bytes_per_token),
      `kept for backward${aside}; at most ${bytesText(backend.peak_bytes_per_token)} at once in a forward pass`,
    ),
  ];
}

function card(title, figure, ...remarks) {
  return el(
    "div",
    { class: "card figure" },
    el("h2", { text: title }),
    el("p", { class: "big", text: figure }),
    ...remarks.filter(Boolean).map((text) => el("p", { class: "says", text })),
  );
}

function against(sequential, flops) {
  if (!sequential || flops === sequential) return "as gate by gate";
  return `${percentText((100 * flops) / sequential)} of gate by gate (${amountText(sequential)})`;
}

// ---- gates ------------------------------------------------------------------------------------------------------

function gateTable() {
  const columns = [["gate"], ["kind"], ["axes"], ["matrix"], ["parameters", true], ["FLOPs/token", true]];
  return table(
    columns,
    report.gates.map((gate) => [
      gate.name,
      gate.kind,
      gate.axes.join(", "),
      shapeText(gate.shape),
      exact(gate.parameters),
      amountText(gate.flops_per_token),
    ]),
  );
}

/** Join a gate's box, its bars and its row: pointing at one, touching it or going to it by keyboard marks all. */
function linkGates() {
  // A box is called by its title, which begins with the gate's name.
  const boxes = [...document.querySelectorAll("#diagram g > title")].map((title) => title.parentElement);
  for (const box of boxes) box.dataset.gate = box.querySelector("title").textContent.split(":")[0];
  const rows = [...document.querySelectorAll("#gate-table tbody tr")];
  const choose = (place) => {
    const gate = report.gates[place];
    for (const box of boxes) box.classList.toggle("chosen", box.dataset.gate === gate?.name);
    rows.forEach((row, at) => row.classList.toggle("chosen", at === place));
    for (const bars of document.querySelectorAll("#gates [aria-label=bar]"))
      [...bars.children].forEach((bar, at) => bar.classList.toggle("unchosen", gate !== undefined && at !== place));
    setText("gate-says", gate ? gateTip(gate).split("\n").join(" · ") : "");
  };
  const listen = (element, place, name) => {
    element.setAttribute("tabindex", "0");
    if (name) element.setAttribute("role", "img");
    if (name) element.setAttribute("aria-label", name);
    for (const kind of ["pointerenter", "focus", "click"]) element.addEventListener(kind, () => choose(place));
    for (const kind of ["pointerleave", "blur"]) element.addEventListener(kind, () => choose(-1));
  };
  for (const box of boxes) {
    const place = report.gates.findIndex((gate) => gate.name === box.dataset.gate);
    if (place >= 0) listen(box, place, gateTip(report.gates[place]).replaceAll("\n", ", "));
  }
  rows.forEach((row, place) => listen(row, place));
}

/** Two charts over one axis of gates: what is stored above, what is computed below. */
function gateChart(width) {
  const names = report.gates.map((gate) => gate.name);
  const longest = Math.max(...names.map((name) => name.length));
  const room = (width - 70) / names.length;
  const slanted = room < 7.5 * Math.min(longest, 14);
  // Below a line's height names would run into each other: then pointing at a bar tells them.
  const named = room >= 13;
  const shared = {
    width,
    marginLeft: 58,
    marginRight: 12,
    style: CHART_STYLE,
    color: { domain: KINDS, range: KINDS.map(kindColour), unknown: kindColour(KINDS[0]) },
  };
  const kinds = [...new Set(report.gates.map((gate) => shownKind(gate.kind)))];
  const one = (key, label, last) => {
    const most = d3.max(report.gates, (gate) => gate[key]);
    return Plot.plot({
      ...shared,
      height: last && named && slanted ? 150 + Math.min(longest, 14) * 7 : 170,
      marginBottom: last && named ? (slanted ? 16 + Math.min(longest, 14) * 7 : 34) : 14,
      marginTop: 30,
      ariaLabel: `${label} of every gate`,
      x: {
        domain: names,
        label: null,
        axis: last && named ? "bottom" : null,
        tickRotate: slanted ? -90 : 0,
        tickSize: 0,
        tickFormat: (name) => (name.length > 14 ? name.slice(0, 13) + "…" : name),
        padding: 0.2,
      },
      // Nothing is counted in parts of one.
      y: { label, tickFormat: tick, ticks: Math.min(4, most), grid: true, nice: true, zero: true },
      marks: [
        Plot.barY(report.gates, { x: "name", y: key, fill: "kind" }),
        Plot.ruleY([0]),
        Plot.tip(report.gates, Plot.pointerX({ x: "name", y: key, title: gateTip, ...TIP })),
      ],
    });
  };
  const legend = kinds.length < 2 ? [] : [swatches(kinds)];
  return el(
    "div",
    {},
    ...legend,
    one("parameters", "parameters", false),
    one("flops_per_token", "FLOPs per token", true),
  );
}

function swatches(kinds) {
  // Kinds of one colour, such as ry and cz, are one entry.
  const colours = getComputedStyle(document.documentElement);
  const groups = d3.groups(kinds, (kind) => colours.getPropertyValue(`--kind-${kind}`));
  const entry = ([, alike]) =>
    el("span", {}, el("span", { class: "swatch", style: `background:${kindColour(alike[0])}` }), alike.join(", "));
  return el("p", { class: "legend" }, ...groups.map(entry));
}

function gateTip(gate) {
  return [
    `${gate.name}: ${gate.kind} on ${gate.axes.join(", ")}`,
    `matrix ${shapeText(gate.shape)}`,
    plural(gate.parameters, "parameter"),
    `${amountText(gate.flops_per_token)} FLOPs per token`,
  ].join("\n");
}

// ---- rank -------------------------------------------------------------------------------------------------------

function rank() {
  const full = Math.min(report.in_features, report.out_features);
  const { lower, upper } = report.rank;
  const same = lower === upper;
  const says = !lower
    ? `The update has at most rank ${exact(upper)}, of ${exact(full)}; no least rank follows from the shapes.`
    : same
      ? `Whatever full-rank values the gates take, the update has rank ${exact(upper)}, of at most ${exact(full)}.`
      : `The update has at most rank ${exact(upper)} of ${exact(full)}; with gates of full rank it has at least ${exact(lower)}.`;
  setText("rank-says", `${says} Shapes alone decide this, not what is trained.`);
  const most = { at: upper, label: same ? exact(upper) : `at most ${exact(upper)}` };
  const marks = same || !lower ? [most] : [{ at: lower, label: `at least ${exact(lower)}` }, most];
  drawn(byId("rank"), (width) => {
    // A label near an end of the axis turns inwards, and of two near each other the left one turns left.
    const near = marks.length > 1 && (upper - lower) / full < 220 / width;
    const anchor = (mark) => {
      if (mark.at / full > 0.85) return "end";
      if (mark.at / full < 0.15) return "start";
      return near && mark.at === lower ? "end" : near ? "start" : "middle";
    };
    return Plot.plot({
      width,
      height: 92,
      marginLeft: 12,
      marginRight: 12,
      marginTop: 26,
      marginBottom: 34,
      style: CHART_STYLE,
      ariaLabel: "Bounds on the rank",
      x: { domain: [0, full], label: "rank →", tickFormat: (value) => exact(value), ticks: width < 500 ? 4 : 8 },
      y: { axis: null },
      marks: [
        Plot.rect([0], { x1: 0, x2: full, y1: 0, y2: 1, fill: "var(--track)" }),
        Plot.rect([0], { x1: 0, x2: upper, y1: 0, y2: 1, fill: "var(--accent)", fillOpacity: 0.3 }),
        Plot.rect([0], { x1: 0, x2: lower, y1: 0, y2: 1, fill: "var(--accent)" }),
        Plot.ruleX(marks, { x: "at", y1: 0, y2: 1, strokeWidth: 2 }),
        marks.map((mark, place) =>
          Plot.text([mark], {
            x: "at",
            text: "label",
            frameAnchor: "top",
            dy: near && !place && anchor(mark) === anchor(marks[1]) ? 10 : -14,
            textAnchor: anchor(mark),
            fontWeight: 600,
            stroke: "var(--paper)",
            strokeWidth: 4,
            fill: "currentColor",
          }),
        ),
      ],
    });
  });
}

// ---- plan -------------------------------------------------------------------------------------------------------

function plan(mode, says, steps) {
  const total = steps.reduce((sum, step) => sum + step.flops, 0);
  setText(`${mode}-says`, steps.length ? `${says}: ${amountText(total)} FLOPs in all.` : `${says}: nothing to compute.`);
  if (!steps.length) return;
  const largest = Math.max(...steps.map((step) => step.flops), 1);
  let sum = 0;
  const figures = (flops, upTo) => [
    el("span", { class: "cost" }, bar(flops / largest), el("span", { text: amountText(flops) })),
    total ? percentText(100 * (upTo / total)) : NONE,
  ];
  const rows = steps.map((step, place) => {
    sum += step.flops;
    return [`%${place + 1}`, step.op, step.operands.join("  "), shapeText(step.shape), ...figures(step.flops, sum)];
  });
  const columns = [["result"], ["step"], ["of"], ["shape"], ["FLOPs", true], ["so far", true]];
  const made = table(columns, rows, { class: "steps" });
  const body = made.tBodies[0];
  const each = [...body.rows];
  for (const [first, last] of data.folds[mode]) {
    const flops = d3.sum(steps.slice(first - 1, last), (step) => step.flops);
    const upTo = d3.sum(steps.slice(0, last), (step) => step.flops);
    const line = [`%${first} to %${last}`, `${last - first + 1} small steps`, "", "", ...figures(flops, upTo)];
    body.insertBefore(foldedRow(columns, line, each.slice(first - 1, last)), each[first - 1]);
  }
  byId(`${mode}-steps`).append(made);
  byId(`${mode}-steps`).classList.toggle("tall", [...body.rows].filter((row) => !row.hidden).length > 40);
}

/** One row for many, which are hidden until its button is pressed. */
function foldedRow(columns, line, hidden) {
  const row = table(columns, [line]).tBodies[0].rows[0];
  const button = el("button", { type: "button", "aria-expanded": "false", text: "Show" });
  const show = (open) => {
    for (const one of hidden) one.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Hide" : "Show";
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
  show(false);
  row.classList.add("folded");
  row.cells[1].append(" ", button);
  return row;
}

function einsums() {
  const lines = (part) =>
    [
      `operands  ${part.operands.join(", ")}`,
      `einsum    ${part.einsum}`,
      `path      ${JSON.stringify(part.path).replaceAll(",", ", ")}`,
    ].join("\n");
  return [copyable("forward", lines(report.apply)), copyable("operator()", lines(report.operator))];
}

main();
