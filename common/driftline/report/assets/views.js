// Both versions in two dimensions, side by side, in one system of coordinates.
const SIDES = ["old", "new"];
let hovered = -1;

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Five classes of change; the strongest colour is the greatest change.
function classesOf(of) {
  if (chosen.colour === "similarity") {
    const values = changesNow(of).similarity;
    return { of: (node) => Math.min(4, Math.floor((1 - values[node]) * 5 + 1e-6)), labels: ["similarity .8 to 1", ".6 to .8", ".4 to .6", ".2 to .4", "0 to .2"], family: "seq" };
  }
  if (chosen.colour === "distance") {
    const sorted = Float32Array.from(of.distance).filter(Number.isFinite).sort();
    const top = sorted.length ? sorted[Math.floor(0.99 * (sorted.length - 1))] || 1 : 1;
    const labels = [0, 1, 2, 3, 4].map((each) => `offset ${figure((top * each) / 5)}${each < 4 ? ` to ${figure((top * (each + 1)) / 5)}` : " and more"}`);
    return { of: (node) => Math.min(4, Math.floor((5 * of.distance[node]) / top) || 0), labels, family: "seq" };
  }
  const names = of.domains.map((each) => each.name);
  return { of: (node) => (of.domain[node] < 8 ? of.domain[node] : -1), labels: names.slice(0, 8), family: "cat", rest: names.length > 8 ? `${names.length - 8} more` : "" };
}

function boundsOf(picture) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const side of SIDES) {
    for (let at = 0; at < picture[side].length; at += 2) {
      const x = picture[side][at], y = picture[side][at + 1];
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
  }
  return Number.isFinite(x0) ? { x: (x0 + x1) / 2, y: (y0 + y1) / 2, width: x1 - x0 || 1, height: y1 - y0 || 1 } : { x: 0, y: 0, width: 1, height: 1 };
}

function placer(canvas, picture, side) {
  const bounds = boundsOf(picture), pad = 18;
  const scale = Math.min((canvas.clientWidth - 2 * pad) / bounds.width, (canvas.clientHeight - 2 * pad) / bounds.height);
  return (node) => [canvas.clientWidth / 2 + (picture[side][2 * node] - bounds.x) * scale, canvas.clientHeight / 2 - (picture[side][2 * node + 1] - bounds.y) * scale];
}

function ring(pen, [x, y], radius, colour, width = 2) {
  pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); pen.lineWidth = width; pen.strokeStyle = colour; pen.stroke();
}

function drawView(side) {
  const canvas = document.getElementById(`view-${side}`), of = current(), picture = of.pictures.get(chosen.view);
  const dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dots); canvas.height = Math.round(canvas.clientHeight * dots);
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots); pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  const at = placer(canvas, picture, side), classes = classesOf(of);
  const colours = (classes.family === "seq" ? [0, 1, 2, 3, 4] : [0, 1, 2, 3, 4, 5, 6, 7]).map((each) => css(`--${classes.family}-${each}`));
  const still = css("--still"), radius = of.ids.length > 4000 ? 1.8 : 2.6;
  const order = Array.from(of.ids.keys()).sort((a, b) => of.moved[a] - of.moved[b] || (classes.family === "seq" ? classes.of(a) - classes.of(b) : 0));
  for (const node of order) {
    const [x, y] = at(node);
    if (!Number.isFinite(x)) continue;
    const kind = classes.of(node);
    pen.fillStyle = (classes.family === "seq" && !of.moved[node]) || kind < 0 ? still : colours[kind];
    pen.beginPath(); pen.arc(x, y, of.moved[node] || classes.family === "cat" ? radius : radius - 0.8, 0, 2 * Math.PI); pen.fill();
  }
  if (chosen.node >= 0) {
    for (const each of neighboursOf(chosen.node, side)) if (each.drawn !== NOBODY) ring(pen, at(each.drawn), 5, css("--kept"), 1.5);
    if (side === "new") {
      const [x0, y0] = placer(canvas, picture, "old")(chosen.node), [x1, y1] = at(chosen.node);
      pen.setLineDash([4, 3]); pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.strokeStyle = css("--bad"); pen.lineWidth = 1.5; pen.stroke(); pen.setLineDash([]);
    }
    ring(pen, at(chosen.node), 8, css("--bad"), 3);
  }
  if (hovered >= 0) ring(pen, at(hovered), 7, css("--ink"));
}

function nearestPoint(event, side) {
  const canvas = event.currentTarget, box = canvas.getBoundingClientRect();
  const at = placer(canvas, current().pictures.get(chosen.view), side);
  let [found, least] = [-1, 144];
  for (let node = 0; node < current().ids.length; node += 1) {
    const [x, y] = at(node);
    const gap = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
    if (gap < least) [found, least] = [node, gap];
  }
  return found;
}

function hover(node) {
  if (node === hovered) return;
  hovered = node;
  SIDES.forEach(drawView);
  const of = current();
  document.getElementById("pointed").textContent = node < 0 ? "Point at a row to find it in both; click to choose it." :
    `${of.ids[node]}${of.domains.length ? ` · ${of.domains[of.domain[node]].name}` : ""} · similarity ${figure(changesNow().similarity[node])} · offset ${figure(of.distance[node])}`;
}

function drawViews() {
  const of = current();
  const colours = [{ value: "similarity", label: "neighbour similarity" }, { value: "distance", label: "offset distance" }, { value: "domain", label: "domain", reason: of.domains.length ? "" : "no domains were given" }];
  const panels = SIDES.map((side) => {
    const version = side === "old" ? of.before : of.after;
    const canvas = el("canvas", { id: `view-${side}`, role: "img", "aria-label": `${of.ids.length} rows of ${of.table} in ${version}, reduced to two dimensions; rows can be chosen in the list of changed rows`,
      onmousemove: (event) => hover(nearestPoint(event, side)), onmouseleave: () => hover(-1),
      onclick: (event) => { const node = nearestPoint(event, side); if (node >= 0) selectNode(node); } });
    return el("div", {}, el("h3", {}, version), canvas);
  });
  const classes = classesOf(of);
  const legend = classes.labels.map((label, at) => el("li", {}, el("i", { class: `${classes.family}-${at}` }), label));
  if (classes.family === "seq") legend.push(el("li", {}, el("i", { class: "still" }), "did not move itself"));
  if (classes.rest) legend.push(el("li", {}, el("i", { class: "still" }), classes.rest));
  show("views", el("div", { class: "bar" },
    choice("choose-view", "Reduction", of.views.map((each) => ({ value: each.name, label: each.title, reason: each.reason })), chosen.view, (value) => choose({ view: value })),
    choice("choose-colour", "Colour by", colours, chosen.colour, (value) => choose({ colour: value }))),
    ...[greyed(of)].filter(Boolean), el("ul", { class: "legend" }, ...legend), el("div", { class: "pair" }, ...panels),
    el("p", { class: "hint", id: "pointed", "aria-live": "polite" }, "Point at a row to find it in both; click to choose it."));
  SIDES.forEach(drawView);
}
