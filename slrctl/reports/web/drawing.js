// Every picture of the page, drawn by Plotly from what `state` says is shown.

const STREAM_NAMES = data.streams;
const LANDMARKS = { body: [0, 12], left_hand: [12, 33], right_hand: [33, 54], clip: [0, 54] };
const WIDTHS = [0.6, 1.2, 2, 3, 4.2, 5.6, 7.2, 9];
const VIRIDIS = "Viridis";
const DIFFERENCE = [
  [0, "#2d004b"], [0.25, "#998ec3"], [0.5, "#f7f7f7"], [0.75, "#f1a340"], [1, "#7f3b08"],
];
// Where the three panels of consistency stand, side by side or, on a small screen, one below the
// other; the second and the third have a colour bar.
const BESIDE = [[0, 0.26], [0.32, 0.58], [0.74, 1]].map((x) => ({ x, y: [0, 1] }));
const BELOW = [[0.74, 1], [0.37, 0.63], [0, 0.26]];
const CONFIG = {
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "pan2d", "zoomIn2d", "zoomOut2d"],
  toImageButtonOptions: { format: "svg", filename: "attention" },
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A chart takes listeners once Plotly has drawn it, and needs each only once.
const followed = new Set();

function follow(id, event, listener) {
  if (followed.has(id)) return;
  followed.add(id);
  document.getElementById(id).on(event, listener);
}

// As large as the element is now: on paper that is not what it is on the screen.
function baseLayout(id, extra) {
  const { clientWidth: width, clientHeight: height } = document.getElementById(id);
  return {
    width, height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: colour("missing"),
    font: { color: colour("ink"), size: 12 }, margin: { l: 52, r: 10, t: 10, b: 44 },
    showlegend: false, hovermode: "closest", dragmode: "zoom", ...extra,
  };
}

// ---- skeletons and threads

function bones(points, edges) {
  const [x, y] = [[], []];
  for (const [a, b] of edges) {
    if (!points[a] || !points[b]) continue;
    x.push(points[a][0], points[b][0], null);
    y.push(points[a][1], points[b][1], null);
  }
  return { x, y };
}

function centre(points, stream) {
  const [first, last] = LANDMARKS[stream] || LANDMARKS.clip;
  const present = points.slice(first, last).filter(Boolean);
  if (!present.length) return null;
  return [0, 1].map((place) => present.reduce((sum, point) => sum + point[place], 0) / present.length);
}

// Eight traces, one a width: Plotly gives a line one width only.
function threads(segments, axes) {
  const traces = WIDTHS.map((width) => ({
    x: [], y: [], mode: "lines", type: "scatter", hoverinfo: "skip", ...axes,
    line: { width, color: colour("thread") }, opacity: 0.25 + (0.5 * width) / 9,
  }));
  const highest = Math.max(...segments.map((segment) => segment.weight), 2);
  for (const { from, to, weight } of segments) {
    const level = Math.min(WIDTHS.length - 1, Math.floor((weight / highest) * WIDTHS.length));
    traces[level].x.push(from[0], to[0], null);
    traces[level].y.push(from[1], to[1], null);
  }
  return traces;
}

function skeletonTraces(clip, frame, opacity, dash) {
  return ["body", "left_hand", "right_hand"].map((stream) => ({
    ...bones(clip.frames[frame], data.edges[stream]), mode: "lines", type: "scatter",
    hoverinfo: "skip", opacity,
    line: { color: colour(stream.split("_")[0]), width: stream === "body" ? 2.5 : 1.8, dash },
  }));
}

