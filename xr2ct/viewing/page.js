// Level and width in HU: lung and soft tissue at once, what radiologists use for each, all that networks see.
const PRESETS = [["Chest", -300, 1400], ["Lung", -600, 1500], ["Soft", 40, 400], ["Bone", 400, 1800],
  ["Whole", 226, 2500]];
const BLINK_MS = 600;

const panels = [];
let pictures = [];
let cursor = null; // the panel and voxel under the pointer
let waiting = null;

// Draws once a frame, whatever changed meanwhile; voxels anew where `paint` says so.
function redraw(paint = true) {
  if (waiting) { waiting.paint ||= paint; return; }
  waiting = { paint };
  requestAnimationFrame(() => {
    const { paint: anew } = waiting;
    waiting = null;
    for (const panel of panels) {
      if (anew) panel.paint();
      panel.draw();
    }
    for (const picture of pictures) picture.draw();
    tellValues();
  });
}

function say(text) {
  at("status").textContent = text;
}

function move(place) {
  state.place = place.map((index, axis) => clamp(index, 0, shape[axis] - 1));
  redraw();
}

function step(axis, by) {
  const place = [...state.place];
  place[axis] += by;
  move(place);
}

// Values under the pointer, or at the crosshair.
function tellValues() {
  const flats = cursor && state.depth !== "slice";
  const place = cursor ? cursor.place : state.place;
  at("values").caption.textContent = cursor ? "Under the cursor" : "At the crosshair";
  const rows = [["HU", number(valueOf("volume", place))]];
  if (arrays.truth) rows.push(["Truth", number(valueOf("truth", place))]);
  for (const name of overlays.slice(1)) {
    const map = about.maps[name];
    const value = number(valueOf(name, place) * map.scale, map.scale < 1 ? 1 : 0);
    rows.push(name === "doubt" ? ["Doubt", `± ${value} HU`] : ["Unseen", `${value} HU`]);
  }
  for (const axis of [2, 1, 0]) {
    const mm = millimetres(axis, place[axis]);
    const side = SIDES[axis][mm < 0 ? 0 : 1];
    const all = flats && cursor.panel.plane.through === axis;
    rows.push([AXES[axis], all ? "all" : `${number(mm, 1)} mm ${Math.abs(mm) < 0.05 ? "" : side}`]);
  }
  at("values").tBodies[0].replaceChildren(...rows.map(([name, value]) => {
    const row = element("tr");
    const heading = element("th", "", name);
    heading.scope = "row";
    row.append(heading, element("td", "", value));
    return row;
  }));
}

// Of a mean or a maximum where planes show one and the pointer is on it.
function valueOf(name, place) {
  if (!cursor || state.depth === "slice") return arrays[name][offset(place)];
  const { plane } = cursor.panel;
  const row = plane.flipped ? shape[plane.down] - 1 - place[plane.down] : place[plane.down];
  return flat(name, plane, state.depth)[row * shape[plane.across] + place[plane.across]];
}

// Window and level.
function setWindow(level, width, text = "") {
  state.level = clamp(Math.round(level), -32000, 32000);
  state.width = clamp(Math.round(width), 1, 64000);
  setGreys();
  if (document.activeElement !== at("level")) at("level").value = state.level;
  if (document.activeElement !== at("width")) at("width").value = state.width;
  const [low, high] = [state.level - state.width / 2, state.level + state.width / 2];
  legend("window-legend", low, high, (share) => [255 * share, 255 * share, 255 * share]);
  for (const button of at("presets").children) {
    button.setAttribute("aria-pressed", button.value === `${state.level},${state.width}`);
  }
  if (text) say(text);
  redraw();
}

function preset(index) {
  const [name, level, width] = PRESETS[index];
  setWindow(level, width, `${name} window: level ${number(level)} HU, width ${width} HU`);
}

// A bar of colours of the shares 0 to 1 between two numbers.
function legend(id, low, high, of) {
  const bar = at(id).querySelector("canvas");
  const image = new ImageData(bar.width, bar.height);
  for (let i = 0; i < bar.width * bar.height; i += 1) {
    image.data.set([...of((i % bar.width) / (bar.width - 1)), 255], 4 * i);
  }
  bar.getContext("2d").putImageData(image, 0, 0);
  const ends = at(id).querySelectorAll(".ends span");
  [ends[0].textContent, ends[2].textContent] = [low, high].map((end) => number(end, Math.abs(end) < 10 ? 1 : 0));
}

// Overlays.
const LIKE = { none: "No overlay", doubt: "Doubt, standard deviation", unseen: "Unseen by the X-rays" };
const overlays = ["none"]; // and those that are unpacked

