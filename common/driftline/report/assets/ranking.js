// The drawn rows that changed, most changed first.
const PAGE = 12;
const ranking = { by: "similarity", descending: false, page: 0, movedOnly: true };
const COLUMNS = [
  ["quantity", "neighbours changed", (of, node) => changesNow(of).quantity[node], true],
  ["ratio", "share", (of, node) => changesNow(of).ratio[node], true],
  ["similarity", "similarity", (of, node) => changesNow(of).similarity[node], false],
  ["direction", "direction (°)", (of, node) => (of.direction[node] * 180) / Math.PI, true],
  ["distance", "distance", (of, node) => of.distance[node], true],
];

function ranked() {
  const of = current(), changes = changesNow(of);
  const value = COLUMNS.find(([name]) => name === ranking.by)[2];
  const nodes = Array.from(of.ids.keys()).filter((node) => of.moved[node] || (!ranking.movedOnly && changes.quantity[node] > 0));
  const sign = ranking.descending ? -1 : 1;
  const keys = Float64Array.from(of.ids.keys(), (node) => sign * value(of, node));
  return nodes.sort((a, b) => keys[a] - keys[b] || of.distance[b] - of.distance[a] || a - b);
}

function drawRanking(changed) {
  if (changed && changed.includes("table")) ranking.page = 0;
  const of = current(), nodes = ranked(), pages = Math.max(1, Math.ceil(nodes.length / PAGE));
  ranking.page = Math.min(ranking.page, pages - 1);
  const heads = COLUMNS.map(([name, label, , descending]) => {
    const sorted = ranking.by === name;
    return el("th", { scope: "col", class: "number", "aria-sort": sorted ? (ranking.descending ? "descending" : "ascending") : null },
      el("button", { type: "button", "data-sort": name, onclick: () => {
        Object.assign(ranking, { by: name, descending: sorted ? !ranking.descending : descending, page: 0 });
        drawRanking(); document.querySelector(`[data-sort=${name}]`).focus();
      } }, `${label}${sorted ? (ranking.descending ? " ↓" : " ↑") : ""}`));
  });
  const rows = nodes.slice(ranking.page * PAGE, (ranking.page + 1) * PAGE).map((node, at) =>
    el("tr", { class: node === chosen.node ? "chosen" : null },
      el("td", { class: "number" }, number(ranking.page * PAGE + at + 1)),
      el("td", {}, el("button", { type: "button", class: "link", "data-node": node, "aria-pressed": String(node === chosen.node), onclick: () => { selectNode(node); document.querySelector(`[data-node="${node}"]`)?.focus(); } }, String(of.ids[node]))),
      of.domains.length ? el("td", { class: "words" }, shortened(of.domains[of.domain[node]].name, 28)) : null,
      ...COLUMNS.map(([, , value]) => el("td", { class: "number" }, figure(value(of, node))))));
  const turn = (by) => () => { ranking.page += by; drawRanking(); document.getElementById(by > 0 ? "next-page" : "previous-page").focus(); };
  const said = el("span", { class: "hint", role: "status", id: "found" });
  const field = el("input", { id: "find-id", inputmode: "numeric", size: 14, onkeydown: (event) => { if (event.key === "Enter") find(); } });
  const find = () => {
    const node = of.ids.findIndex((each) => String(each) === field.value.trim());
    if (node < 0) said.textContent = `${shortened(field.value, 24)} is not among the drawn rows.`; else selectNode(node);
  };
  show("ranking",
    el("div", { class: "bar" },
      el("label", { class: "check" }, el("input", { id: "moved-only", type: "checkbox", checked: ranking.movedOnly, onchange: (event) => { ranking.movedOnly = event.target.checked; ranking.page = 0; drawRanking(); document.getElementById("moved-only").focus(); } }), "only rows that moved themselves"),
      el("label", { for: "find-id" }, "Row by id", field), el("button", { type: "button", id: "find", onclick: find }, "Show"), said),
    el("table", {}, el("caption", {}, `${number(nodes.length)} changed rows of those drawn; a heading sorts, an id is chosen to see its neighbours.`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "number" }, "rank"), el("th", { scope: "col" }, "id"), of.domains.length ? el("th", { scope: "col" }, "domain") : null, ...heads)),
      el("tbody", {}, ...rows)),
    el("div", { class: "bar" },
      el("button", { type: "button", id: "previous-page", disabled: ranking.page === 0, onclick: turn(-1) }, "Previous"),
      el("span", { class: "hint" }, `page ${ranking.page + 1} of ${number(pages)}`),
      el("button", { type: "button", id: "next-page", disabled: ranking.page + 1 >= pages, onclick: turn(1) }, "Next")));
}
