"use strict";
// What a comparison says in one sentence, beside the reference where it takes part.

const references = rows.filter((row) => row.source === data.reference);
const sameWidths = (a, b) => a.in_features === b.in_features && a.out_features === b.out_features;
/** The reference for the widths of a row. */
const referenceOf = (row) => references.find((one) => sameWidths(one, row)) ?? null;
const isReference = (row) => references.includes(row);
const ratioTo = (row, key) => {
  const other = referenceOf(row);
  return other && isNumber(row[key]) && isNumber(other[key]) && other[key] > 0 ? row[key] / other[key] : null;
};

/** The best row of a figure among some. */
function bestOf(key, among = rows) {
  const higher = known.get(key)?.better === "higher";
  const sign = higher ? -1 : 1;
  return among.filter((row) => isNumber(row[key])).sort((a, b) => sign * (a[key] - b[key]))[0] ?? null;
}

function findings() {
  const beside = (row, key) => {
    const ratio = ratioTo(row, key);
    return ratio === null || isReference(row) ? "" : ` (${timesText(ratio)} that of ${referenceOf(row).name})`;
  };
  const fewest = bestOf("trainable");
  const quickest = bestOf("step_seconds");
  const highest = bestOf("rank_upper");
  // Layers of different widths are not compared with each other.
  if (rows.length < 2 || !fewest || !highest || !rows.every((row) => sameWidths(row, rows[0]))) return "";
  const full = rows.filter((row) => row.rank_upper === highest.rank_upper && row.kind !== "dense");
  const first = bestOf("step_seconds", full);
  return [
    `${nameOf(fewest)} trains the fewest numbers${beside(fewest, "trainable")}`,
    ...(quickest ? [`${nameOf(quickest)} takes the shortest step${beside(quickest, "step_seconds")}`] : []),
    ...(first
      ? [`of the ${plural(full.length, "layout")} with the highest rank, ${exact(highest.rank_upper)}, ${nameOf(first)} is the quickest${beside(first, "step_seconds")}`]
      : []),
  ].join("; ") + ".";
}
