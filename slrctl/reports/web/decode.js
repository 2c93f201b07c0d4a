"use strict";
// From the page's JSON to numbers: maps are bytes, packed row on row, then deflated.

const data = JSON.parse(document.getElementById("data").textContent);

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function inflate(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Each row holds its difference to the row above, modulo 256.
function unpackMap(bytes, map) {
  const { rows, columns } = map;
  const heads = [];
  let start = 0;
  for (let head = 0; head < map.low.length; head++) {
    const low = map.low[head];
    const range = map.high[head] - low;
    const weights = [];
    const running = new Uint8Array(columns);
    for (let row = 0; row < rows; row++) {
      const line = new Float64Array(columns);
      for (let column = 0; column < columns; column++) {
        running[column] += bytes[start++];
        const level = running[column] / 255;
        line[column] = map.keys[column] ? low + range * level * level : 0;
      }
      weights.push(line);
    }
    heads.push(weights);
  }
  map.heads = heads;
  map.mean = meanOf(heads);
  map.numKeys = Math.max(1, map.keys.reduce((sum, isPresent) => sum + isPresent, 0));
}

function meanOf(heads) {
  if (heads.length === 1) return heads[0];
  return heads[0].map((line, row) =>
    line.map((_, column) => heads.reduce((sum, head) => sum + head[row][column], 0) / heads.length));
}

// Landmarks are 16-bit levels within the clip's box; 0 is missing. Differences in time.
function unpackLandmarks(bytes, clip) {
  const levels = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const [left, top, width, height] = clip.box;
  const size = 108;
  const running = new Uint16Array(size);
  return Array.from({ length: clip.num_frames }, (_, frame) => {
    for (let place = 0; place < size; place++) running[place] += levels[frame * size + place];
    return Array.from({ length: 54 }, (_, landmark) => {
      const [x, y] = [running[2 * landmark], running[2 * landmark + 1]];
      if (!x || !y) return null;
      return [left + (width * (x - 1)) / 65534, top + (height * (y - 1)) / 65534];
    });
  });
}

// The maps of a clip, unpacked when it is first shown.
async function load(clip) {
  if (clip.frames) return clip;
  const everywhere = new Array(clip.num_frames).fill(1);
  clip.present = {
    left_hand: clip.left_is_present, right_hand: clip.right_is_present,
    body: everywhere, clip: everywhere, class_query: [1],
  };
  const frames = unpackLandmarks(await inflate(clip.landmarks), clip);
  for (const layer of clip.layers) {
    for (const map of layer.maps) {
      const counts = layer.name === "fusion" ? clip.present : {};
      map.keys = counts[map.read] || everywhere;
      map.rowsCount = map.rows === 1 ? [1] : counts[map.reader] || everywhere;
      unpackMap(await inflate(map.bytes), map);
    }
  }
  clip.frames = frames;
  return clip;
}

// Relative to uniform attention; null where the reader or the read is missing.
function relative(map, weights) {
  return Array.from(weights, (line, row) =>
    Array.from(line, (weight, column) =>
      map.rowsCount[row] && map.keys[column] ? weight * map.numKeys : null));
}

// From 0 to the largest value; where none is twice uniform, and that is wanted, stretched.
function rangeOf(pictures, stretch) {
  let [low, high] = [Infinity, -Infinity];
  for (const picture of pictures) for (const line of picture) for (const value of line) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (high < low) return [0, 2];
  return stretch && high < 2 ? [Math.min(low, 0.99), Math.max(high, 1.01)] : [0, Math.max(high, 2)];
}

// The two distributions whose divergence CMCL takes: left to right, and right to left reversed.
function compared(map, weights, reverseWeights, temperature) {
  const soften = (weightAt) => map.rowsCount.map((_, row) => {
    const line = map.keys.map((key, column) =>
      key ? Math.max(weightAt(row, column), 1e-9) ** (1 / temperature) : 0);
    const total = line.reduce((sum, value) => sum + value, 0) || 1;
    return line.map((value) => value / total);
  });
  return [
    soften((row, column) => weights[row][column]),
    soften((row, column) => reverseWeights[column][row]),
  ];
}