function setOverlay(name, text = LIKE[name]) {
  state.overlay = name;
  document.querySelector(`[name=overlay][value=${name}]`).checked = true;
  const on = name !== "none";
  at("overlay-legend").hidden = !on;
  for (const id of ["opacity", "full"]) at(id).disabled = !on;
  if (on) {
    const { signed } = about.maps[name];
    const full = state.full[name];
    at("full").value = full;
    at("overlay-name").textContent = `${name === "doubt" ? "doubt" : "unseen"}, HU`;
    // On a middle grey, as it looks on tissue.
    legend("overlay-legend", signed ? -full : 0, full, (share) => {
      const fraction = signed ? 2 * share - 1 : share;
      const opaque = state.opacity * Math.abs(fraction);
      return colour(fraction, signed).map((part) => 96 + opaque * (part - 96));
    });
  }
  say(text);
  redraw();
}

// What is shown: this, truth, or the difference between them.
function setSource(name, blinking = false) {
  if (!arrays.truth) return;
  state.source = name;
  document.querySelector(`[name=source][value=${name}]`).checked = true;
  at("difference-legend").hidden = name !== "difference";
  if (!blinking && at("blink").checked) { at("blink").checked = false; setBlinking(); }
  redraw();
}

let blinker = 0;
function setBlinking() {
  clearInterval(blinker);
  if (at("blink").checked) {
    blinker = setInterval(() => setSource(state.source === "volume" ? "truth" : "volume", true), BLINK_MS);
  } else if (state.source === "truth") setSource("volume");
}

function setDepth(name) {
  state.depth = name;
  document.querySelector(`[name=depth][value=${name}]`).checked = true;
  redraw();
}

function enlarge(panel) {
  const large = !panel.large;
  for (const other of panels) other.element.classList.toggle("large", other === panel && large);
  at("planes").classList.toggle("one", large);
  redraw(false);
}

// Mouse, pen and finger.
function dragging(canvas, begin) {
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const drag = begin(event);
    drag(event);
    const end = () => {
      canvas.removeEventListener("pointermove", drag);
      for (const name of ["pointerup", "pointercancel"]) canvas.removeEventListener(name, end);
    };
    canvas.addEventListener("pointermove", drag);
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
  });
}

// Across for the width, up for a higher level, by shares of the width, so that narrow windows move finely.
function windowing(start) {
  const { level, width } = state;
  return (event) => {
    const wider = width * 2 ** ((event.clientX - start.clientX) / 150);
    setWindow(level + ((start.clientY - event.clientY) / 300) * width, wider);
  };
}

function watchPanel(panel) {
  const { canvas, plane } = panel;
  dragging(canvas, (event) => (event.button !== 0 || event.shiftKey ? windowing(event)
    : (moved) => move(panel.voxel(moved, true))));
  let turned = 0;
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return;
    event.preventDefault();
    turned += event.deltaMode ? event.deltaY * 40 : event.deltaY;
    if (Math.abs(turned) < 30) return; // a touchpad says little at a time
    step(plane.through, turned < 0 ? 1 : -1);
    turned = 0;
  }, { passive: false });
  canvas.addEventListener("pointermove", (event) => {
    const place = panel.voxel(event);
    cursor = place && { panel, place };
    redraw(false);
  });
  canvas.addEventListener("pointerleave", () => { cursor = null; redraw(false); });
  canvas.addEventListener("dblclick", () => enlarge(panel));
  canvas.addEventListener("keydown", (event) => {
    const arrow = { ArrowLeft: [plane.across, -1], ArrowRight: [plane.across, 1],
      ArrowUp: [plane.down, plane.flipped ? 1 : -1], ArrowDown: [plane.down, plane.flipped ? -1 : 1],
      PageUp: [plane.through, 1], PageDown: [plane.through, -1] }[event.key];
    if (!arrow || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    step(arrow[0], arrow[1] * (event.shiftKey ? 10 : 1));
  });
  panel.slider.addEventListener("input", () => {
    step(plane.through, Number(panel.slider.value) - state.place[plane.through]);
  });
  panel.element.querySelector(".enlarge").addEventListener("click", () => enlarge(panel));
}

function watchPicture(picture) {
  dragging(picture.canvas, () => (event) => move(picture.voxel(event)));
  picture.canvas.addEventListener("pointermove", (event) => picture.tell(event));
  picture.canvas.addEventListener("pointerleave", () => picture.tell(null));
}

