"use strict";
// What all pages share. Data reaches the document as text nodes and attributes of elements made here, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const NONE = "–";

/** Make an element; properties that are functions listen, `text` is its text, everything else is an attribute. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "text") made.textContent = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const setText = (id, text) => {
  byId(id).textContent = text;
};

// ---- figures ----------------------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
const three = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

// Quantities are written as text/quantities.py says and writes them; a test compares.

/** A whole number with thousands apart; four digits of what is no whole number. */
function exact(value) {
  return Number.isInteger(value) || Math.abs(value) >= 10000 ? whole.format(value) : fine.format(value);
}

/** Three digits of a figure: 0.037, 12,345, 1.2e-7. */
function figureText(value) {
  const size = Math.abs(value);
  if ((size > 0 && size < 1e-4) || (size >= 1e15 && size < Infinity)) {
    const [digits, power] = value.toExponential(2).split("e");
    return `${Number(digits)}e${Number(power)}`;
  }
  return (size >= 999.5 ? whole : three).format(value);
}

/** `value` in the largest of `units` that it fills once rounded, each `base` times the one before. */
function scaled(value, base, units) {
  let place = 0;
  while (Math.abs(value) >= base - 0.5 && place < units.length - 1) {
    value /= base;
    place += 1;
  }
  return `${figureText(value)} ${units[place]}`.trimEnd();
}

const bytesText = (value) => scaled(value, 1024, ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]);
const amountText = (value) => scaled(value, 1000, ["", "k", "M", "G", "T", "P"]);
const secondsText = (value) => {
  const [factor, unit] = value === 0 || value >= 0.9995 ? [1, "s"] : value >= 9.995e-4 ? [1e3, "ms"] : [1e6, "us"];
  return `${figureText(value * factor)} ${unit}`;
};
const percentText = (value) => (value >= 99.95 && value < 100 ? "over 99.9%" : `${figureText(value)}%`);
const timesText = (value) => `${figureText(value)}x`;
const plural = (number, noun) => `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;
const shapeText = (shape) => shape.join(" × ") || "1";
/** A tick of an axis: 1k, 2.5M, 10G. */
const tick = d3.format("~s");

// ---- charts -----------------------------------------------------------------------------------------------------

/** Draw `make(width)` into a container, and again whenever its width changes. */
function drawn(container, make) {
  let width = 0;
  const redraw = () => {
    const now = Math.floor(container.clientWidth);
    if (now > 0 && now !== width) {
      width = now;
      container.replaceChildren(make(now));
    }
  };
  redraw();
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(container);
  return () => {
    width = 0;
    redraw();
  };
}

const CHART_STYLE = { background: "transparent", color: "inherit", fontFamily: "inherit", fontSize: "12px" };
const TIP = { fill: "var(--paper)", stroke: "var(--line-strong)", pathFilter: "none", fontSize: 12, lineHeight: 1.35 };

/** The colour of a kind of gate, as in the diagram; that of the first where it has none of its own. */
const KINDS = data.kinds ?? [];
const shownKind = (kind) => (KINDS.includes(kind) ? kind : KINDS[0]);
const kindColour = (kind) => `var(--kind-${shownKind(kind)})`;

// ---- tables and controls ----------------------------------------------------------------------------------------

/** A plain table: `columns` are [heading, is it a number]; cells are texts or nodes. */
function table(columns, rows, properties = {}) {
  const cell = (tag, content, number) => {
    const made = el(tag, { class: number ? "number" : null, scope: tag === "th" ? "col" : null });
    made.append(content);
    return made;
  };
  const head = el("tr", {}, ...columns.map(([heading, number]) => cell("th", heading, number)));
  const body = rows.map((row) => el("tr", {}, ...row.map((content, place) => cell("td", content, columns[place][1]))));
  return el("table", properties, el("thead", {}, head), el("tbody", {}, ...body));
}

/** A bar as wide as `share` of its cell, from 0 to 1. */
function bar(share) {
  return el(
    "span",
    { class: "bar", "aria-hidden": "true" },
    el("span", { style: `width:${(100 * share).toFixed(2)}%` }),
  );
}

/** A text to take away: shown as it is, with a button that copies it. */
function copyable(label, text) {
  const shown = el("pre", { tabindex: "0", "aria-label": label, text });
  const button = el("button", {
    type: "button",
    text: "Copy",
    click: () =>
      copy(text, shown).then((done) => {
        button.textContent = done ? "Copied" : "Press Ctrl+C";
        setTimeout(() => {
          button.textContent = "Copy";
        }, 1500);
      }),
  });
  return el(
    "div",
    { class: "copyable" },
    el("div", { class: "copyable-head" }, el("span", { text: label }), button),
    shown,
  );
}

async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Some browsers keep the clipboard from pages that are files: the text is selected, ready to be copied by hand.
    getSelection().selectAllChildren(shown);
    return false;
  }
}

function labelled(text, control) {
  return el("label", {}, el("span", { text }), control);
}

function select(options, chosen, change) {
  const made = el("select", { change: () => change(made.value) });
  made.append(...options.map(([value, text]) => el("option", { value, text, selected: value === chosen })));
  return made;
}
