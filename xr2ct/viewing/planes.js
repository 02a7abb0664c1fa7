// Axes of an array: 0 is z, feet to head; 1 is y, front to back; 2 is x, right to left of the patient.
const PLANES = {
  axial: { across: 2, down: 1, through: 0, flipped: false, letters: ["R", "L", "A", "P"] },
  coronal: { across: 2, down: 0, through: 1, flipped: true, letters: ["R", "L", "H", "F"] },
  sagittal: { across: 1, down: 0, through: 2, flipped: true, letters: ["A", "P", "H", "F"] },
};
const AXES = ["z", "y", "x"];
const SIDES = [["F", "H"], ["A", "P"], ["R", "L"]];
const LINES = ["#ffb454", "#5fd7a7", "#7cc0ff"];
const BAR_MM = 50;

const { shape, spacing, first } = about.volume;
const strides = [shape[1] * shape[2], shape[2], 1];
const extent = shape.map((n, axis) => n * spacing[axis]);
const arrays = {}; // int16 of volume, truth, doubt, unseen, once they are unpacked
const state = {
  place: shape.map((n) => n >> 1),
  level: -300, width: 1400,
  source: "volume", depth: "slice", overlay: "none", opacity: 0.6,
  full: Object.fromEntries(Object.entries(about.maps).map(([name, map]) => [name, map.full])),
  differences: 500,
  smooth: true, cross: true,
};

const number = (value, digits = 0) => value.toFixed(digits).replace("-", "−");
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const millimetres = (axis, index) => first[axis] + index * spacing[axis];
const offset = ([z, y, x]) => z * strides[0] + y * strides[1] + x;

// Pixels of every int16: black up to level − width / 2, white from level + width / 2.
const greys = new Uint8ClampedArray(4 * 65536).fill(255);
const grey = new Uint32Array(greys.buffer);
function setGreys() {
  const low = state.level - state.width / 2;
  for (let hu = -32768; hu < 32768; hu += 1) {
    const i = 4 * (hu + 32768);
    greys[i] = greys[i + 1] = greys[i + 2] = (255 * (hu - low)) / state.width;
  }
}

// Strengths from 0 to 255 in colour: dark violet to yellow, even in lightness.
const STOPS = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];
const HEAT = Array.from({ length: 256 }, (_, i) => {
  const at = (i / 255) * (STOPS.length - 1);
  const from = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[from].map((part, c) => part + (at - from) * (STOPS[from + 1][c] - part));
});
const BELOW = [77, 148, 255];
const ABOVE = [255, 92, 66];

// Fraction of the full colour, −1 to 1, as a colour: of either sign, or from 0 up.
const colour = (fraction, signed) =>
  signed ? (fraction < 0 ? BELOW : ABOVE) : HEAT[Math.round(255 * Math.abs(fraction))];

// A plane of an array, as it hangs: int16, row by row. Of the whole depth where a mean or a maximum is asked
// for, which is kept; of a signed array the largest of either sign.
const kept = new Map();
function flat(name, plane, depth) {
  if (depth === "slice") return cut(arrays[name], plane, state.place[plane.through]);
  const key = [name, plane.through, depth].join();
  if (!kept.has(key)) kept.set(key, through(arrays[name], plane, depth, about.maps[name]?.signed));
  return kept.get(key);
}

function eachRow(plane, index, visit) {
  const rows = shape[plane.down];
  for (let row = 0; row < rows; row += 1) {
    const down = plane.flipped ? rows - 1 - row : row;
    visit(index * strides[plane.through] + down * strides[plane.down], row * shape[plane.across]);
  }
}

function cut(array, plane, index) {
  const columns = shape[plane.across];
  const step = strides[plane.across];
  const values = new Int16Array(columns * shape[plane.down]);
  eachRow(plane, index, (from, to) => {
    for (let c = 0; c < columns; c += 1) values[to + c] = array[from + c * step];
  });
  return values;
}