function watchControls() {
  PRESETS.forEach(([name, level, width], index) => {
    const button = Object.assign(element("button", "", name), { type: "button", value: `${level},${width}` });
    button.title = `Level ${level}, width ${width} HU`;
    button.addEventListener("click", () => preset(index));
    at("presets").append(button);
  });
  for (const id of ["level", "width"]) {
    at(id).addEventListener("input", () => {
      const [level, width] = [at("level").valueAsNumber, at("width").valueAsNumber];
      if (Number.isFinite(level) && width >= 1) setWindow(level, width);
    });
  }
  const radios = { source: setSource, depth: setDepth, overlay: setOverlay };
  for (const [name, set] of Object.entries(radios)) {
    for (const radio of document.querySelectorAll(`[name=${name}]`)) {
      radio.addEventListener("change", () => set(radio.value));
    }
  }
  at("blink").addEventListener("change", setBlinking);
  for (const name of ["smooth", "cross"]) {
    at(name).addEventListener("change", () => { state[name] = at(name).checked; redraw(false); });
  }
  at("opacity").addEventListener("input", () => {
    state.opacity = Number(at("opacity").value) / 100;
    setOverlay(state.overlay, "");
  });
  at("full").addEventListener("change", () => {
    const full = at("full").valueAsNumber;
    if (full > 0) state.full[state.overlay] = full;
    setOverlay(state.overlay, "");
  });
  at("help").addEventListener("click", () => at("keys").showModal());
  new ResizeObserver(() => redraw(false)).observe(at("stage"));
}

function opacity(by) {
  if (state.overlay === "none") return;
  at("opacity").value = Math.round(100 * state.opacity) + by;
  at("opacity").dispatchEvent(new Event("input"));
  say(`Opacity ${at("opacity").value} %`);
}

const after = (list, one) => list[(list.indexOf(one) + 1) % list.length];
const focused = () => panels.find((panel) => panel.element.contains(document.activeElement)) || panels[0];

const KEYS = {
  1: () => preset(0), 2: () => preset(1), 3: () => preset(2), 4: () => preset(3), 5: () => preset(4),
  m: () => setDepth(after(["slice", "mean", "mip"], state.depth)),
  o: () => setOverlay(after(overlays, state.overlay)),
  "[": () => opacity(-10), "]": () => opacity(10),
  t: () => setSource(state.source === "truth" ? "volume" : "truth"),
  d: () => setSource(state.source === "difference" ? "volume" : "difference"),
  b: () => { if (arrays.truth) at("blink").click(); },
  x: () => at("cross").click(),
  z: () => enlarge(panels.find((panel) => panel.large) || focused()),
  Home: () => move(shape.map((n) => n >> 1)),
  "?": () => at("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || at("keys").open) return;
  if (event.target.matches("input[type=number]")) return;
  if (event.key === "Home" && event.target.matches("input[type=range]")) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  KEYS[event.key]();
  event.preventDefault();
});

async function start() {
  if (typeof DecompressionStream === "undefined") {
    say("This browser cannot unpack the volume: expected Chromium 80, Firefox 113, Safari 16.4 or newer.");
    return;
  }
  arrays.volume = await unpack("volume", shape);
  panels.push(...Object.keys(PLANES).map((name) => new Panel(name)));
  pictures = await buildViews();
  panels.forEach(watchPanel);
  pictures.forEach(watchPicture);
  watchControls();
  at("truth-choice").hidden = !about.truth;
  at("overlay-choice").hidden = !Object.keys(about.maps).length;
  for (const name of ["doubt", "unseen"]) at(`${name}-choice`).hidden = !about.maps[name];
  at("notes").hidden = !at("notes").children.length;
  legend("difference-legend", -state.differences, state.differences,
    (share) => colour(2 * share - 1, true).map((part) => Math.abs(2 * share - 1) * part));
  setOverlay("none", "");
  setWindow(state.level, state.width);
  await new Promise(requestAnimationFrame);
  document.body.dataset.drawn = Math.round(performance.now());
  await startRest();
}

// What the first picture can do without.
async function startRest() {
  say("Unpacking the rest…");
  if (about.truth) arrays.truth = await unpack("truth", shape);
  at("truth-choice").disabled = false;
  for (const name of Object.keys(about.maps)) {
    arrays[name] = await unpack(name, shape);
    overlays.push(name);
  }
  at("overlay-choice").disabled = false;
  say("");
  redraw(false);
  document.body.dataset.complete = Math.round(performance.now());
}

start().catch((error) => {
  say(`The page is damaged: ${error.message}`);
  throw error;
});
