"use strict";
// Shows what the server says of each file, anew at every save. Texts are set by `textContent`, and a diagram is an image,
// so that nothing in a file can run.
(() => {
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const figures = (rows) => {
    const table = element("table", "figures");
    const head = table.createTHead().insertRow();
    for (const heading of ["", "this circuit", "LoRA r=8"]) {
      const cell = element("th", heading ? "number" : "", heading);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      const name = element("th", "", row.name);
      name.scope = "row";
      line.append(name, element("td", "number", row.value), element("td", "number", row.reference));
    }
    return table;
  };

  const card = (view) => {
    const made = element("section", view.is_stale ? "card stale" : "card");
    made.append(element("h2", "", view.file), element("p", "says", view.title));
    for (const problem of view.problems) made.append(element("pre", `problem ${problem.severity}`, problem.text));
    if (view.is_stale) made.append(element("p", "says", "as it was before this mistake:"));
    if (view.diagram) {
      const frame = element("div", "wide");
      frame.tabIndex = 0;
      const image = element("img", "diagram");
      image.alt = `The diagram of ${view.title}`;
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(view.diagram)}`;
      frame.append(image);
      made.append(frame, figures(view.figures), element("p", "says", "of the update alone, without the frozen layer"));
    }
    return made;
  };

  const status = document.getElementById("status");
  const files = document.getElementById("files");
  const events = new EventSource("events");
  events.onmessage = (event) => {
    const views = JSON.parse(event.data);
    files.replaceChildren(...views.map(card));
    const wrong = views.filter((view) => view.problems.some((problem) => problem.severity === "error")).length;
    status.textContent = `${wrong ? `${wrong} of ${views.length} with a mistake` : "all is well"}; saved files appear by themselves`;
    document.title = `${wrong ? "✗" : "✓"} quanta watch`;
  };
  events.onerror = () => {
    status.textContent = "disconnected: quanta watch has ended";
  };
})();