function drawSkeleton() {
  const { clip, map, row, column } = state;
  const isQuery = map.rows === 1;
  const own = isQuery ? column : row;
  const weights = shownWeights(map);
  const from = isQuery ? null : centre(clip.frames[row], map.reader);
  const path = clip.frames.map((points, frame) => (map.keys[frame] ? centre(points, map.read) : null));
  const segments = from && map.rowsCount[row] ? path.flatMap((to, frame) =>
    to ? [{ from, to, weight: weights[row][frame] * map.numKeys }] : []) : [];
  const present = path.filter(Boolean);
  const target = path[column];
  const readColour = colour((map.read === "clip" ? "body" : map.read).split("_")[0]);
  const traces = [
    ...threads(segments, {}),
    ...skeletonTraces(clip, column, 0.45, "dot"),
    ...skeletonTraces(clip, own, 1, "solid"),
    { x: present.map((p) => p[0]), y: present.map((p) => p[1]), mode: "markers", type: "scatter",
      hoverinfo: "skip", marker: { size: 4, color: readColour, opacity: 0.5 } },
    { x: target ? [target[0]] : [], y: target ? [target[1]] : [], mode: "markers", type: "scatter",
      hoverinfo: "skip", marker: { size: 13, color: "rgba(0,0,0,0)",
        line: { width: 2.5, color: readColour } } },
  ];
  const [left, top, width, height] = clip.box;
  Plotly.react("skeleton", traces, baseLayout("skeleton", {
    plot_bgcolor: colour("ground"), margin: { l: 4, r: 4, t: 4, b: 4 },
    xaxis: { visible: false, range: [left - 0.04 * width, left + 1.04 * width], fixedrange: true },
    yaxis: { visible: false, range: [top + 1.04 * height, top - 0.04 * height], scaleanchor: "x",
      fixedrange: true },
  }), CONFIG);
}

function drawThreads() {
  const { clip, map, row, column } = state;
  const frames = clip.frames.map((_, frame) => frame + 1);
  const weights = shownWeights(map)[Math.min(row, map.rows - 1)];
  const own = map.rows === 1 ? (frames.length + 1) / 2 : row + 1;
  const counts = map.rowsCount[map.rows === 1 ? 0 : row];
  const segments = counts ? frames.flatMap((frame, place) => map.keys[place] ?
    [{ from: [own, 1], to: [frame, 0], weight: weights[place] * map.numKeys }] : []) : [];
  const marks = (mask, y, stream) => ({
    x: frames, y: frames.map(() => y), mode: "markers", type: "scatter", hoverinfo: "none",
    marker: { size: Math.max(3, Math.min(9, 300 / frames.length)), symbol: "square",
      color: frames.map((_, place) => (mask[place] ? colour(stream) : colour("line"))) },
  });
  const short = (stream) => (stream in LANDMARKS && stream !== "clip" ? stream.split("_")[0] : "body");
  const rows = map.rows === 1 ? [] : [marks(map.rowsCount, 1, short(map.reader))];
  Plotly.react("threads", [
    ...threads(segments, {}), ...rows, marks(map.keys, 0, short(map.read)),
    { x: [own, column + 1], y: [1, 0], mode: "markers", type: "scatter", hoverinfo: "skip",
      marker: { size: 13, color: "rgba(0,0,0,0)", line: { width: 2, color: colour("ink") } } },
  ], baseLayout("threads", {
    plot_bgcolor: colour("panel"), margin: { l: 78, r: 8, t: 6, b: 26 },
    xaxis: { range: [0, frames.length + 1], showgrid: false, zeroline: false, fixedrange: true },
    yaxis: { range: [-0.3, 1.3], tickvals: [0, 1], fixedrange: true, showgrid: false, zeroline: false,
      ticktext: [STREAM_NAMES[map.read], STREAM_NAMES[map.reader]] },
  }), { ...CONFIG, displayModeBar: false });
  follow("threads", "plotly_hover", ({ points: [mark] }) => {
    if (mark.y === 0) pointAt(state.row, mark.x - 1);
    else pointAt(mark.x - 1, null);
  });
}

// ---- maps

function heat(picture, range, axes, extra) {
  return {
    z: picture, x0: 1, dx: 1, y0: 1, dy: 1, type: "heatmap", colorscale: VIRIDIS,
    zmin: range[0], zmax: range[1], hoverinfo: "none", zsmooth: false, showscale: false, ...axes,
    ...extra,
  };
}

function frameAxis(title, count, extra) {
  return {
    title: { text: title, standoff: 4 }, range: [0.5, count + 0.5], constrain: "domain",
    showgrid: false, nticks: 6,
    zeroline: false, ticks: "outside", ticklen: 4, tickcolor: colour("soft"), ...extra,
  };
}

const downwards = (count) => ({ range: [count + 0.5, 0.5] });

