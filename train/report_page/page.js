// page.js: puts the report together, top to bottom.

function section(parent, id, title, lead = "") {
  parent.append(element("h2", {id}, title));
  if (lead) parent.append(element("p", {class: "lead"}, lead));
  const grid = element("div", {class: "grid"});
  parent.append(grid);
  return grid;
}

// The bar that stays in sight: ways through the page, the run whose layers are shown, smoothing, the steps in view.
function bar() {
  const node = element("div");
  for (const name of ["Training", "Factors", "Proofs", "Bounds", "Norms", "Entropy", "Events", "Recipe"]) {
    if (document.getElementById(name.toLowerCase())) node.append(element("a", {href: `#${name.toLowerCase()}`}, name));
  }
  if (several) node.append(runTabs());
  const slider = element("input", {type: "range", min: 0, max: .99, step: .01});
  const right = element("span", {class: "right"}), label = element("label", {}, "smoothing ");
  const text = element("span"), all = element("button", {}, "all steps");
  label.append(slider);
  right.append(label, text, all);
  node.append(right);
  document.getElementById("bar").append(node);

  slider.value = smoothing;
  slider.oninput = () => {
    smoothing = Number(slider.value);
    for (const chart of charts) if (chart.options.smooth) chart.redraw();
  };
  all.onclick = () => { for (const chart of charts) chart.reset(); };
  const say = () => {
    const [from, to] = view.current();
    text.textContent = `steps ${whole(Math.max(from, view.data[0]))} – ${whole(Math.min(to, view.data[1]))}`;
    all.disabled = view.range === null;
  };
  view.followers.add(say);
  say();
}

function runTabs() {
  const tabs = element("span", {class: "tabs", title: "whose layers are shown"});
  runs.forEach((run, i) => {
    const button = element("button", {"aria-pressed": run === chosen}, swatch(i) + escaped(run.name));
    button.onclick = () => {
      chosen = run;
      for (const other of tabs.children) other.setAttribute("aria-pressed", other === button);
      layers();
bar();
    };
    tabs.append(button);
  });
  return tabs;
}

header();
const main = document.getElementById("main");
training(main);
tradeoff(main);
factors(main);
main.append(element("div", {id: "layers"}));
layers();
bar();
