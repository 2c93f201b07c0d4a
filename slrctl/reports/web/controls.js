// Choices of the reader and their effects. All text is set as text, never as markup.

const state = { run: null, clip: null, layer: null, map: null, head: -1, row: 0, column: 0, stretch: true, asked: 0 };
const root = document.documentElement;
const find = (id) => document.getElementById(id);
let timer = null;  // runs while the clip plays
let scheduled = false;

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name, place) => new Option(name, String(place), false, place === chosen)));
  select.disabled = names.length < 2;
}

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

async function chooseRun(place) {
  state.run = data.runs[place];
  find("run").value = String(place);
  const number = state.clip ? Math.max(0, Number(find("clip").value)) : 0;
  fill(find("clip"), state.run.clips.map((clip) => `${clip.clip_id} (${clip.gloss})`), number);
  await chooseClip(number);
}

async function chooseClip(place) {
  stop();
  const [layerName, mapName] = [state.layer?.name, state.map?.name];
  const asked = ++state.asked;
  const loaded = await load(state.run.clips[place]);
  if (asked !== state.asked) return;  // another one was chosen meanwhile
  state.clip = loaded;
  find("clip").value = String(place);
  const { clip } = state;
  const said = find("prediction");
  said.replaceChildren("predicted ", element("strong", clip.prediction.gloss),
    ` with ${percent(clip.prediction.probability)}, `,
    clip.prediction.is_right ? "which is right" : "but it shows ",
    clip.prediction.is_right ? "" : element("strong", clip.gloss),
    clip.prediction.is_right ? "" : ` (given ${percent(clip.prediction.probability_of_truth)})`);
  find("frame").max = String(clip.num_frames);
  fill(find("layer"), clip.layers.map((layer) => layer.name), 0);
  const kept = clip.layers.findIndex((layer) => layer.name === layerName);
  chooseLayer(Math.max(0, kept), mapName);
  showNumbers();
}

function chooseLayer(place, mapName) {
  state.layer = state.clip.layers[place];
  find("layer").value = String(place);
  const { maps } = state.layer;
  const isShown = (map) => map.rowsCount.includes(1) && map.keys.includes(1);
  let kept = maps.findIndex((map) => map.name === mapName && isShown(map));
  if (kept < 0) kept = Math.max(0, maps.findIndex(isShown));
  fill(find("direction"), maps.map(titleOf), kept);
  chooseMap(kept);
}

function chooseMap(place) {
  state.map = state.layer.maps[place];
  find("direction").value = String(place);
  const heads = state.map.heads.map((_, head) => `head ${head + 1}`);
  if (state.head >= heads.length || heads.length === 1) state.head = -1;
  fill(find("head"), [state.map.is_averaged ? "mean (page is at its size limit)" : "mean of heads",
    ...(heads.length > 1 ? heads : [])], state.head + 1);
  state.row = Math.min(state.row, state.clip.num_frames - 1);
  if (state.map.rowsCount.length > 1 && !state.map.rowsCount[state.row]) {
    state.row = Math.max(0, state.map.rowsCount.indexOf(1));
  }
  state.column = mostRead();
  drawAll();
}

function chooseHead(head) {
  state.head = head;
  find("head").value = String(head + 1);
  state.column = mostRead();
  drawAll();
}

// The frame that the reader's frame attends to most.
function mostRead() {
  const weights = shownWeights(state.map)[state.map.rows === 1 ? 0 : state.row];
  let best = 0;
  weights.forEach((weight, place) => { if (weight > weights[best]) best = place; });
  return best;
}

function drawAll() {
  find("map-title").textContent = titleOf(state.map);
  find("map-note").textContent = `${state.layer.name}, ${find("head").selectedOptions[0].textContent}`;
  drawMap();
  drawOverview();
  drawConsistency();
  place(state.row, state.column);
  drawPoint();
}

function drawPoint() {
  moveCrosshair();
  drawSkeleton();
  drawThreads();
}

// Move to a frame of the reader and a frame it reads; at most one drawing a screen refresh.
function point(row, column) {
  place(row, column);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawPoint();
  });
}

function place(row, column) {
  const last = state.clip.num_frames - 1;
  state.row = Math.min(Math.max(row, 0), last);
  state.column = Math.min(Math.max(column, 0), last);
  const slider = state.map.rows === 1 ? state.column : state.row;
  find("frame").value = String(slider + 1);
  find("frame-number").value = `${slider + 1} / ${last + 1}`;
  showReading();
}

// Follow the mouse; without a frame that is read, the one read most.
function pointAt(row, column) {
  stop();
  state.row = row;
  point(row, column === null ? mostRead() : column);
}

function step(frame) {
  if (state.map.rows === 1) { point(state.row, frame); return; }
  state.row = frame;
  point(frame, mostRead());
}

function showReading() {
  const { map, row, column } = state;
  const named = (stream) => `${stream === "clip" ? "" : "the "}${STREAM_NAMES[stream]}`;
  const reader = map.rows === 1 ? "The class query" : `Frame ${row + 1} of ${named(map.reader)}`;
  const read = `frame ${column + 1} of ${named(map.read)}`;
  let text;
  if (map.rows > 1 && !map.rowsCount[row]) text = `${reader}: the hand is missing there.`;
  else if (!map.keys[column]) text = `${reader} gives ${read} nothing: it is missing there.`;
  else {
    const weight = shownWeights(map)[map.rows === 1 ? 0 : row][column];
    text = `${reader} gives ${read} ${(100 * weight).toPrecision(3)} % of its attention, `
      + `${(weight * map.numKeys).toFixed(2)} times uniform.`;
  }
  find("readout").textContent = text;
}

