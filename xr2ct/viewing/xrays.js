// X-rays and projections. The isocentre is the volume's middle; see `projection/geometry.py` for the axes.

class Camera {
  constructor(view, pixels) {
    const turned = (view.angle * Math.PI) / 180;
    [this.sin, this.cos] = [Math.sin(turned), Math.cos(turned)];
    Object.assign(this, view.geometry);
    this.pixels = pixels;
    this.pitch = view.geometry.detector / pixels;
    this.mirrored = view.mirrored;
    this.pose = view.pose;
  }

  // Where a voxel lay before the machine, x, y, z in mm: turned and shifted as the patient was.
  before(place) {
    const mm = place.map((index, axis) => (index - (shape[axis] - 1) / 2) * spacing[axis]).reverse();
    return this.pose.map((row) => row[3] + mm.reduce((sum, part, i) => sum + row[i] * part, 0));
  }

  // The voxel that lay there.
  after(mm) {
    const from = mm.map((part, i) => part - this.pose[i][3]);
    const own = [2, 1, 0].map((axis) => from.reduce((sum, part, i) => sum + this.pose[i][axis] * part, 0));
    return own.map((far, axis) => clamp(Math.round(far / spacing[axis] + (shape[axis] - 1) / 2), 0, shape[axis] - 1));
  }

  // How far a voxel lies beyond the isocentre along the beam.
  depth(place) {
    const [x, y] = this.before(place);
    return y * this.cos - x * this.sin;
  }

  // Column and row at which a voxel's middle shows, as they are drawn.
  seen(place) {
    const [x, y, z] = this.before(place);
    const larger = this.sid / (this.sad + this.depth(place));
    const column = ((x * this.cos + y * this.sin) * larger) / this.pitch + (this.pixels - 1) / 2;
    return [this.mirrored ? this.pixels - 1 - column : column, (this.pixels - 1) / 2 - (z * larger) / this.pitch];
  }

  // The voxel on a pixel's ray that is as deep as the crosshair.
  voxel(column, row, depth) {
    const larger = this.sid / (this.sad + depth);
    const drawn = this.mirrored ? this.pixels - 1 - column : column;
    const across = ((drawn - (this.pixels - 1) / 2) * this.pitch) / larger;
    return this.after([
      across * this.cos - depth * this.sin,
      across * this.sin + depth * this.cos,
      (((this.pixels - 1) / 2 - row) * this.pitch) / larger,
    ]);
  }

  // The patient's sides at the picture's left, right, top and bottom.
  letters() {
    const side = (sign) => {
      const parts = [[this.cos * sign, "L", "R"], [this.sin * sign, "P", "A"]];
      parts.sort((p, q) => Math.abs(q[0]) - Math.abs(p[0]));
      return parts.filter(([size]) => Math.abs(size) > 0.3).map(([size, up, down]) => (size > 0 ? up : down)).join("");
    };
    return this.mirrored ? [side(1), side(-1), "H", "F"] : [side(-1), side(1), "H", "F"];
  }
}

class Picture {
  // values: line integrals, row by row; tinted: signed, in colour up to `full`, grey up to it otherwise.
  constructor(parent, title, camera, values, full, tinted) {
    Object.assign(this, { camera, values });
    const { pixels } = camera;
    this.element = element("figure", "picture");
    this.value = element("span", "where");
    const caption = element("figcaption");
    caption.append(element("strong", "", title), this.value);
    this.element.append(caption, screen(camera.letters(), title));
    parent.append(this.element);
    this.canvas = this.element.querySelector("canvas");
    this.drawn = Object.assign(document.createElement("canvas"), { width: pixels, height: pixels });
    const image = new ImageData(pixels, pixels);
    values.forEach((value, i) => {
      const to = 4 * this.mirroredIndex(i);
      const fraction = clamp((value || 0) / full, tinted ? -1 : 0, 1); // black where nothing was measured
      const strong = tinted ? colour(fraction, true) : [255, 255, 255];
      for (let c = 0; c < 3; c += 1) image.data[to + c] = Math.abs(fraction) * strong[c];
      image.data[to + 3] = 255;
    });
    this.drawn.getContext("2d").putImageData(image, 0, 0);
  }

  mirroredIndex(i) {
    const { pixels, mirrored } = this.camera;
    return mirrored ? i - (i % pixels) + (pixels - 1 - (i % pixels)) : i;
  }

  draw() {
    const ratio = sized(this.canvas);
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.imageSmoothingEnabled = state.smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.drawn, 0, 0, width, height);
    if (state.cross) {
      const [column, row] = this.camera.seen(state.place);
      const size = width / this.camera.pixels;
      drawCross(context, (column + 0.5) * size, (row + 0.5) * size, "#e3e8ee", LINES[0], ratio);
    }
  }

  pixel(event) {
    const box = this.canvas.getBoundingClientRect();
    const most = this.camera.pixels - 1;
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return share.map((part) => clamp(Math.floor(part * this.camera.pixels), 0, most));
  }

  tell(event) {
    const [column, row] = event ? this.pixel(event) : [];
    const value = event && this.values[this.mirroredIndex(row * this.camera.pixels + column)];
    this.value.textContent = event ? (Number.isNaN(value) ? "no value" : number(value, 3)) : "";
  }

  voxel(event) {
    return this.camera.voxel(...this.pixel(event), this.camera.depth(state.place));
  }
}

const percent = (share) => `${(100 * share).toPrecision(3)} %`;

const NOTHING = -32768; // where a radiograph holds no measurement

async function unpackPicture({ id, shape: size, scale }) {
  return Float32Array.from(await unpack(id, size), (value) => (value === NOTHING ? NaN : value * scale));
}

function viewElement(title, text, notes = []) {
  const article = element("article", "view");
  const heading = element("h2", "", title);
  heading.append(element("span", "error", text));
  const list = element("ul", "told");
  list.append(...notes.map((note) => element("li", "", note)));
  const pictures = element("div", "pictures");
  article.append(heading, ...(notes.length ? [list] : []), pictures);
  at("views").append(article);
  return pictures;
}

// Every picture of the page; those of views without an X-ray share one row.
async function buildViews() {
  const pictures = [];
  let alone = null;
  for (const view of about.views) {
    const made = await unpackPicture(view.made);
    const camera = new Camera(view, view.made.shape[1]);
    const title = view.name.endsWith("°") ? view.name : `${view.name} (${view.angle}°)`;
    if (!view.taken) {
      alone ??= viewElement("Projections of the volume", "line integrals, as an X-ray machine would see it");
      pictures.push(new Picture(alone, title, camera, made, view.white, false));
      continue;
    }
    const taken = await unpackPicture(view.taken);
    const difference = made.map((value, i) => value - taken[i]);
    const sorted = difference.filter(Number.isFinite).map(Math.abs).sort();
    const full = sorted[Math.floor(0.995 * (sorted.length - 1))] || 1;
    const row = viewElement(title, said(view), view.notes);
    pictures.push(
      new Picture(row, "X-ray that came in", camera, taken, view.white, false),
      new Picture(row, "Re-projection", camera, made, view.white, false),
      new Picture(row, `Difference, ±${full.toPrecision(2)}`, camera, difference, full, true),
    );
  }
  return pictures;
}

function said(view) {
  const parts = [];
  if (view.error !== null) parts.push(`re-projection off by ${percent(view.error)} (relative L2)`);
  if (view.floor !== null) parts.push(`truth on this grid by ${percent(view.floor)}`);
  return parts.join("; ");
}
