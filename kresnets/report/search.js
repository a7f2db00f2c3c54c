// The plots of a search's page. One state says which trials count; every plot and the table are drawn from it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [objective, direction] = data.objective;
  const better = direction === "min" ? (a, b) => a - b : (a, b) => b - a;
  const varied = data.parameters.filter((parameter) => parameter.choices.length > 1);
  const named = Object.fromEntries(data.parameters.map((parameter) => [parameter.name, parameter]));
  const trials = data.records.map((record) => ({ values: {}, history: [], ...record, id: String(record.trial_id) }));
  for (const trial of trials) {
    trial.values ||= {};
    trial.history ||= [];
  }
  const byId = new Map(trials.map((trial) => [trial.id, trial]));
  const best = byId.get(String(data.best));
  const scored = trials.filter((trial) => trial.status === "completed" && isNumber(trial.score));
  const ranked = [...scored].sort((a, b) => better(a.score, b.score));
  const narrow = window.matchMedia("(max-width: 40rem)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const state = { trial: null, among: null, off: { status: new Set(), thaw: new Set() }, way: "trial" };
  let drawings = 0;

  // What people read ------------------------------------------------------------------------------------------------

  function isNumber(value) {
    return typeof value === "number" && Number.isFinite(value);
  }

  function text(value) {
    if (value === null || value === undefined) return "none";
    return isNumber(value) ? number(value, 4) : typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  // 5e-5 rather than 0.00005: rates are compared by their power of ten.
  function number(value, digits) {
    const rounded = Number(value.toPrecision(digits));
    return rounded && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded);
  }

  // Plotly reads tags in its texts: what comes from data must hold none.
  function safe(value, longest = 60) {
    const full = text(value);
    const short = full.length > longest ? full.slice(0, longest - 1) + "…" : full;
    return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function lines(name) {
    const made = [""];
    for (const part of String(name).split(/(?<=_)/)) {
      if (made.at(-1) && made.at(-1).length + part.length > 12) made.push("");
      made[made.length - 1] += part;
    }
    return made.map((line) => safe(line, 20)).join("<br>");
  }

  function about(trial) {
    const head = `<b>trial ${safe(trial.id)}</b> · ${trial.status}${trial === best ? " · best" : ""}`;
    const score = isNumber(trial.score) ? [`${safe(objective)} <b>${safe(trial.score)}</b>`] : [];
    const values = Object.entries(trial.values).map(([name, value]) => `${safe(name)}: ${safe(value)}`);
    const reason = trial.reason ? (safe(trial.reason, 200).match(/.{1,60}(\s|$)|.{1,60}/g) || []) : [];
    return [head, ...score, ...values, ...reason].join("<br>");
  }

  // Where a value stands on its axis ----------------------------------------------------------------------------------

  const key = (value) => JSON.stringify(value);
  for (const parameter of data.parameters) parameter.places = new Map(parameter.choices.map((choice, i) => [key(choice), i]));

  function place(parameter, value) {
    if (value === undefined) return null;
    return parameter.kind === "category" ? parameter.places.get(key(value)) : parameter.kind === "log" ? Math.log10(value) : value;
  }

  function limits(parameter) {
    if (parameter.kind === "category") return [0, parameter.choices.length - 1];
    return [place(parameter, parameter.choices[0]), place(parameter, parameter.choices.at(-1))];
  }

  function ticks(parameter, most = 6) {
    const choices = parameter.choices;
    if (parameter.kind === "category" || choices.length <= most) {
      const step = Math.ceil(choices.length / 12);
      return choices.filter((_, i) => i % step === 0).map((choice) => [place(parameter, choice), safe(choice, 16)]);
    }
    const [low, high] = limits(parameter);
    if (parameter.kind === "log") {
      const steps = high - low >= 2 ? [1] : high - low >= 1 ? [1, 3] : [1, 2, 5];
      const made = [];
      for (let power = Math.floor(low); power <= Math.ceil(high); power++)
        for (const step of steps) made.push(step * 10 ** power);
      const inside = made.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
      const used = inside.length > 1 ? inside : [choices[0], choices.at(-1)];
      return used.map((value) => [Math.log10(value), text(value)]);
    }
    return even(low, high, most - 1).map((value) => [value, text(value)]);
  }

  function even(low, high, most) {
    const rough = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
    const made = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) made.push(value);
    return made;
  }

  // The same trial always moves by the same bit, so that equal choices do not hide one another.
  function jitter(trial) {
    let hash = 7;
    for (const letter of trial.id) hash = (hash * 31 + letter.charCodeAt(0)) % 1009;
    return (hash * 617 % 1009) / 1009 - 0.5;
  }

  const FEW = 8;
  function spread(parameter, trial) {
    const [low, high] = limits(parameter);
    return parameter.choices.length <= FEW ? jitter(trial) * (parameter.kind === "category" ? 0.45 : 0.09 * (high - low)) : 0;
  }

  // One diverged trial must not press all others flat: the axis ends where scores become rare.
  const shown = (() => {
    const some = ranked.length ? ranked : trials.filter((trial) => isNumber(trial.score)).sort((a, b) => better(a.score, b.score));
    if (!some.length) return [0, 1];
    const at = (share) => some[Math.min(some.length - 1, Math.floor(share * some.length))].score;
    const width = Math.abs(at(0.75) - at(0));
    const edge = at(0.75) + Math.sign(better(1, 0)) * 3 * width;
    const worst = better(at(1), edge) > 0 && width ? edge : at(1);
    const [low, high] = [Math.min(at(0), worst), Math.max(at(0), worst)];
    const margin = (high - low || Math.abs(high) || 1) * 0.07;
    return [low - margin, high + margin];
  })();
  const beyond = trials.filter((trial) => isNumber(trial.score) && (trial.score < shown[0] || trial.score > shown[1]));
  const worstEdge = direction === "min" ? shown[1] : shown[0];
  const clipped = (score) => Math.max(shown[0], Math.min(shown[1], score));

  // Colours -----------------------------------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const palette = ["#e8a100", "#2f9e44", "#1c7ed6", "#9c36b5", "#e64980", "#0ca5a5", "#f76707", "#7a8793", "#5c5fe0", "#a07138"];
  const depths = named.thaw ? named.thaw.choices : [];
  const tint = (trial) => (named.thaw && "thaw" in trial.values ? depthTint(trial.values.thaw) : palette[2]);
  const depthTint = (value) => palette[named.thaw.places.get(key(value)) % palette.length];
  const scale = () => (dark.matches ? ["#2b3038", "#2c4562", "#2f6093", "#3f83cc", "#8cc4ff"] : ["#e3e7ed", "#bcd0ea", "#7fabdc", "#3a78bd", "#08397c"]);

  // Which trials count ------------------------------------------------------------------------------------------------

  function counts(trial) {
    if (state.trial) return trial.id === state.trial;
    if (state.among && !state.among.has(trial.id)) return false;
    return !state.off.status.has(trial.status) && !state.off.thaw.has(key(trial.values.thaw));
  }

  function choose(id) {
    state.trial = state.trial === id ? null : id;
    update();
  }

  function keep(ids) {
    state.trial = null;
    state.among = ids.length ? new Set(ids) : null;
    update();
  }

  function reset() {
    state.trial = state.among = null;
    for (const off of Object.values(state.off)) off.clear();
    update();
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  function axis(title, more = {}) {
    return {
      title: { text: title, standoff: 10 }, gridcolor: colour("line"), linecolor: colour("line"), zeroline: false,
      automargin: true, tickfont: { color: colour("soft") }, ...more,
    };
  }

  function layout(height, more) {
    return {
      height, autosize: true, showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: narrow.matches ? 12 : 13, color: colour("text") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 16, t: 16, b: 10 },
      hoverlabel: { align: "left", bgcolor: colour("box"), bordercolor: colour("soft"), font: { color: colour("text") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("text") },
      // A finger that drags scrolls the page.
      dragmode: narrow.matches ? false : "select", uirevision: `${narrow.matches}`, selectionrevision: ++drawings,
      selections: [], newselection: { line: { color: colour("accent") } }, ...more,
    };
  }

  function points(xs, ys, those, more = {}) {
    const visible = those.map(counts);
    const { symbols, size = 8, ...rest } = more;
    return {
      x: xs, y: ys, type: "scatter", mode: "markers", customdata: those.map((trial) => trial.id), text: those.map(about),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        color: those.map(tint), symbol: symbols || "circle", opacity: visible.map((yes) => (yes ? 0.85 : 0.08)),
        size: those.map((trial) => (trial.id === state.trial ? size + 7 : trial === best ? size + 3 : size)),
        line: {
          color: those.map((trial) => (trial.id === state.trial || trial === best ? colour("accent") : colour("back"))),
          width: those.map((trial) => (trial.id === state.trial ? 3 : trial === best ? 2 : 0.5)),
        },
      }, ...rest,
    };
  }

  function scoreAxis(more) {
    return axis(safe(objective), { range: shown, ...more });
  }

  const beyondText = () =>
    beyond.length ? [{
      text: `${beyond.length} at this edge ${beyond.length > 1 ? "are" : "is"} beyond it`, showarrow: false,
      xref: "paper", yref: "paper", x: 0, y: direction === "min" ? 1 : 0, xanchor: "left",
      yanchor: direction === "min" ? "bottom" : "top", yshift: direction === "min" ? 6 : -6, font: { color: colour("soft"), size: 11 },
    }] : [];

  // Best so far: over trials in the order in which they ended, or over the clock.
  function history() {
    const ended = (trial) => (trial.started || 0) + (trial.seconds || 0);
    const those = trials.filter((trial) => trial.status !== "running" && trial.status !== "repeated").sort((a, b) => ended(a) - ended(b));
    const begin = Math.min(...trials.map((trial) => trial.started).filter(isNumber));
    const clock = state.way === "time" && Number.isFinite(begin);
    const longest = Math.max(...those.map(ended)) - begin;
    const [unit, name] = longest < 300 ? [1, "seconds"] : longest < 10800 ? [60, "minutes"] : [3600, "hours"];
    const xs = those.map((trial, i) => (clock ? (ended(trial) - begin) / unit : i + 1));
    const ys = those.map((trial) => (isNumber(trial.score) ? clipped(trial.score) : worstEdge));
    const steps = { x: [], y: [] };
    let top = null;
    those.forEach((trial, i) => {
      if (trial.status === "completed" && isNumber(trial.score) && (top === null || better(trial.score, top) < 0)) top = trial.score;
      if (top !== null) { steps.x.push(xs[i]); steps.y.push(clipped(top)); }
    });
    const symbols = those.map((trial) => ({ pruned: "circle-open", failed: "x" })[trial.status] || "circle");
    const drawn = points(xs, ys, those, { symbols, size: those.length > 150 ? 6 : 9, cliponaxis: false });
    drawn.marker.color = those.map((trial) => (trial.status === "failed" ? colour("bad") : tint(trial)));
    those.forEach((trial, i) => { if (symbols[i] !== "circle" && trial.id !== state.trial) drawn.marker.line.width[i] = symbols[i] === "x" ? 0 : 2; });
    const edge = (Math.max(...xs, 1) - Math.min(...xs)) * 0.03 || 0.5;
    return {
      traces: [
        { ...steps, type: "scatter", mode: "lines", line: { shape: "hv", color: colour("accent"), width: 2.5 }, hoverinfo: "skip" },
        drawn,
      ],
      layout: layout(narrow.matches ? 320 : 400, {
        xaxis: axis(clock ? `${name} since the search began` : "trials that ended, in order", {
          range: [Math.min(...xs) - edge, Math.max(...xs) + edge], ...(clock || those.length > 9 ? {} : { dtick: 1 }),
        }),
        yaxis: scoreAxis({ showticklabels: trials.some((trial) => isNumber(trial.score)) }), annotations: beyondText(), uirevision: `${state.way}${narrow.matches}`,
        margin: { l: 10, r: 16, t: beyond.length ? 26 : 16, b: 10 },
      }),
    };
  }

  // Parallel coordinates of plain lines, so that each can be hovered and clicked; on a phone the axes lie down.
  const UNUSED = -0.14;
  function parallel() {
    const flat = narrow.matches;
    const score = { name: objective, kind: "linear", choices: [...new Set(ranked.map((t) => clipped(t.score)))].sort((a, b) => a - b) };
    const axes = [...varied, score];
    const height = (parameter, trial) => {
      if (parameter === score) return isNumber(trial.score) && trial.status === "completed" ? share(score, clipped(trial.score)) : null;
      const at = place(parameter, trial.values[parameter.name]);
      if (at === null || at === undefined) return UNUSED;
      return share(parameter, at) + (parameter.choices.length <= FEW ? jitter(trial) * 0.06 : 0);
    };
    const share = (parameter, at) => {
      const [low, high] = limits(parameter);
      return high > low ? (at - low) / (high - low) : 0.5;
    };
    const trace = (those, line, more) => {
      const along = [], across = [], ids = [], texts = [];
      for (const trial of those) {
        const hover = about(trial);
        axes.forEach((parameter, i) => {
          along.push(flat ? -i : i); across.push(height(parameter, trial)); ids.push(trial.id); texts.push(hover);
        });
        along.push(null); across.push(null); ids.push(null); texts.push("");
      }
      const [x, y] = flat ? [across, along] : [along, across];
      return {
        x, y, type: "scatter", mode: "lines+markers", line, marker: { size: 5, color: line.color }, customdata: ids, text: texts,
        hovertemplate: "%{text}<extra></extra>", connectgaps: false, cliponaxis: false, ...more,
      };
    };
    const shades = scale();
    // The better, the fewer share a shade: among hundreds of lines only the best may be strong.
    const shares = [0.4, 0.65, 0.82, 0.94, 1], crowded = ranked.length > 150;
    const groups = shades.map(() => []);
    [...ranked].reverse().forEach((trial, i) => { if (counts(trial)) groups[shares.findIndex((share) => (i + 0.5) / ranked.length < share)].push(trial); });
    const width = crowded ? 0.8 : 1.6;
    const traces = [trace(ranked.filter((t) => !counts(t)), { color: colour("dim"), width: 1 }, { opacity: 0.18 })];
    groups.forEach((those, i) => traces.push(trace(those, { color: shades[i], width: width + i * 0.25 }, { opacity: crowded ? 0.25 + 0.15 * i : 0.9 })));
    if (best) traces.push(trace([best], { color: colour("accent"), width: 3 }, { opacity: counts(best) ? 1 : 0.3 }));
    const chosen = byId.get(state.trial);
    if (chosen && chosen !== best) traces.push(trace([chosen], { color: colour("text"), width: 3.5 }, {}));
    const annotations = [], shapes = [];
    axes.forEach((parameter, i) => {
      const along = flat ? -i : i;
      const at = (across, label, more) => annotations.push({
        ...(flat ? { x: across, y: along } : { x: along, y: across }), text: label, showarrow: false, ...more,
      });
      shapes.push({ type: "line", layer: "below", line: { color: colour("soft"), width: 1 }, ...(flat ? { x0: 0, x1: 1, y0: along, y1: along } : { x0: along, x1: along, y0: 0, y1: 1 }) });
      const bold = `<b>${flat ? safe(parameter.name, 40) : lines(parameter.name)}</b>`;
      if (flat) at(UNUSED, bold, { xanchor: "left", yanchor: "bottom", yshift: 7, bgcolor: colour("back") });
      else at(1, bold, { yanchor: "bottom", yshift: 12 });
      let used = -Infinity;
      for (const [value, label] of ticks(parameter, 5)) {
        const across = share(parameter, value);
        if (flat && across < used) continue;
        used = across + (label.length + 2) * 0.022;
        const where = flat ? { yanchor: "top", yshift: -6 } : { xanchor: "right", xshift: -6 };
        at(across, label, { ...where, font: { size: 11, color: colour("text") }, bgcolor: colour("back"), borderpad: 0, opacity: 0.88 });
      }
      if (parameter !== score && ranked.some((trial) => !(parameter.name in trial.values)))
        at(UNUSED, "–", { ...(flat ? { yanchor: "top", yshift: -6 } : { xanchor: "right", xshift: -6 }), font: { color: colour("soft") } });
    });
    const hidden = { visible: false, fixedrange: true };
    const longest = Math.max(...ticks(axes[0], 5).map(([, label]) => label.length));
    const span = [-0.3 - longest * 0.004 * axes.length, axes.length - 0.6];
    const bottom = ranked.some((trial) => varied.some((parameter) => !(parameter.name in trial.values))) ? UNUSED - 0.04 : -0.06;
    return {
      traces,
      layout: layout(flat ? 40 + 78 * axes.length : 440, flat
        ? { xaxis: { ...hidden, range: [UNUSED - 0.02, 1.06] }, yaxis: { ...hidden, range: [-axes.length + 0.45, 0.5] }, annotations, shapes, margin: { l: 6, r: 12, t: 4, b: 0 } }
        : { xaxis: { ...hidden, range: span }, yaxis: { ...hidden, range: [bottom, 1.05] }, annotations, shapes, margin: { l: 4, r: 4, t: 64, b: 4 } }),
    };
  }

  function median(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  // The level of each choice, or of each fifth of the trials along a range.
  function levels(parameter, those) {
    const groups = parameter.choices.length <= FEW
      ? parameter.choices.map((choice) => those.filter((trial) => key(trial.values[parameter.name]) === key(choice)))
      : (() => {
        if (those.length < 15) return [];
        const sorted = [...those].sort((a, b) => place(parameter, a.values[parameter.name]) - place(parameter, b.values[parameter.name]));
        return [0, 1, 2, 3, 4].map((i) => sorted.slice(Math.floor(i * sorted.length / 5), Math.floor((i + 1) * sorted.length / 5)));
      })();
    const full = groups.filter((group) => group.length);
    return {
      x: full.map((group) => median(group.map((trial) => place(parameter, trial.values[parameter.name])))),
      y: full.map((group) => clipped(median(group.map((trial) => trial.score)))),
    };
  }

  function slices() {
    const order = data.importance.map((row) => row.name);
    const rank = (parameter) => (order.includes(parameter.name) ? order.indexOf(parameter.name) : order.length);
    const panels = [...varied].sort((a, b) => rank(a) - rank(b));
    const columns = Math.min(panels.length, narrow.matches ? 1 : window.innerWidth < 900 ? 2 : 3);
    const rows = Math.ceil(panels.length / columns);
    const tall = narrow.matches ? 235 : 270, gap = 72 / (tall * rows);
    const made = { traces: [], layout: layout(tall * rows + 16, { margin: { l: 10, r: 10, t: 12, b: 40 } }) };
    panels.forEach((parameter, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns], n = i ? i + 1 : "";
      const those = scored.filter((trial) => parameter.name in trial.values);
      const xs = those.map((trial) => place(parameter, trial.values[parameter.name]) + spread(parameter, trial));
      made.traces.push(points(xs, those.map((trial) => clipped(trial.score)), those, { cliponaxis: false,  xaxis: `x${n}`, yaxis: `y${n}`, size: those.length > 150 ? 5 : 7 }));
      made.traces.push({
        ...levels(parameter, those), xaxis: `x${n}`, yaxis: `y${n}`, type: "scatter", mode: "markers", hoverinfo: "skip",
        marker: { symbol: "line-ew", size: 24, line: { width: 3, color: colour("text") } },
      });
      const [low, high] = limits(parameter), margin = parameter.kind === "category" ? 0.5 : (high - low) * 0.06 || 1;
      const marks = ticks(parameter, 6);
      made.layout[`xaxis${n}`] = axis(`<b>${safe(parameter.name, 40)}</b>`, {
        domain: [column / columns + (column ? 0.02 : 0), (column + 1) / columns - (column < columns - 1 ? 0.02 : 0)], anchor: `y${n}`,
        range: [low - margin, high + margin], tickvals: marks.map(([at]) => at), ticktext: marks.map(([, label]) => label),
        automargin: false, title: { text: `<b>${safe(parameter.name, 40)}</b>`, standoff: 6 },
      });
      made.layout[`yaxis${n}`] = scoreAxis({
        domain: [1 - (row + 1) / rows + (row < rows - 1 ? gap : 0) + (row === rows - 1 ? 0 : 0), 1 - row / rows - 0.0], anchor: `x${n}`,
        ...(i ? { matches: "y" } : {}), showticklabels: column === 0, title: { text: column === 0 ? safe(objective) : "", standoff: 8 },
      });
    });
    return made;
  }

  function importance() {
    const rows = [...data.importance].reverse();
    return {
      traces: [{
        type: "bar", orientation: "h", x: rows.map((row) => Math.max(0, row.mean)), y: rows.map((row) => safe(row.name, 30)),
        error_x: {
          type: "data", symmetric: false, color: colour("text"), thickness: 1.5, width: 5,
          array: rows.map((row) => row.high - Math.max(0, row.mean)), arrayminus: rows.map((row) => Math.max(0, row.mean) - row.low),
        },
        marker: { color: rows.map((row) => (row.low > 0.01 ? colour("good") : colour("dim"))) },
        text: rows.map((row) => `${safe(row.name)}: <b>${row.mean.toFixed(2)}</b> (90 % of resamples: ${row.low.toFixed(2)} to ${row.high.toFixed(2)})`),
        textposition: "none", hovertemplate: "%{text}<extra></extra>",
      }],
      layout: layout(90 + 34 * rows.length, {
        xaxis: axis("share of the ranks' variance", { zeroline: true, zerolinecolor: colour("soft") }),
        yaxis: axis("", { ticklen: 4 }), bargap: 0.35, dragmode: false,
      }),
    };
  }

  // Freeze depth by rate ----------------------------------------------------------------------------------------------

  function bins(parameter) {
    if (parameter.choices.length <= FEW) return parameter.choices.map((choice) => [text(choice), (value) => value === choice]);
    const [low, high] = limits(parameter), count = narrow.matches ? 4 : 6, step = (high - low) / count;
    return [...Array(count).keys()].map((i) => {
      const edges = [low + i * step, low + (i + 1) * step].map((at) => (parameter.kind === "log" ? 10 ** at : at));
      const label = edges.map((edge) => number(edge, 2)).join(" to<br>");
      const inside = (value) => value !== undefined && Math.min(count - 1, Math.floor((place(parameter, value) - low) / step)) === i;
      return [label, inside];
    });
  }

  function map() {
    const rate = named[data.rate];
    const columns = bins(rate);
    if (scored.some((trial) => !(rate.name in trial.values))) columns.unshift(["–", (value) => value === undefined]);
    const cells = depths.map((depth) => columns.map(([, inside]) =>
      scored.filter((trial) => key(trial.values.thaw) === key(depth) && inside(trial.values[rate.name]))));
    const those = cells.map((row) => row.map((cell) => cell.filter(counts)));
    const z = those.map((row) => row.map((cell) => (cell.length ? clipped(median(cell.map((trial) => trial.score))) : null)));
    const ends = [Math.min(...scored.map((t) => clipped(t.score))), Math.max(...scored.map((t) => clipped(t.score)))];
    let top = null;
    z.forEach((row, y) => row.forEach((value, x) => { if (value !== null && (!top || better(value, top.value) < 0)) top = { x, y, value }; }));
    const shades = direction === "min" ? scale().reverse() : scale();
    const strong = (value) => { const share = (value - ends[0]) / (ends[1] - ends[0] || 1); return (direction === "min" ? 1 - share : share) > 0.55; };
    const annotations = [];
    z.forEach((row, y) => row.forEach((value, x) => {
      if (value === null) return;
      const exact = median(those[y][x].map((trial) => trial.score));
      const ink = dark.matches ? (strong(value) ? "#0b1017" : "#e6e8eb") : strong(value) ? "#fff" : "#1c1e21";
      annotations.push({ x, y, text: `<b>${text(Number(exact.toPrecision(3)))}</b><br>${those[y][x].length}×`, showarrow: false, font: { size: 12, color: ink } });
    }));
    const frame = top && { type: "rect", x0: top.x - 0.48, x1: top.x + 0.48, y0: top.y - 0.46, y1: top.y + 0.46, line: { color: colour("accent"), width: 3 } };
    return {
      traces: [{
        type: "heatmap", z, xgap: 3, ygap: 3, zmin: ends[0], zmax: ends[1] > ends[0] ? ends[1] : ends[0] + 1,
        colorscale: shades.map((shade, i) => [i / 4, shade]), showscale: !narrow.matches, hoverongaps: false,
        customdata: those.map((row) => row.map((cell) => cell.map((trial) => trial.id))),
        text: those.map((row, y) => row.map((cell, x) => {
          const members = [...cell].sort((a, b) => better(a.score, b.score)).slice(0, 6);
          return [`<b>${safe(depths[y])}</b>, ${safe(rate.name)} ${columns[x][0].replace("<br>", " ")}`,
            ...members.map((trial) => `trial ${safe(trial.id)}: ${safe(trial.score)}`), ...(cell.length > 6 ? [`and ${cell.length - 6} more`] : [])].join("<br>");
        })),
        hovertemplate: "%{text}<extra></extra>",
        colorbar: { title: { text: `median ${safe(objective)}`, side: "right" }, thickness: 12, outlinewidth: 0, tickfont: { color: colour("soft") } },
      }],
      layout: layout(110 + 56 * depths.length, {
        xaxis: axis(`${safe(rate.name)}`, { tickvals: columns.map((_, i) => i), ticktext: columns.map(([label]) => label), showgrid: false, fixedrange: true, tickangle: 0 }),
        yaxis: axis("deepest that learns", { tickvals: depths.map((_, i) => i), ticktext: depths.map((depth) => safe(depth, narrow.matches ? 12 : 24)), showgrid: false, fixedrange: true }),
        annotations, shapes: frame ? [frame] : [], dragmode: false,
      }),
    };
  }

  // Curves of one trial -----------------------------------------------------------------------------------------------

  function curves() {
    const chosen = byId.get(state.trial);
    const trial = chosen && chosen.history.length ? chosen : best && best.history.length ? best : ranked.find((each) => each.history.length);
    const other = trial !== best && best && best.history.length ? best : null;
    const panels = ["loss", "accuracy"].filter((name) => trial.history.some((row) => isNumber(row[name]) || isNumber(row[`val_${name}`])));
    const stacked = narrow.matches && panels.length > 1, n = panels.length, tall = stacked ? 640 : 400;
    const made = { traces: [], layout: layout(tall, { showlegend: true, dragmode: false, legend: { orientation: "h", x: 0, yref: "container", y: 1 - 24 / tall, yanchor: "top", font: { color: colour("text") } }, annotations: [], shapes: [], margin: { l: 10, r: 10, t: 86, b: 40 } }) };
    const colours = { training: dark.matches ? "#6fb1ff" : "#1f77b4", validation: colour("accent") };
    const add = (which, rows, name, label, i, more) => made.traces.push({
      x: rows.map((row, at) => row.epoch ?? at), y: rows.map((row) => (isNumber(row[name]) ? row[name] : null)), name: label, legendgroup: label,
      showlegend: i === 0, type: "scatter", mode: rows.length > 30 ? "lines" : "lines+markers", xaxis: `x${i ? i + 1 : ""}`, yaxis: `y${i ? i + 1 : ""}`,
      text: rows.map((row, at) => `trial ${safe(which.id)} · epoch ${row.epoch ?? at} · ${safe(row.stage ?? "")}<br>${name} <b>${isNumber(row[name]) ? safe(row[name]) : ""}</b>`),
      hovertemplate: "%{text}<extra></extra>", ...more,
    });
    const stages = trial.history.map((row, at) => [row.epoch ?? at, row.stage]).filter(([, stage], at, all) => stage !== undefined && (at === 0 || all[at - 1][1] !== stage));
    panels.forEach((name, i) => {
      const suffix = i ? i + 1 : "";
      add(trial, trial.history, name, "training", i, { line: { color: colours.training, width: 2.2 } });
      add(trial, trial.history, `val_${name}`, "validation", i, { line: { color: colours.validation, width: 2.2 } });
      if (other) add(other, other.history, `val_${name}`, `best trial's validation (${safe(other.id)})`, i, { line: { color: colour("soft"), width: 1.6, dash: "dot" }, mode: "lines" });
      made.layout[`xaxis${suffix}`] = axis("epoch", { domain: stacked ? [0, 1] : [i / n + (i ? 0.05 : 0), (i + 1) / n - (i < n - 1 ? 0.03 : 0)], anchor: `y${suffix}`, automargin: false, ...(trial.history.length < 12 ? { dtick: 1 } : {}), title: { text: "epoch", standoff: 6 } });
      made.layout[`yaxis${suffix}`] = axis(name, { domain: stacked ? [1 - (i + 1) / n + (i < n - 1 ? 0.12 : 0), 1 - i / n - (i ? 0.03 : 0)] : [0, 1], anchor: `x${suffix}` });
      stages.forEach(([epoch, stage], at) => {
        if (at) made.layout.shapes.push({ type: "line", xref: `x${suffix}`, yref: `y${suffix} domain`, x0: epoch - 0.5, x1: epoch - 0.5, y0: 0, y1: 1, line: { color: colour("soft"), width: 1, dash: "dash" } });
        made.layout.annotations.push({ xref: `x${suffix}`, yref: `y${suffix} domain`, x: epoch - (at ? 0.5 : 0), y: 1, text: `${at ? "+ " : ""}${safe(stage, 16)}`, showarrow: false, xanchor: "left", yanchor: "bottom", yshift: (at % 2) * 13, font: { size: 11, color: colour("soft") } });
      });
    });
    made.layout.title = { text: `trial ${safe(trial.id)}${trial === best ? " (best)" : ""}: ${safe(objective)} ${safe(trial.score)}`, font: { size: 14 }, x: 0, xanchor: "left", y: 1 - 4 / tall, yanchor: "top", pad: { l: 4 } };
    made.layout.uirevision = trial.id;
    return made;
  }

  // The page ----------------------------------------------------------------------------------------------------------

  const plots = { history, parallel, slices, importance, map, curves };
  const places = Object.fromEntries(Object.keys(plots).map((name) => [name, document.getElementById(name)]));
  // Named one by one: Plotly's own list offers to send the chart to its makers' server.
  const buttons = (name) => [["toImage"], name === "parallel" ? ["select2d"] : ["select2d", "zoom2d", "pan2d", "resetScale2d"]];
  const config = { displaylogo: false, responsive: true, doubleClick: "reset" };
  let waiting = 0;

  // The plot in sight first, one a frame: with hundreds of trials the page answers while the others are drawn.
  function draw() {
    const now = ++waiting;
    const height = window.innerHeight;
    const away = (place) => { const { top, bottom } = place.getBoundingClientRect(); return bottom < 0 ? -bottom : top > height ? top - height : 0; };
    const queue = Object.keys(plots).filter((name) => places[name]).sort((a, b) => away(places[a]) - away(places[b]));
    const next = () => {
      if (now !== waiting) return;
      const name = queue.shift();
      if (!name) { document.body.dataset.drawn = String(now); return; }
      const { traces, layout: how } = plots[name]();
      Plotly.react(places[name], traces, how, { ...config, modeBarButtons: buttons(name), displayModeBar: narrow.matches || !["history", "parallel", "slices"].includes(name) ? false : "hover" }).then(() => {
        listen(places[name], name);
        setTimeout(next, 0);
      });
    };
    delete document.body.dataset.drawn;
    next();
  }

  function listen(place, name) {
    if (place.dataset.heard) return;
    place.dataset.heard = "yes";
    place.on("plotly_click", ({ points: [point] }) => {
      if (name === "map") keep(point.customdata || []);
      else if (point.customdata) choose(point.customdata);
    });
    place.on("plotly_selected", (event) => {
      if (event && event.points.length) setTimeout(() => keep(event.points.map((point) => point.customdata).filter(Boolean)), 0);
    });
  }

  function rows() {
    for (const row of document.querySelectorAll("#trials tbody tr")) {
      const trial = byId.get(row.dataset.trial);
      row.hidden = !counts(trial);
      row.classList.toggle("chosen", trial.id === state.trial);
    }
  }

  function bar() {
    const filtered = state.trial || state.among || state.off.status.size || state.off.thaw.size;
    document.getElementById("all").hidden = !filtered;
    const trial = byId.get(state.trial);
    const number = trials.filter(counts).length;
    const values = trial && Object.entries(trial.values).map(([name, value]) => `${name} ${text(value)}`);
    document.getElementById("trial").textContent = trial
      ? [`Trial ${trial.id}`, trial.status, ...(isNumber(trial.score) ? [`${objective} ${text(trial.score)}`] : []), ...values, ...(trial.reason ? [trial.reason] : [])].join(" · ")
      : `${number} of ${trials.length} trial${trials.length > 1 ? "s" : ""} shown. A click on a point, a line or a row shows one trial everywhere; again, and all are back.`;
    for (const chip of document.querySelectorAll("#chips button"))
      chip.setAttribute("aria-pressed", String(!state.off[chip.dataset.kind].has(chip.dataset.value)));
  }

  function chips() {
    const add = (kind, value, label, dot) => {
      const chip = document.createElement("button");
      Object.assign(chip.dataset, { kind, value });
      chip.type = "button";
      if (dot) { const mark = document.createElement("i"); mark.style.background = dot; chip.append(mark); }
      chip.append(label);
      chip.onclick = () => { const off = state.off[kind]; off.has(value) ? off.delete(value) : off.add(value); state.trial = null; update(); };
      document.getElementById("chips").append(chip);
    };
    const name = (label) => { const span = document.createElement("span"); span.textContent = label; document.getElementById("chips").append(span); };
    const statuses = [...new Set(trials.map((trial) => trial.status))];
    if (statuses.length) name("status");
    for (const status of statuses) add("status", status, `${status} ${trials.filter((trial) => trial.status === status).length}`);
    if (depths.length) name("thaw");
    for (const depth of depths) add("thaw", key(depth), text(depth), depthTint(depth));
  }

  function ways() {
    if (!places.history || !trials.some((trial) => isNumber(trial.started))) return;
    const box = document.createElement("div");
    box.id = "ways";
    for (const [way, label] of [["trial", "by trial"], ["time", "by time"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-pressed", String(way === state.way));
      button.onclick = () => {
        state.way = way;
        for (const each of box.children) each.setAttribute("aria-pressed", String(each === button));
        draw();
      };
      box.append(button);
    }
    places.history.before(box);
  }

  function sorting() {
    const table = document.getElementById("trials");
    if (!table) return;
    const fields = ["id", "status", "score", ...data.parameters.map((parameter) => ["values", parameter.name]), "epochs", "seconds", "reason"];
    const value = (row, field) => { const trial = byId.get(row.dataset.trial); return Array.isArray(field) ? trial.values[field[1]] : trial[field]; };
    const compare = (a, b) => (isNumber(a) && isNumber(b) ? a - b : text(a).localeCompare(text(b), undefined, { numeric: true }));
    const absent = (each) => each === undefined || each === null || each === "";
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      head.querySelector("button").onclick = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        // What a trial lacks stays at the end, whichever way.
        const sorted = [...table.tBodies[0].rows].sort((one, two) => {
          const [a, b] = [value(one, fields[i]), value(two, fields[i])];
          return absent(a) || absent(b) ? absent(a) - absent(b) : (down ? -1 : 1) * compare(a, b);
        });
        table.tBodies[0].append(...sorted);
      };
    });
    table.tBodies[0].onclick = (event) => {
      const row = event.target.closest("tr");
      if (row && !String(window.getSelection())) choose(row.dataset.trial);
    };
  }

  // The chosen trial is in the address, so that it survives the reloading of a running search.
  function update() {
    const hash = state.trial ? `#${encodeURIComponent(state.trial)}` : "#";
    if (location.hash !== hash && !(hash === "#" && !location.hash)) location.replace(hash);
    rows();
    bar();
    draw();
  }

  const asked = (() => { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } })();
  if (byId.has(asked)) state.trial = asked;
  document.getElementById("bar").hidden = !trials.length;
  document.getElementById("all").onclick = reset;
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") reset(); });
  for (const media of [narrow, dark]) media.addEventListener("change", draw);
  chips();
  ways();
  sorting();
  update();
})();
