"use strict";
// The contraction graph, and the plan as a walk through it.

const DENSE_GRAPH = 40; // from so many nodes on, names and sizes are shown by pointing alone
const LINE = 24; // the height of a node

function graph() {
  const nodes = data.graph.nodes.map((node) => ({ ...node, width: nodeWidth(node) }));
  const edges = data.graph.edges.map((edge) => ({ ...edge }));
  fan(edges);
  const picture = drawnGraph(nodes, edges);
  byId("graph").append(picture.svg);
  const modes = { apply: report.apply.steps, operator: report.operator.steps };
  let mode = "apply";
  let halts = [];
  const range = el("input", { type: "range", min: 0, value: 0, step: 1, input: () => show() });
  const show = () => {
    const halt = Number(range.value);
    setText("graph-step", stepText(modes[mode], halts, halt));
    mark(picture, merged(modes[mode], halts[halt - 1], nodes));
    if (halt) bringIntoView(picture);
  };
  const start = (chosen) => {
    mode = chosen;
    halts = haltsOf(modes[mode], data.folds[mode]);
    range.max = halts.length;
    range.value = 0;
    show();
  };
  byId("graph-controls").append(
    labelled(
      "Plan",
      select(
        [
          ["apply", "forward"],
          ["operator", "operator()"],
        ],
        mode,
        start,
      ),
    ),
    labelled("Step", range),
  );
  start(mode);
}

function nodeWidth(node) {
  return data.graph.nodes.length > DENSE_GRAPH && node.column >= 0 && node.kind !== "output"
    ? 18
    : Math.max(34, 7.4 * Math.min(node.name.length, 14) + 16);
}

/** Number the edges that join the same two nodes, so that they are drawn apart. */
function fan(edges) {
  const groups = d3.group(edges, (edge) => `${edge.source}\n${edge.target}`);
  for (const group of groups.values()) {
    group.forEach((edge, place) => {
      edge.bend = place - (group.length - 1) / 2;
    });
  }
}