// A map of one row shows its heads down instead.
function shownPicture(map) {
  if (map.rows > 1) return relative(map, shownWeights(map));
  return map.heads.map((head) => relative(map, head)[0]);
}

function shownWeights(map) {
  return state.head < 0 || state.head >= map.heads.length ? map.mean : map.heads[state.head];
}

function bar(title, range) {
  const text = range[0] > 0 ? `${title} (stretched)` : title;
  return { title: { text, side: "right" }, thickness: 12, outlinewidth: 0, len: 1 };
}

function drawMap() {
  const { map } = state;
  const picture = shownPicture(map);
  const range = rangeOf([picture], state.stretch);
  const isQuery = map.rows === 1;
  Plotly.react("map", [
    heat(picture, range, {}, { showscale: true, colorbar: bar("times uniform attention", range) }),
  ], baseLayout("map", {
    xaxis: frameAxis(`${STREAM_NAMES[map.read]} (frame)`, map.columns),
    yaxis: frameAxis(isQuery ? "head" : `${STREAM_NAMES[map.reader]} (frame)`, picture.length, {
      ...downwards(picture.length), ...(isQuery ? { dtick: 1 } : { scaleanchor: "x" }),
    }),
    shapes: crosshair(),
  }), CONFIG);
  follow("map", "plotly_hover", ({ points: [cell] }) => {
    if (state.map.rows > 1) { pointAt(cell.y - 1, cell.x - 1); return; }
    state.head = cell.y - 1;
    document.getElementById("head").value = String(cell.y);
    pointAt(0, cell.x - 1);
  });
}

function crosshair() {
  const { map, row, column } = state;
  const y = map.rows === 1 ? Math.max(state.head, 0) : row;
  const line = { color: colour("cross"), width: 1.5 };
  const box = (x0, x1, y0, y1) => ({ type: "rect", xref: "x", yref: "y", x0, x1, y0, y1, line });
  const height = map.rows === 1 ? map.heads.length : map.rows;
  const across = map.rows === 1 && state.head < 0 ? [] : [box(0.5, map.columns + 0.5, y + 0.5, y + 1.5)];
  return [...across, box(column + 0.5, column + 1.5, 0.5, height + 0.5)];
}

const moveCrosshair = () => Plotly.relayout("map", { shapes: crosshair() });

function drawOverview() {
  const { maps } = state.layer;
  const pictures = maps.map(shownPicture);
  const range = rangeOf(pictures, state.stretch);
  const { clientWidth: width } = document.getElementById("overview");
  const across = Math.min(maps.length, width < 560 ? 2 : width < 900 ? 3 : 6);
  const down = Math.ceil(maps.length / across);
  const room = (width - 120) / across;
  const xgap = Math.min(0.4, 60 / room);  // for the labels beside a map
  const side = Math.min(300, (1 - xgap) * room);
  document.getElementById("overview").style.height = `${down * (side + 80) + 20}px`;
  const layout = baseLayout("overview", {
    grid: { rows: down, columns: across, pattern: "independent", xgap,
      ygap: 80 / (side + 80) },
    margin: { l: 48, r: 72, t: 26, b: 42 }, annotations: [],
  });
  // Plotly draws no colour bar for a map in which all is missing.
  const first = Math.max(0, pictures.findIndex((rows) => rows.flat().some((value) => value !== null)));
  const traces = maps.map((map, place) => {
    const suffix = place ? String(place + 1) : "";
    layout[`xaxis${suffix}`] = frameAxis(STREAM_NAMES[map.read], map.columns, { fixedrange: true });
    layout[`yaxis${suffix}`] = frameAxis(map.rows === 1 ? "head" : STREAM_NAMES[map.reader],
      pictures[place].length, { ...downwards(pictures[place].length), fixedrange: true,
        ...(map.rows === 1 ? {} : { scaleanchor: `x${suffix}` }) });
    layout.annotations.push({
      text: titleOf(map), xref: `x${suffix} domain`, yref: `y${suffix} domain`, x: 0.5, y: 1,
      yanchor: "bottom", showarrow: false,
      font: { size: across < 6 ? 10 : 12, color: colour(map === state.map ? "ink" : "soft") },
    });
    return heat(pictures[place], range, { xaxis: `x${suffix}`, yaxis: `y${suffix}` },
      place === first ? { showscale: true, colorbar: bar("times uniform", range) } : {});
  });
  Plotly.react("overview", traces, layout, CONFIG);
  follow("overview", "plotly_click", ({ points: [cell] }) => chooseMap(cell.curveNumber));
}

