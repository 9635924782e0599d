// The chosen row: its neighbours in both versions, drawn, and its five measures.
function around(node) {
  const old = neighboursOf(node, "old"), now = neighboursOf(node, "new");
  const before = new Map(old.map((each) => [each.name, each])), after = new Map(now.map((each) => [each.name, each]));
  const kept = old.filter((each) => after.has(each.name)), left = old.filter((each) => !after.has(each.name)), came = now.filter((each) => !before.has(each.name));
  // A neighbour has one direction in both pictures: who left and who came are mixed among those kept.
  const all = [...kept.map((each) => ["kept", each]), ...left.map((each) => ["left", each]), ...came.map((each) => ["came", each])]
    .map(([kind, each]) => ({ kind, name: each.name, id: each.id, drawn: each.drawn, old: before.get(each.name)?.distance, new: after.get(each.name)?.distance }))
    .sort((a, b) => (a.name * 40503) % 65536 - (b.name * 40503) % 65536);
  all.forEach((each, at) => { each.angle = (2 * Math.PI * at) / all.length - Math.PI / 2; });
  return all;
}

function ties(members, side) {
  const inside = new Set(members.map((each) => each.name)), found = [];
  for (const each of members) {
    if (each.drawn === NOBODY) continue;
    for (const other of neighboursOf(each.drawn, side)) if (inside.has(other.name)) found.push([each.name, other.name]);
  }
  return found;
}

function neighbourGraph(node, members, side, version) {
  const width = 540, height = 390, middle = width / 2, centre = height / 2, reach = 158, near = 46;
  const distances = members.flatMap((each) => [each.old, each.new]).filter((each) => each !== undefined);
  const low = chosen.metric === "inner_product" ? Math.min(...distances) : 0, span = Math.max(...distances) - low || 1;
  const here = members.filter((each) => each[side] !== undefined);
  const spot = new Map(here.map((each) => {
    const out = near + ((reach - near) * (each[side] - low)) / span;
    return [each.name, [middle + out * Math.cos(each.angle), centre + out * Math.sin(each.angle)]];
  }));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", id: `graph-${side}`, "aria-label": `${here.length} neighbours of ${current().ids[node]} in ${version}; the table below lists them` });
  for (const [one, other] of ties(here, side)) {
    const [x1, y1] = spot.get(one), [x2, y2] = spot.get(other);
    picture.append(svg("line", { x1, y1, x2, y2, class: "tie" }));
  }
  for (const each of here) {
    const [x, y] = spot.get(each.name);
    picture.append(svg("line", { x1: middle, y1: centre, x2: x, y2: y, class: `spoke ${each.kind}` }));
  }
  for (const each of here) {
    const [x, y] = spot.get(each.name), right = Math.cos(each.angle) > 0.02;
    const mark = each.kind === "came" ? svg("path", { d: `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z`, class: each.kind }) : svg("circle", { cx: x, cy: y, r: 5.5, class: each.kind });
    const label = Math.abs(Math.cos(each.angle)) < 0.15 ? { x, y: y + (Math.sin(each.angle) > 0 ? 21 : -12), "text-anchor": "middle" } : { x: x + (right ? 10 : -10), y: y + 4, "text-anchor": right ? "start" : "end" };
    picture.append(svg("g", {}, svg("title", {}, `${each.id}: ${each.kind}, distance ${figure(each[side])}`), mark, svg("text", label, shortened(each.id, 12))));
  }
  picture.append(svg("circle", { cx: middle, cy: centre, r: 8, class: "centre" }));
  return el("div", {}, el("h3", {}, version), picture);
}

function fiveMeasures(node) {
  const of = current(), changes = changesNow(of);
  const values = {
    change_quantity: `${changes.quantity[node]} of ${chosen.neighbours}`, change_ratio: figure(changes.ratio[node]), jaccard: figure(changes.similarity[node]),
    offset_direction: `${figure((of.direction[node] * 180) / Math.PI)}°`, offset_distance: figure(of.distance[node]),
  };
  return el("dl", { class: "facts five" }, ...of.measures.map((each) => el("div", {}, el("dt", {}, each.title), el("dd", { "data-measure": each.name }, values[each.name], el("small", {}, each.definition)))));
}

function drawNode() {
  const of = current();
  if (chosen.node < 0 || chosen.node >= of.ids.length) return show("node", el("p", { class: "quiet" }, "Choose a row in the list above, or click one in a view."));
  const node = chosen.node, members = around(node);
  const domain = of.domains.length ? ` (${of.domains[of.domain[node]].name})` : "";
  const rows = [...members].sort((a, b) => (a.old ?? Infinity) - (b.old ?? Infinity) || (a.new ?? 0) - (b.new ?? 0)).map((each) => [each.id, each.kind, figure(each.old), figure(each.new)]);
  show("node",
    el("h3", { id: "node-title", "aria-live": "polite" }, `Row ${of.ids[node]}${domain}`),
    el("ul", { class: "legend" }, el("li", {}, el("i", { class: "kept" }), "neighbour in both"), el("li", {}, el("i", { class: "left" }), "left"), el("li", {}, el("i", { class: "came" }), "came"),
      el("li", {}, "farther out: farther away; grey lines: neighbours of each other, as far as they are drawn rows")),
    members.length ? el("div", { class: "pair" }, neighbourGraph(node, members, "old", of.before), neighbourGraph(node, members, "new", of.after)) : el("p", { class: "quiet" }, "It has no neighbours under this distance."),
    fiveMeasures(node),
    el("details", {}, el("summary", {}, "Neighbours as a table"), table(`K = ${chosen.neighbours}, ${METRICS[chosen.metric]}`, [{ label: "id" }, { label: "in which version" }, { label: "distance before", number: true }, { label: "distance after", number: true }], rows)));
}