function drawnGraph(nodes, edges) {
  const dense = nodes.length > DENSE_GRAPH;
  const columns = d3.max(nodes, (node) => node.column) + 1;
  // As wide as the page where that leaves room for the sizes on the edges; else it scrolls.
  // The card of the circuit is as wide as that of the graph, which has no width while it is folded away.
  const pitch = dense ? 64 : Math.max(74, Math.min(132, (byId("diagram").clientWidth - 110) / columns));
  const lanes = lanesOf(nodes, edges);
  const most = d3.max(lanes.values()) ?? 0;
  const rows = new Map(
    nodes.map((node) => [
      node.id,
      d3.mean(
        edges.filter((edge) => edge.source === node.id || edge.target === node.id),
        (edge) => lanes.get(edge.axis),
      ) ?? 0,
    ]),
  );
  // The forces begin at fixed places and draw no random numbers: the same circuit gives the same picture.
  nodes.forEach((node) => {
    node.home = [pitch * (node.column + 1), (dense ? 44 : 70) * (rows.get(node.id) - most / 2)];
    [node.x, node.y] = node.home;
  });
  d3.forceSimulation(nodes)
    .force(
      "link",
      d3
        .forceLink(edges)
        .id((node) => node.id)
        .distance(pitch * 0.8)
        .strength(0.06),
    )
    .force(
      "apart",
      d3
        .forceManyBody()
        .strength(dense ? -150 : -500)
        .distanceMax(3 * pitch),
    )
    .force(
      "bodies",
      d3.forceCollide((node) => node.width / 2 + 8),
    )
    .force("x", d3.forceX((node) => node.home[0]).strength(0.5))
    .force("y", d3.forceY((node) => node.home[1]).strength(0.12))
    .force("clear", dense ? null : () => clearWays(nodes, edges))
    .stop()
    .tick(dense ? 120 : 300);
  const [left, right] = [
    d3.min(nodes, (node) => node.x - node.width / 2) - 12,
    d3.max(nodes, (node) => node.x + node.width / 2) + 12,
  ];
  // Edges that are fanned out reach beyond the nodes.
  const heights = [...nodes.map((node) => node.y), ...edges.map((edge) => middle(edge)[1])];
  const [top, bottom] = [d3.min(heights) - LINE - 14, d3.max(heights) + LINE + 14];
  const svg = d3
    .create("svg")
    .attr("viewBox", [left, top, right - left, bottom - top].map((number) => number.toFixed(1)).join(" "))
    .attr("width", Math.round(right - left))
    .attr("height", Math.round(bottom - top))
    .attr("role", "img")
    .attr(
      "aria-label",
      `The contraction graph: ${plural(nodes.length - 2, "gate")} in ${plural(Math.max(columns - 1, 0), "column")}`,
    );
  const lines = svg.append("g").attr("class", "edges").selectAll("g").data(edges).join("g");
  lines
    .append("path")
    .attr("d", edgePath)
    .attr("stroke-width", (edge) => 1 + Math.log2(edge.size) / 2.5);
  lines
    .append("title")
    .text((edge) => `axis ${edge.axis}, size ${edge.size}: ${edge.source.name} to ${edge.target.name}`);
  if (!dense)
    lines
      .append("text")
      .attr("x", (edge) => middle(edge)[0])
      .attr("y", (edge) => middle(edge)[1] + 3.5)
      .text((edge) => `${short(edge.axis)}:${edge.size}`);
  const boxes = svg.append("g").attr("class", "nodes").selectAll("g").data(nodes).join("g");
  boxes
    .append("rect")
    .attr("x", (node) => node.x - node.width / 2)
    .attr("y", (node) => node.y - LINE / 2)
    .attr("width", (node) => node.width)
    .attr("height", LINE)
    .attr("rx", 7)
    .attr("stroke", (node) => (isEnd(node) ? "var(--muted)" : kindColour(node.kind)));
  if (!dense)
    boxes
      .append("text")
      .attr("x", (node) => node.x)
      .attr("y", (node) => node.y + 4)
      .text((node) => short(node.name));
  else
    boxes
      .filter(isEnd)
      .append("text")
      .attr("x", (node) => node.x)
      .attr("y", (node) => node.y + 4)
      .text((node) => node.name);
  boxes.append("title").text((node) => `${node.name}: ${isEnd(node) ? "" : node.words + " "}${shapeText(node.shape)}`);
  return { svg: svg.node(), lines, boxes };
}

/** A height for every axis: one that a gate makes takes that of an axis which the gate ends, or else a free one. */
function lanesOf(nodes, edges) {
  const lanes = new Map();
  const taken = new Set();
  for (const node of d3.sort(nodes, (one) => one.column)) {
    const ends = edges.filter((edge) => edge.target === node.id).map((edge) => edge.axis);
    const begins = edges.filter((edge) => edge.source === node.id).map((edge) => edge.axis);
    for (const axis of ends) if (!begins.includes(axis)) taken.delete(lanes.get(axis));
    const free = ends.filter((axis) => !begins.includes(axis)).map((axis) => lanes.get(axis));
    for (const axis of begins.filter((one) => !lanes.has(one))) {
      const lane = free.shift() ?? d3.range(lanes.size + 1).find((one) => !taken.has(one));
      lanes.set(axis, lane);
      taken.add(lane);
    }
  }
  return lanes;
}

/** Push nodes off the edges that have nothing to do with them. */
function clearWays(nodes, edges) {
  const wanted = LINE + 6;
  for (const edge of edges) {
    const [x, y] = [edge.target.x - edge.source.x, edge.target.y - edge.source.y];
    const length = Math.hypot(x, y) || 1;
    for (const node of nodes) {
      if (node === edge.source || node === edge.target) continue;
      const along = ((node.x - edge.source.x) * x + (node.y - edge.source.y) * y) / (length * length);
      const off = ((node.x - edge.source.x) * -y + (node.y - edge.source.y) * x) / length;
      if (along > 0 && along < 1 && Math.abs(off) < wanted)
        node.vy += 0.25 * (wanted - Math.abs(off)) * Math.sign(off * x || 1);
    }
  }
}

