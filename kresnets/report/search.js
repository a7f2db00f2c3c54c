// What Plotly does not do by itself: its colours follow the system's, and the table and the plots show the same trials.
"use strict";
(async () => {
  const { plots, themes } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const template = () => themes[dark.matches ? "dark" : "light"];
  const narrow = matchMedia("(pointer: coarse), (max-width: 40rem)").matches; // a finger that drags scrolls the page
  const rows = [...document.querySelectorAll("#trials tbody tr")];
  const all = document.getElementById("all");
  const places = new Map(plots.map(({ id }) => [id, document.getElementById(id)]));
  const choosers = new Map();
  let chosen = null; // the one trial that is shown, if it is one
  let following = 0; // the plots are being brought in line with the table

  // The rows, and in each plot the points, of these trials; of all for null. `from` already shows them.
  async function show(trials, from = null) {
    const among = trials && new Set(trials);
    chosen = trials?.length === 1 ? trials[0] : null;
    for (const row of rows) {
      row.hidden = among !== null && !among.has(row.dataset.trial);
      row.classList.toggle("chosen", row.dataset.trial === chosen);
    }
    all.hidden = !among;
    document.getElementById("trial").textContent = summary(among);
    // The chosen trial is in the address, so that it survives the reloading of a running search.
    history.replaceState(null, "", chosen === null ? location.pathname : `#${encodeURIComponent(chosen)}`);
    following += 1;
    for (const [id, place] of places) {
      if (!place.data) continue;
      const view = choosers.get(id)?.ids.indexOf(chosen) ?? -1;
      if (id === "parallel") {
        if (place !== from) await brush(place, among);
      } else if (view >= 0) await choosers.get(id).change(view);
      else if (["scatter", "box"].includes(place.data.at(-1).type) && id !== "curves") {
        const points = place.data.map(({ customdata }) => among && customdata
          ? customdata.flatMap((trial, i) => (among.has(trial) ? [i] : [])) : null);
        await Plotly.update(place, { selectedpoints: points }, { selections: [] });
      }
    }
    following -= 1;
  }

  function summary(among) {
    const row = rows.find(({ dataset }) => dataset.trial === chosen);
    const number = among ? among.size : rows.length;
    if (!row) return `${number} of ${rows.length} trial${rows.length === 1 ? "" : "s"} shown.`;
    const names = [...row.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
    const parts = [...row.cells].map((cell, i) => cell.textContent && `${names[i]} ${cell.textContent}`);
    return parts.filter(Boolean).join(" · ");
  }

  // Parallel coordinates have no points: the axis of the trials' order is brushed.
  function brush(place, among) {
    const { customdata, dimensions } = place.data[0];
    const kept = among && customdata.flatMap((trial, i) => (among.has(trial) ? [[i + 0.6, i + 1.4]] : []));
    const ranges = among && (kept.length ? kept : [[0.1, 0.2]]);
    return Plotly.restyle(place, Object.fromEntries(
      dimensions.map((_, i) => [`dimensions[${i}].constraintrange`, i || !ranges ? null : [ranges]])));
  }

  function brushed({ customdata, dimensions }) {
    const brushes = dimensions.filter(({ constraintrange }) => constraintrange)
      .map(({ values, constraintrange: range }) => [values, Array.isArray(range[0]) ? range : [range]]);
    const inside = (value, ranges) => ranges.some(([low, high]) => value >= low && value <= high);
    const kept = customdata.filter((_, i) => brushes.every(([values, ranges]) => inside(values[i], ranges)));
    return brushes.length ? kept : null;
  }

  function listen(place) {
    // Plotly is done with an event only after those who hear of it.
    const later = (trials) => setTimeout(() => show(trials.length ? trials : null));
    place.on("plotly_click", ({ points: [{ customdata }] }) => {
      if (Array.isArray(customdata)) later(customdata);
      else if (customdata !== undefined) later(customdata === chosen ? [] : [customdata]);
    });
    place.on("plotly_selected", (event) => {
      const trials = event?.points.map(({ customdata }) => customdata).filter((trial) => trial !== undefined);
      if (trials?.length) later(trials);
    });
    place.on("plotly_deselect", () => later([]));
    if (place.id === "parallel")
      place.on("plotly_restyle", () => { if (!following) show(brushed(place.data[0]), place); });
  }

  // Other views of a plot are a list above it, which keys reach.
  function chooser(place, views) {
    const list = document.createElement("select");
    list.setAttribute("aria-label", place.getAttribute("aria-label"));
    for (const { label } of views) list.add(new Option(label));
    const change = (i) => {
      list.selectedIndex = i;
      return Plotly.update(place, structuredClone(views[i].data), structuredClone(views[i].layout), views[i].traces);
    };
    list.onchange = () => change(list.selectedIndex);
    place.parentNode.before(list);
    choosers.set(place.id, { change, ids: views.map(({ id }) => id) });
  }

  function sort(head) {
    const column = head.cellIndex, up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const absent = (row) => ["", "–"].includes(value(row)); // at the end, whichever way
    const compare = (a, b) => a - b || a.localeCompare(b, undefined, { numeric: true });
    rows.sort((a, b) => absent(a) - absent(b) || up * compare(value(a), value(b)));
    rows[0].parentNode.append(...rows);
  }

  for (const head of document.querySelectorAll("#trials th")) head.firstChild.onclick = () => sort(head);
  for (const row of rows)
    row.onclick = () => { // but not who marks its text
      if (!String(getSelection())) show(row.dataset.trial === chosen ? null : [row.dataset.trial]);
    };
  all.onclick = () => show(null);
  addEventListener("keydown", ({ key }) => { if (key === "Escape") show(null); });
  dark.onchange = () => { for (const place of places.values()) Plotly.relayout(place, { template: template() }); };

  document.getElementById("bar").hidden = !rows.length;
  for (const { id, data, layout, buttons, views } of plots) {
    const place = places.get(id);
    const config = { displaylogo: false, responsive: true, modeBarButtons: buttons };
    if (narrow) config.displayModeBar = false;
    await Plotly.newPlot(place, data, { dragmode: !narrow && "zoom", ...layout, template: template() }, config);
    if (views) chooser(place, views);
    listen(place);
  }
  // The reload that the page asks for by itself would forget the chosen trial.
  const refresh = document.querySelector("meta[http-equiv=refresh]");
  if (refresh) setTimeout(() => location.reload(), 1000 * refresh.content - 500);
  let asked = "";
  try { asked = decodeURIComponent(location.hash.slice(1)); } catch { /* no trial is called that */ }
  await show(rows.some(({ dataset }) => dataset.trial === asked) ? [asked] : null);
  document.body.dataset.drawn = "yes";
})();
