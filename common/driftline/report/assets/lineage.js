// The versions as a graph, the newest on top.
function lineagePath(from, to, x, y) {
  const [x1, y1, x2, y2] = [x(from), y(from), x(to), y(to)];
  if (x1 === x2) return `M${x1} ${y1}V${y2}`;
  const bend = x2 > x1 ? y1 + 34 : y2 - 34;
  return x2 > x1
    ? `M${x1} ${y1}C${x1} ${y1 + 20} ${x2} ${bend - 20} ${x2} ${bend}V${y2}`
    : `M${x1} ${y1}V${bend}C${x1} ${bend + 20} ${x2} ${y2 - 20} ${x2} ${y2}`;
}

function drawLineage() {
  const { nodes, lanes, left_out: left } = report.lineage;
  if (!nodes.length) return show("lineage-body", el("p", { class: "quiet" }, "No versions yet."));
  const row = 34, known = new Map(nodes.map((each) => [each.version, each]));
  const backs = nodes.filter((each) => known.has(each.base));
  const x = (each) => 14 + each.lane * 22;
  const y = (each) => row / 2 + each.row * row;
  const edge = 14 + lanes * 22;
  const width = edge + 6 + Math.min(backs.length, 4) * 10, height = nodes.length * row;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Graph of ${nodes.length} versions; the list beside it says the same` });
  for (const each of nodes) {
    each.parents.forEach((name, at) => {
      if (known.has(name)) picture.append(svg("path", { d: lineagePath(each, known.get(name), x, y), class: at ? "merge" : "branch" }));
    });
  }
  backs.forEach((each, at) => {
    const to = known.get(each.base), out = edge + (at % 4) * 10;
    picture.append(svg("path", { d: `M${x(each)} ${y(each)}H${out - 6}Q${out} ${y(each)} ${out} ${y(each) + 6}V${y(to) - 6}Q${out} ${y(to)} ${out - 6} ${y(to)}H${x(to)}`, class: "back" }));
  });
  for (const each of nodes) {
    const compared = each.version === report.before || each.version === report.after;
    picture.append(svg("circle", { cx: x(each), cy: y(each), r: 6.5, class: compared ? "node compared" : "node" }, svg("title", {}, each.version)));
  }
  const items = nodes.map((each) => {
    const words = [moment(each.created), `${number(each.rows)} rows`, `${number(each.changed)} stored`, ...each.facts.map((fact) => `${fact.name} ${fact.value}`)];
    const how = each.base ? `rolled back to ${each.base}` : each.parents.length > 1 ? `merged ${each.parents.slice(1).join(", ")}` : "";
    const meta = [how, ...words].filter(Boolean).join(" · ");
    return el("li", {}, el("b", {}, each.version), ...each.labels.map((label) => el("span", { class: "chip" }, label)), el("span", { class: "meta hint", title: meta }, meta));
  });
  const scenarios = new Map();
  for (const each of nodes) scenarios.set(each.scenario, (scenarios.get(each.scenario) || 0) + 1);
  const spread = [...scenarios].map(([name, count]) => `${name}: ${number(count)}`).join(", ");
  const compared = report.before ? `The two that are compared, ${report.before} and ${report.after}, have a mark of another colour. ` : "";
  show("lineage-body",
    el("p", { class: "hint" }, `Newest on top. ${compared}Versions by scenario: ${spread}.${left ? ` ${number(left)} older ones are not shown.` : ""}`),
    el("ul", { class: "legend" }, el("li", {}, el("i", { class: "branch" }), "continues"), el("li", {}, el("i", { class: "back" }), "went back to")),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Versions" }, el("div", { class: "lineage-box" }, picture, el("ul", { class: "lineage-rows" }, ...items))));
}
