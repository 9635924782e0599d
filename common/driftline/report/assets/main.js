// Draws everything, and again what a choice changes.
function drawTop() {
  const compared = report.before ? `${report.before} → ${report.after}` : report.after;
  show("title", `${report.group}: ${compared}`);
  show("notes", ...(report.notes.length ? [el("div", { class: "card notes", role: "note" }, ...report.notes.map((each) => el("p", {}, each)))] : []));
  const versions = report.lineage.nodes.length + report.lineage.left_out;
  const rollbacks = report.timeline.filter((each) => each.kind === "rollback").length;
  const tiles = [[versions, "versions"], [report.alarms.length, "alarms"], [rollbacks, "steps of rollbacks"]];
  for (const each of report.tables) {
    const found = each.histograms.find((other) => other.neighbours === 10 && other.metric === "cosine" && other.space === "full");
    tiles.push([number(each.changed), `rows of ${each.table} changed`], [figure(found.mean), `mean neighbour similarity of ${each.table}`]);
  }
  show("tiles", ...tiles.map(([value, label]) => el("div", { class: "tile" }, el("b", {}, String(value)), el("span", {}, label))));
  show("made", `Made ${moment(report.made)} UTC by ${report.program}. This page asks no other host for anything.`);
}

function start() {
  drawTop();
  drawTimeline();
  drawAlarms();
  drawLineage();
  if (!report.tables.length) {
    show("compare-body", el("p", { class: "quiet" }, "There are no two versions to compare."));
    return;
  }
  if (!report.tables[0].metrics.includes(chosen.metric)) chosen.metric = report.tables[0].metrics[0];
  const needs = (draw, ...names) => (changed) => { if (!changed || names.some((each) => changed.includes(each))) draw(changed); };
  drawn(needs(() => { if (chosen.colour === "domain" && !current().domains.length) chosen.colour = "similarity"; drawSettings(); drawSummary(); }, "table"));
  drawn(needs(drawViews, "table", "view", "colour"));
  drawn((changed) => { if (changed && ["neighbours", "metric", "node"].some((each) => changed.includes(each))) SIDES.forEach(drawView); });
  drawn(needs(drawHistogram, "table", "neighbours", "metric", "space"));
  drawn(needs(drawRanking, "table", "neighbours", "metric", "node"));
  drawn(needs(drawNode, "table", "neighbours", "metric", "node"));
  drawn(needs(drawDomains, "table"));
  const first = ranked()[0];
  chosen.node = first === undefined ? -1 : first;
  for (const draw of drawers) draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => SIDES.forEach(drawView));
  window.addEventListener("resize", () => SIDES.forEach(drawView));
}

start();
