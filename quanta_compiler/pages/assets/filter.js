"use strict";
// What a comparison holds, what is chosen of it, and which rows that leaves.

const rows = data.rows;
const known = new Map(data.columns.map((column) => [column.key, column]));
const isNumber = (value) => typeof value === "number";
const filled = data.columns.filter(({ key }) =>
  rows.some((row) => row[key] !== null && row[key] !== undefined && row[key] !== ""),
);
const numeric = filled.filter(({ key }) => rows.some((row) => isNumber(row[key])));
const costs = numeric.filter(({ key, better }) => better && key !== "trainable" && key !== "percent");
// What is the same in every row is said once above the table; the name stays.
const SAME = ["in_features", "out_features", "layers"].filter(
  (key) => rows.length > 1 && rows.every((row) => row[key] === rows[0][key]),
);

const state = {
  cost: (
    costs.find(({ key }) => key === "step_seconds") ??
    costs.find(({ key }) => key === "step_flops_per_token") ??
    costs[0]
  )?.key,
  sort: null,
  descending: false,
  words: "",
  bounded: "trainable",
  least: "",
  most: "",
};

// ---- conditions

const CONDITION = /^([^<>=!]+)(<=|>=|<|>|=)(.*)$/;
const POWERS = { k: 1, m: 2, g: 3, t: 4 };

/** A number as it may be written for a column: `16k` is 16,000, and of bytes, which are shown in KiB, 16,384. */
function readNumber(text, column) {
  const match = /^([-+.\d,_e]+?)([kmgt]?)$/i.exec(text.trim());
  const thousand = column.unit.startsWith("bytes") ? 1024 : 1000;
  const scale = thousand ** (POWERS[match?.[2].toLowerCase()] ?? 0);
  const number = match ? Number(match[1].replaceAll(/[,_]/g, "")) * scale : NaN;
  return text.trim() === "" ? NaN : number;
}

function columnNamed(text) {
  const plain = (name) => name.toLowerCase().replaceAll(/[\s_-]/g, "");
  return data.columns.find(({ key, title }) => plain(key) === plain(text) || plain(title) === plain(text));
}

/** The tests that a filter's words ask for; what cannot be understood is told. */
function tests() {
  const complaints = [];
  const wanted = [];
  for (const word of state.words.trim().split(/\s+/).filter(Boolean)) {
    const match = CONDITION.exec(word);
    const column = match && columnNamed(match[1]);
    const limit = column ? readNumber(match[3], column) : NaN;
    if (!match) {
      const text = word.toLowerCase();
      wanted.push((row) =>
        [row.name, row.kind, row.source, row.backend].some((value) =>
          String(value ?? "")
            .toLowerCase()
            .includes(text),
        ),
      );
    } else if (!column) complaints.push(`There is no column “${match[1]}”.`);
    else if (Number.isNaN(limit)) complaints.push(`“${match[3]}” is no number.`);
    else wanted.push((row) => isNumber(row[column.key]) && compares(row[column.key], match[2], limit));
  }
  for (const [text, sign] of [
    [state.least, ">="],
    [state.most, "<="],
  ]) {
    const limit = readNumber(text, known.get(state.bounded));
    if (text.trim() && Number.isNaN(limit)) complaints.push(`“${text}” is no number.`);
    else if (text.trim())
      wanted.push((row) => isNumber(row[state.bounded]) && compares(row[state.bounded], sign, limit));
  }
  return { wanted, complaints };
}

function compares(value, sign, limit) {
  return { "<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit, "=": value === limit }[
    sign
  ];
}

function visible() {
  const { wanted } = tests();
  return rows.filter((row) => wanted.every((test) => test(row)));
}
