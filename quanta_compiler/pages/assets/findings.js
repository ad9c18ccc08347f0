"use strict";
// What a comparison says in one sentence, beside the reference where it takes part.

const reference = rows.find((row) => row.source === data.reference) ?? null;
const ratioTo = (row, key) =>
  reference && isNumber(row[key]) && isNumber(reference[key]) && reference[key] > 0 ? row[key] / reference[key] : null;
const timesText = (ratio) => `${ratio >= 100 ? exact(Math.round(ratio)) : Number(ratio.toPrecision(2))}×`;

/** The best row of a figure among some. */
function bestOf(key, among = rows) {
  const higher = known.get(key)?.better === "higher";
  const sign = higher ? -1 : 1;
  return among.filter((row) => isNumber(row[key])).sort((a, b) => sign * (a[key] - b[key]))[0] ?? null;
}

function findings() {
  const beside = (row, key) => {
    const ratio = ratioTo(row, key);
    return ratio === null || row === reference ? "" : ` (${timesText(ratio)} that of ${reference.name})`;
  };
  const fewest = bestOf("trainable");
  const quickest = bestOf("step_seconds");
  const highest = bestOf("rank_upper");
  if (rows.length < 2 || !fewest || !highest) return "";
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