function through(array, plane, depth, signed) {
  const columns = shape[plane.across];
  const step = strides[plane.across];
  const totals = new Float32Array(columns * shape[plane.down]);
  if (depth === "mip") totals.fill(signed ? 0 : -Infinity);
  for (let index = 0; index < shape[plane.through]; index += 1) {
    eachRow(plane, index, (from, to) => {
      for (let c = 0; c < columns; c += 1) {
        const value = array[from + c * step];
        const i = to + c;
        if (depth === "mean") totals[i] += value;
        else if (signed ? Math.abs(value) > Math.abs(totals[i]) : value > totals[i]) totals[i] = value;
      }
    });
  }
  const share = depth === "mean" ? 1 / shape[plane.through] : 1;
  return Int16Array.from(totals, (total) => Math.round(total * share));
}

// What a plane shows: HU, or this less truth.
function shown(plane) {
  if (state.source !== "difference") return flat(state.source, plane, state.depth);
  const truth = flat("truth", plane, state.depth);
  return flat("volume", plane, state.depth).map((value, i) => value - truth[i]);
}

// RGBA of a plane, into `pixels`.
function paint(plane, pixels) {
  const values = shown(plane);
  if (state.source === "difference") {
    for (let i = 0; i < values.length; i += 1) {
      const fraction = clamp(values[i] / state.differences, -1, 1);
      const strong = colour(fraction, true);
      for (let c = 0; c < 3; c += 1) pixels[4 * i + c] = Math.abs(fraction) * strong[c];
      pixels[4 * i + 3] = 255;
    }
  } else {
    const whole = new Uint32Array(pixels.buffer);
    for (let i = 0; i < values.length; i += 1) whole[i] = grey[values[i] + 32768];
  }
  if (state.overlay !== "none") lay(plane, pixels);
}

// An overlay is as opaque as it is strong, so that nothing is hidden where there is nothing to say.
function lay(plane, pixels) {
  const { scale, signed } = about.maps[state.overlay];
  const strengths = flat(state.overlay, plane, state.depth);
  const full = state.full[state.overlay] / scale;
  for (let i = 0; i < strengths.length; i += 1) {
    const fraction = clamp(strengths[i] / full, -1, 1);
    const share = state.opacity * Math.abs(fraction);
    const strong = colour(fraction, signed);
    for (let c = 0; c < 3; c += 1) pixels[4 * i + c] += share * (strong[c] - pixels[4 * i + c]);
  }
}

// Where an image of width × height millimetres lies on a canvas: pixels of its corner, and of a millimetre.
function fitted(canvas, width, height, whole) {
  const scale = Math.min(canvas.width / (whole ?? width), canvas.height / (whole ?? height));
  return { left: (canvas.width - width * scale) / 2, top: (canvas.height - height * scale) / 2, scale };
}

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return ratio;
}

class Panel {
  constructor(name) {
    this.name = name;
    this.plane = PLANES[name];
    this.element = at("planes").appendChild(panelElement(name, this.plane));
    this.canvas = this.element.querySelector("canvas");
    this.slider = this.element.querySelector("input");
    this.where = this.element.querySelector(".where");
    const { across, down } = this.plane;
    this.drawn = Object.assign(document.createElement("canvas"), { width: shape[across], height: shape[down] });
    this.image = new ImageData(shape[across], shape[down]);
  }

  get large() { return this.element.classList.contains("large"); }

  fit() {
    const { across, down } = this.plane;
    return fitted(this.canvas, extent[across], extent[down], this.large ? null : Math.max(...extent));
  }

  // Its voxels anew: after a slice, a window, an overlay changed.
  paint() {
    paint(this.plane, this.image.data);
    this.drawn.getContext("2d").putImageData(this.image, 0, 0);
  }

