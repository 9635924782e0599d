// How rows and changes are spread over domains.
function domainBars(domains) {
  const width = 620, row = 40, left = 150, most = Math.max(1, ...domains.flatMap((each) => [each.before, each.after]));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${domains.length * row}`, role: "img", "aria-label": "Rows of each domain before, after, and changed; the table beside says the same" });
  domains.forEach((each, at) => {
    const top = at * row + 6;
    picture.append(svg("text", { x: left - 10, y: top + 20, "text-anchor": "end" }, shortened(each.name, 20)));
    [["before", each.before], ["after", each.after], ["changed", each.changed]].forEach(([kind, count], line) => {
      const length = ((width - left - 60) * count) / most;
      picture.append(svg("rect", { x: left, y: top + line * 11, width: Math.max(length, count ? 1 : 0), height: 9, rx: 2, class: kind }, svg("title", {}, `${kind}: ${number(count)}`)));
    });
    picture.append(svg("text", { x: left + ((width - left - 60) * Math.max(each.before, each.after)) / most + 6, y: top + 20, class: "soft" }, number(each.after)));
  });
  return picture;
}

function drawDomains() {
  const of = current();
  if (!of.domains.length) return show("domains", el("p", { class: "quiet" }, `No domains were given for ${of.table}: a file of lines id,domain, by --domains ${of.table}=FILE.`));
  const total = (name) => of.domains.reduce((sum, each) => sum + each[name], 0);
  const heads = ["domain", "before", "after", "changed", "of all changes", "added", "removed", "mean offset", "similarity"].map((label, at) => ({ label, number: at > 0, kind: at ? null : "words" }));
  const rows = of.domains.map((each) => [each.name, number(each.before), number(each.after), share(each.changed, each.before), share(each.changed, total("changed")), number(each.added), number(each.removed), figure(each.mean_offset), figure(each.mean_similarity)]);
  show("domains",
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Domains" }, table("“changed” is a share of the domain's rows; similarity at K = 10, cosine, over the sample.", heads, rows)),
    el("div", { class: "narrow" }, el("ul", { class: "legend" }, el("li", {}, el("i", { class: "before" }), `rows in ${of.before}`), el("li", {}, el("i", { class: "after" }), `rows in ${of.after}`), el("li", {}, el("i", { class: "changed" }), "changed")), domainBars(of.domains)));
}