const titleOf = (map) => (map.reader === map.read ? `${STREAM_NAMES[map.reader]} reads itself`
  : `${STREAM_NAMES[map.reader]} reads ${STREAM_NAMES[map.read]}`);

function drawConsistency() {
  const fusion = state.clip.layers.find((layer) => layer.name === "fusion");
  const { consistency } = state.clip.numbers;
  document.getElementById("agreement").hidden = !fusion;
  const hasBoth = consistency.mean_of_heads !== null;
  document.getElementById("consistency").hidden = !hasBoth;
  document.getElementById("agreement-number").textContent = "One of the hands is never detected.";
  if (!fusion || !hasBoth) return;
  const [map, reverse] = ["left_to_right", "right_to_left"].map((name) =>
    fusion.maps.find((each) => each.name === name));
  const { temperature, divergence } = state.run.cmcl;
  const pictures = compared(map, shownWeights(map), shownWeights(reverse), temperature)
    .map((rows) => relative(map, rows));
  const difference = pictures[0].map((line, row) => line.map((value, column) =>
    value === null ? null : value - pictures[1][row][column]));
  const range = rangeOf(pictures, state.stretch);
  const largest = Math.max(1e-9, ...difference.flat().map((value) => Math.abs(value || 0)));
  const { clientWidth: width } = document.getElementById("consistency");
  const isSmall = width < 900;
  const side = isSmall ? Math.min(420, width - 132) : 0.26 * (width - 132);
  const panels = isSmall ? BELOW.map((y) => ({ x: [0, side / (width - 132)], y })) : BESIDE;
  document.getElementById("consistency").style.height = `${70 + (isSmall ? side / 0.26 : side)}px`;
  const layout = baseLayout("consistency", {
    margin: { l: 52, r: 80, t: 26, b: 44 }, annotations: [],
  });
  const barBeside = (place) => ({ x: panels[place].x[1] + 0.005, xanchor: "left",
    y: panels[place].y[0], yanchor: "bottom", len: panels[place].y[1] - panels[place].y[0] });
  const titles = ["left reads right", "right reads left, reversed", "difference"];
  titles.forEach((text, place) => {
    const suffix = place ? String(place + 1) : "";
    layout[`xaxis${suffix}`] = frameAxis("right hand (frame)", map.columns,
      { domain: panels[place].x, anchor: `y${suffix}` });
    layout[`yaxis${suffix}`] = frameAxis("left hand (frame)", map.rows,
      { ...downwards(map.rows), domain: panels[place].y, scaleanchor: `x${suffix}`,
        anchor: `x${suffix}` });
    layout.annotations.push({ text, xref: `x${suffix} domain`, yref: `y${suffix} domain`, x: 0.5,
      y: 1, yanchor: "bottom", showarrow: false });
  });
  Plotly.react("consistency", [
    heat(pictures[0], range, {}),
    heat(pictures[1], range, { xaxis: "x2", yaxis: "y2" },
      { showscale: true, colorbar: { ...bar("times uniform", range), ...barBeside(1) } }),
    heat(difference, [-largest, largest], { xaxis: "x3", yaxis: "y3" },
      { colorscale: DIFFERENCE, showscale: true, colorbar: { ...bar("first minus second", [0]), ...barBeside(2) } }),
  ], layout, CONFIG);
  follow("consistency", "plotly_hover", ({ points: [cell] }) => {
    if (state.map.name === "left_to_right") pointAt(cell.y - 1, cell.x - 1);
  });
  const number = state.head < 0 ? consistency.mean_of_heads : consistency.heads[state.head];
  const which = state.head < 0 ? "heads averaged, as in the loss" : `head ${state.head + 1}`;
  const softened = temperature === 1 ? "" : `, temperature ${temperature}`;
  document.getElementById("agreement-number").textContent =
    `${data.divergences[divergence]} ${number.toPrecision(3)} nats (${which})${softened}`;
}