const isEnd = (node) => node.kind === "input" || node.kind === "output";
const short = (text) => (text.length > 14 ? text.slice(0, 13) + "…" : text);

/** The point halfway along an edge, moved aside by its place among the edges between the same nodes. */
function middle({ source, target, bend }) {
  const [dx, dy] = [target.x - source.x, target.y - source.y];
  const length = Math.hypot(dx, dy) || 1;
  return [(source.x + target.x) / 2 - (dy / length) * bend * 24, (source.y + target.y) / 2 + (dx / length) * bend * 24];
}

function edgePath(edge) {
  const [x, y] = middle(edge);
  const { source, target } = edge;
  // The curve passes through that point halfway.
  const control = [2 * x - (source.x + target.x) / 2, 2 * y - (source.y + target.y) / 2];
  return `M${source.x.toFixed(1)} ${source.y.toFixed(1)}Q${control[0].toFixed(1)} ${control[1].toFixed(1)} ${target.x.toFixed(1)} ${target.y.toFixed(1)}`;
}

/** The stretches of a plan that the walk takes at once, [first, last] from 1: a step each, or a run of small ones. */
function haltsOf(steps, folds) {
  const last = new Map(folds);
  const halts = [];
  for (let place = 1; place <= steps.length; place = halts.at(-1)[1] + 1) halts.push([place, last.get(place) ?? place]);
  return halts;
}

/** What is merged after a stretch of steps (none: before the first), and the sides of its last step: gates by id. */
function merged(steps, halt, nodes) {
  const [first, last] = halt ?? [0, 0];
  // Gates that share a parameter are one operand, and go together; a reshape is none, and is never merged.
  const owners = d3.group(nodes, (node) => node.parameter);
  const made = [];
  const parts = (operand) => {
    if (/^%\d+$/.test(operand)) return made[Number(operand.slice(1)) - 1];
    if (operand === "input") return new Set(["input"]);
    const found = owners.get(operand) ?? owners.get(operand.replace(/\.[AB]$/, "")) ?? [];
    return new Set(found.map((node) => node.id));
  };
  for (const step of steps.slice(0, last)) made.push(new Set(step.operands.flatMap((operand) => [...parts(operand)])));
  // Many small steps make matrices of many gates: all of them are what this halt is about.
  const sides = last > first ? made.slice(first - 1) : last ? steps[last - 1].operands.map(parts) : [];
  return { done: new Set(made.flatMap((set) => [...set])), sides };
}

function mark({ lines, boxes }, { done, sides }) {
  const side = (node) => sides.findIndex((set) => set.has(node.id));
  boxes.classed("done", (node) => done.has(node.id)).classed("now", (node) => side(node) >= 0);
  lines
    .classed("now", ({ source, target }) => side(source) >= 0 && side(target) >= 0 && side(source) !== side(target))
    .classed(
      "done",
      ({ source, target }) => done.has(source.id) && done.has(target.id) && side(source) === side(target),
    );
}

/** Scroll a wide picture sideways to what the step is about; the page itself stays where it is. */
function bringIntoView({ svg, boxes }) {
  const view = svg.parentElement;
  const places = boxes
    .filter(".now")
    .data()
    .map((node) => node.x - svg.viewBox.baseVal.x);
  if (places.length) view.scrollLeft = d3.mean(places) - view.clientWidth / 2;
}

function stepText(steps, halts, count) {
  if (!steps.length) return "Nothing to compute.";
  if (!count) return `${plural(halts.length, "step")}. Nothing is contracted yet.`;
  const [first, last] = halts[count - 1];
  const place = `Step ${count} of ${halts.length}:`;
  if (last > first) {
    const flops = d3.sum(steps.slice(first - 1, last), (step) => step.flops);
    return `${place} %${first} to %${last}, ${last - first + 1} small steps, ${amountText(flops)} FLOPs.`;
  }
  const step = steps[last - 1];
  return `${place} %${last} = ${step.op}(${step.operands.join(", ")}), shape ${shapeText(step.shape)}, ${amountText(step.flops)} FLOPs.`;
}