function showNumbers() {
  const { clip } = state;
  const { exchange, relative_entropy: entropy, lag, redundancy } = clip.numbers;
  const streams = exchange.parts;
  const short = (stream) => stream.split("_")[0];
  const table = find("exchange");
  table.replaceChildren(element("tr", null, element("th", "stream"),
    ...streams.map((stream) => element("th", `from ${STREAM_NAMES[stream]}`))));
  streams.forEach((reader, row) => {
    table.append(element("tr", null, element("th", STREAM_NAMES[reader]),
      ...streams.map((read, column) => {
        const share = exchange.shares[row][column];
        const heads = entropy[`${short(reader)}_to_${short(read)}`];
        const known = heads && !heads.includes(null);
        const below = row === column ? "own" : known ?
          (heads.reduce((sum, value) => sum + value, 0) / heads.length).toFixed(3) : "-";
        return element("td", share === null ? "-" : (100 * share).toFixed(1), element("small", below));
      })));
  });
  const fused = Object.keys(entropy).length > 0;
  table.hidden = !fused;
  const facts = [["clip", clip.clip_id], ["gloss", clip.gloss], ["signer", clip.signer || "not stated"],
    ["frames", String(clip.num_frames)],
    ["left hand in", `${clip.present.left_hand.filter(Boolean).length} frames`],
    ["right hand in", `${clip.present.right_hand.filter(Boolean).length} frames`]];
  if (lag) {
    const when = `${Math.abs(lag.frames)} frames ${lag.frames < 0 ? "before" : "after"} the left`;
    const strength = `${lag.strength.toFixed(2)} times uniform`;
    facts.push(["lag", lag.strength < data.clear_lag ? `none to speak of (strongest: ${when}, ${strength})`
      : `right hand ${when}, ${strength}`]);
  }
  const agree = redundancy.left_to_right;
  if (agree !== undefined && agree !== null) facts.push(["heads agree", `${agree.toFixed(3)} (left reads right)`]);
  find("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function play() {
  if (timer !== null) { stop(); return; }
  find("play").textContent = "Pause";
  timer = setInterval(() => {
    const frame = state.map.rows === 1 ? state.column : state.row;
    step((frame + 1) % state.clip.num_frames);
  }, 1000 / Math.min(state.clip.fps || 25, 30));
}

function stop() {
  clearInterval(timer);
  timer = null;
  find("play").textContent = "Play";
}

function useTheme(name) {
  root.dataset.theme = name;
  find("theme").textContent = name === "dark" ? "Light" : "Dark";
  const swatch = (name) => {
    const mark = element("i", "");
    mark.style.background = colour(name);
    return mark;
  };
  find("legend").replaceChildren(
    element("span", null, swatch("left"), "left hand"), element("span", null, swatch("right"), "right hand"),
    element("span", null, swatch("thread"), "attention"),
    element("span", "solid: the reader's frame;"), element("span", "dotted: the frame it reads"));
  if (state.clip) drawAll();
}

const cycle = (id, by) => {
  const select = find(id);
  const count = select.options.length;
  return (Number(select.value) + by + count) % count;
};

const KEYS = {
  " ": play,
  ArrowLeft: () => step(Math.max(0, (state.map.rows === 1 ? state.column : state.row) - 1)),
  ArrowRight: () => step(Math.min(state.clip.num_frames - 1,
    (state.map.rows === 1 ? state.column : state.row) + 1)),
  ArrowUp: () => point(state.row, state.column - 1),
  ArrowDown: () => point(state.row, state.column + 1),
  h: () => chooseHead(cycle("head", 1) - 1),
  d: () => chooseMap(cycle("direction", 1)),
  l: () => chooseLayer(cycle("layer", 1), state.map.name),
  n: () => chooseClip(cycle("clip", 1)),
  p: () => chooseClip(cycle("clip", -1)),
  r: () => chooseRun(cycle("run", 1)),
  s: () => find("stretch").click(),
  t: () => find("theme").click(),
};

function listen() {
  const onChange = (id, choose) => find(id).addEventListener("change", (event) =>
    choose(Number(event.target.value)));
  onChange("run", chooseRun);
  onChange("clip", chooseClip);
  onChange("layer", (place) => chooseLayer(place, state.map.name));
  onChange("direction", chooseMap);
  onChange("head", (place) => chooseHead(place - 1));
  find("frame").addEventListener("input", (event) => { stop(); step(Number(event.target.value) - 1); });
  find("play").addEventListener("click", play);
  find("stretch").addEventListener("change", (event) => { state.stretch = event.target.checked; drawAll(); });
  find("theme").addEventListener("click", () =>
    useTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("select, summary, button")
      || (event.target.type === "range" && event.key.startsWith("Arrow"));
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    if (isTyping && (event.key === " " || event.key.startsWith("Arrow") || event.target.closest("select"))) return;
    event.preventDefault();
    if (event.key.startsWith("Arrow")) stop();
    KEYS[event.key]();
  });
  let before = "light";
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.paper = "yes";
    useTheme("light");
  });
  addEventListener("afterprint", () => {
    delete root.dataset.paper;
    useTheme(before);
  });
  let resizing = null;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => { if (!root.dataset.paper) drawAll(); }, 150);
  });
}

async function start() {
  const library = document.createElement("script");
  library.textContent = new TextDecoder().decode(await inflate(find("library").textContent));
  document.head.append(library);
  useTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  fill(find("run"), data.runs.map((run) => run.name), 0);
  find("run-label").hidden = data.runs.length < 2;
  find("notes").replaceChildren(...data.notes.map((note) => element("li", note)));
  find("origin").textContent = data.origin;
  await chooseRun(0);
  listen();
  document.body.dataset.ready = "yes";
}

start();
