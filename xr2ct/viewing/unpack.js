"use strict";
const at = (id) => document.getElementById(id);
const about = JSON.parse(at("about").textContent);

// Characters of base64 unpacked at a time: a multiple of four, so that no byte is cut.
const PART = 1 << 20;

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function unzipped(text) {
  const stream = new DecompressionStream("gzip");
  const whole = new Response(stream.readable).arrayBuffer();
  const writer = stream.writable.getWriter();
  const feed = async () => {
    for (let from = 0; from < text.length; from += PART) await writer.write(bytesOf(text.slice(from, from + PART)));
    await writer.close();
  };
  const [buffer] = await Promise.all([whole, feed()]);
  return new Uint8Array(buffer);
}

// The other way of `viewing.data.packed`: int16, differences along x and y, folded, low bytes before high ones.
async function unpack(id, shape) {
  const element = at(id);
  const bytes = await unzipped(element.textContent);
  element.remove();
  const count = shape.reduce((product, n) => product * n, 1);
  if (bytes.length !== 2 * count) throw new Error(`${id}: ${bytes.length} bytes, expected ${2 * count}`);
  const [rows, row] = shape.slice(-2);
  const values = new Int16Array(count);
  for (let start = 0; start < count; start += row) {
    const above = (start / row) % rows ? start - row : -1;
    let step = 0;
    for (let i = start; i < start + row; i += 1) {
      const folded = bytes[i] | (bytes[count + i] << 8);
      step += (folded >>> 1) ^ -(folded & 1);
      values[i] = above < 0 ? step : values[above + i - start] + step;
    }
  }
  return values;
}