  draw() {
    const ratio = sized(this.canvas);
    const { across, down, through } = this.plane;
    const context = this.canvas.getContext("2d");
    const { left, top, scale } = this.fit();
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = state.smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.drawn, left, top, extent[across] * scale, extent[down] * scale);
    if (state.cross) {
      const [x, y] = this.toCanvas(state.place);
      drawCross(context, x, y, LINES[across], LINES[down], ratio);
    }
    drawBar(context, BAR_MM * scale, ratio);
    const index = state.place[through];
    const place = `${AXES[through]} ${number(millimetres(through, index), 1)} mm`;
    this.where.textContent = state.depth === "slice" ? `${place} · ${index + 1} of ${shape[through]}`
      : `${state.depth === "mean" ? "mean" : "maximum"} along ${AXES[through]}`;
    this.slider.value = index;
    this.slider.setAttribute("aria-valuetext", place);
  }

  toCanvas(place) {
    const { across, down, flipped } = this.plane;
    const { left, top, scale } = this.fit();
    const row = flipped ? shape[down] - 1 - place[down] : place[down];
    return [left + (place[across] + 0.5) * spacing[across] * scale, top + (row + 0.5) * spacing[down] * scale];
  }

  // The voxel under a point of the window, or null beside the image; the nearest one where it must be one.
  voxel(event, nearest = false) {
    const box = this.canvas.getBoundingClientRect();
    const { across, down, flipped } = this.plane;
    const { left, top, scale } = this.fit();
    const ratio = this.canvas.width / box.width;
    let column = Math.floor(((event.clientX - box.left) * ratio - left) / scale / spacing[across]);
    let row = Math.floor(((event.clientY - box.top) * ratio - top) / scale / spacing[down]);
    if (nearest) [column, row] = [clamp(column, 0, shape[across] - 1), clamp(row, 0, shape[down] - 1)];
    if (column < 0 || row < 0 || column >= shape[across] || row >= shape[down]) return null;
    const place = [...state.place];
    place[across] = column;
    place[down] = flipped ? shape[down] - 1 - row : row;
    return place;
  }
}

function element(name, style = "", text = "") {
  const made = document.createElement(name);
  if (style) made.className = style;
  if (text) made.textContent = text;
  return made;
}

// A canvas with the patient's sides at its edges: left, right, top, bottom.
function screen(letters, label) {
  const made = element("div", "screen");
  const canvas = element("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", label);
  const edges = ["left", "right", "top", "bottom"];
  made.append(canvas, ...letters.map((letter, i) => element("span", `letter ${edges[i]}`, letter)));
  return made;
}

function panelElement(name, plane) {
  const made = element("figure", "panel");
  made.dataset.plane = name;
  const caption = element("figcaption");
  const title = element("strong", "", name[0].toUpperCase() + name.slice(1));
  title.style.color = LINES[plane.through];
  const enlarge = element("button", "enlarge", "⤢");
  enlarge.type = "button";
  enlarge.title = "Large, and back (z)";
  enlarge.setAttribute("aria-label", `${name} plane large, and back`);
  caption.append(title, element("span", "where"), enlarge);
  const slider = Object.assign(element("input"), { type: "range", min: 0, max: shape[plane.through] - 1 });
  slider.setAttribute("aria-label", `${name} slice`);
  slider.style.accentColor = LINES[plane.through];
  made.append(caption, screen(plane.letters, `${name} plane: arrows move the crosshair`), slider);
  return made;
}

function drawCross(context, x, y, upright, level, ratio) {
  const { width, height } = context.canvas;
  const gap = 7 * ratio;
  context.lineWidth = ratio;
  for (const [line, ends] of [
    [upright, [[x, 0, x, y - gap], [x, y + gap, x, height]]],
    [level, [[0, y, x - gap, y], [x + gap, y, width, y]]],
  ]) {
    context.strokeStyle = line;
    context.globalAlpha = 0.75;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of ends) { context.moveTo(fromX, fromY); context.lineTo(toX, toY); }
    context.stroke();
  }
  context.globalAlpha = 1;
}

function drawBar(context, length, ratio) {
  const { width, height } = context.canvas;
  const [x, y] = [width - 10 * ratio, height - 10 * ratio];
  context.strokeStyle = context.fillStyle = "#cfd8e3";
  context.lineWidth = 1.5 * ratio;
  context.beginPath();
  context.moveTo(x - length, y);
  context.lineTo(x, y);
  context.stroke();
  context.font = `${10 * ratio}px system-ui, sans-serif`;
  context.textAlign = "right";
  context.fillText(`${BAR_MM} mm`, x, y - 4 * ratio);
}
