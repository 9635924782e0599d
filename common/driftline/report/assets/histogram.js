// A round number of rows between the lines: 1, 2 or 5 times a power of ten.
function roundStep(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, most / 4)));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= most / 4);
}

// How local neighbour similarity is spread over the sampled rows.
function drawHistogram() {
  const of = current();
  const found = of.histograms.find((each) => each.neighbours === chosen.neighbours && each.metric === chosen.metric && each.space === chosen.space);
  const bins = found.moved.length, width = 620, height = 280, left = 52, bottom = 42, top = 12;
  const highest = Math.max(1, ...found.moved.map((each, at) => each + found.still[at]));
  const gap = roundStep(highest), lines = Math.ceil(highest / gap), most = gap * lines;
  const step = (width - left - 10) / bins, y = (count) => height - bottom - ((height - bottom - top) * count) / most;
  const total = [...found.moved, ...found.still].reduce((sum, each) => sum + each, 0);
  const space = chosen.space === "full" ? `all ${of.dim} dimensions` : `${of.views.find((each) => each.name === chosen.space).title} in 2 dimensions, among the drawn rows`;
  const words = `${number(total)} rows: mean similarity ${figure(found.mean)}, median ${figure(found.median)}; K = ${found.neighbours}, ${METRICS[found.metric]}, ${space}.`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Histogram. ${words}` });
  for (let tick = 0; tick <= lines; tick += 1) {
    const count = gap * tick;
    picture.append(svg("line", { x1: left, x2: width - 10, y1: y(count), y2: y(count), class: "axis" }), svg("text", { x: left - 6, y: y(count) + 4, "text-anchor": "end", class: "soft" }, number(count)));
  }
  found.moved.forEach((moved, at) => {
    const still = found.still[at], x = left + at * step;
    const range = `${(at / bins).toFixed(2)} to ${((at + 1) / bins).toFixed(2)}`;
    const bar = svg("g", {}, svg("title", {}, `${range}: ${number(moved)} that moved, ${number(still)} that did not`));
    if (moved) bar.append(svg("rect", { x: x + 1, y: y(moved), width: step - 2, height: height - bottom - y(moved), class: "moved" }));
    if (still) bar.append(svg("rect", { x: x + 1, y: y(moved + still), width: step - 2, height: y(moved) - y(moved + still), class: "still" }));
    picture.append(bar);
  });
  for (let tick = 0; tick <= 5; tick += 1) picture.append(svg("text", { x: left + (tick * bins * step) / 5, y: height - bottom + 18, "text-anchor": "middle", class: "soft" }, (tick / 5).toFixed(1)));
  picture.append(svg("text", { x: left + (bins * step) / 2, y: height - 4, "text-anchor": "middle", class: "soft" }, "local neighbour similarity (Jaccard): 1 = same neighbours"));
  show("histogram", el("p", { class: "hint", id: "histogram-words", "aria-live": "polite" }, words),
    el("ul", { class: "legend" }, el("li", {}, el("i", { class: "moved" }), "rows that moved"), el("li", {}, el("i", { class: "still" }), "rows that did not move themselves")), picture);
}
