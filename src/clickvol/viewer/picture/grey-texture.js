// Grey values as the graphics card keeps them for the planes: as they are, in 16 bits, in the order of the file. A window is then two
// numbers of a shader, where NiiVue sends all voxels again, colours each one and computes gradients that nobody sees.

const CHUNK_VOXELS = 1 << 22; // sent at once
const MAX_HALF = 65504;

/** Return the 16 bits of a number, rounded to the nearest one that they can say. */
export function halfOf(number) {
  const size = Math.abs(number);
  const sign = number < 0 ? 0x8000 : 0;
  if (!(size >= 2 ** -25)) return sign; // nothing, and no number
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  const parts = Math.round((size / 2 ** exponent) * 1024); // 1024 to 2048 where it is normal: the carry is right
  return sign + Math.min(((exponent + 14) << 10) + parts, 0x7bff);
}

/** Return what values are multiplied by, a power of two, so that 16 bits can say the largest of them. */
export function scaleOf(img) {
  if (img instanceof Uint16Array) return 0.5;
  if (!(img instanceof Float32Array)) return 1;
  let largest = 0;
  for (let n = 0; n < img.length; n++) {
    const size = Math.abs(img[n]);
    if (size > largest) largest = size;
  }
  return largest > 0 ? 2 ** Math.floor(Math.log2(MAX_HALF / largest)) : 1;
}

/** Return {type, format, width, read}: `read(start, end)` makes of these voxels what is sent. */
function sender(gl, img, scale) {
  if (img instanceof Uint8Array) return { type: gl.UNSIGNED_BYTE, format: gl.R8, read: (start, end) => img.subarray(start, end) };
  if (img instanceof Float32Array) {
    const read = (start, end) => img.subarray(start, end).map((value) => value * scale);
    return { type: gl.FLOAT, format: gl.R16F, read };
  }
  const halves = new Uint16Array(65536);
  const offset = img instanceof Int16Array ? 65536 : 0;
  for (let n = 0; n < 65536; n++) halves[n] = halfOf((n < 32768 ? n : n - offset) * scale);
  const bits = new Uint16Array(img.buffer, img.byteOffset, img.length);
  const sent = new Uint16Array(CHUNK_VOXELS);
  const read = (start, end) => {
    for (let n = start; n < end; n++) sent[n - start] = halves[bits[n]];
    return sent.subarray(0, end - start);
  };
  return { type: gl.HALF_FLOAT, format: gl.R16F, read };
}

/**
 * Send an image of NiiVue to a unit of textures.
 *
 * @returns {{texture: WebGLTexture, slope: number, inter: number}} grey values are slope × texel + inter.
 */
export function sendGreys(gl, unit, { img, hdr }) {
  const [, nx, ny, nz] = hdr.dims;
  const scale = scaleOf(img);
  const { type, format, read } = sender(gl, img, scale);
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_3D, texture);
  for (const name of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_3D, gl[`TEXTURE_${name}_FILTER`], gl.LINEAR);
  for (const axis of ["R", "S", "T"]) gl.texParameteri(gl.TEXTURE_3D, gl[`TEXTURE_WRAP_${axis}`], gl.CLAMP_TO_EDGE);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texStorage3D(gl.TEXTURE_3D, 1, format, nx, ny, nz);
  const rows = Math.max(1, Math.floor(CHUNK_VOXELS / nx)); // a slice may be larger than a chunk
  const [rowStep, sliceStep] = rows < ny ? [rows, 1] : [ny, Math.floor(rows / ny)];
  for (let z = 0; z < nz; z += sliceStep) {
    const depth = Math.min(sliceStep, nz - z);
    for (let y = 0; y < ny; y += rowStep) {
      const height = Math.min(rowStep, ny - y);
      const start = nx * (y + ny * z);
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, y, z, nx, height, depth, gl.RED, type, read(start, start + nx * height * depth));
    }
  }
  const perTexel = (format === gl.R8 ? 255 : 1 / scale) * (hdr.scl_slope || 1);
  return { texture, slope: perTexel, inter: hdr.scl_inter || 0 };
}

/** Return every second, fourth ... voxel along the longest axes, as few as asked for: {img, dims} as in NiiVue's header. */
export function thinned(img, dims, maxVoxels) {
  const size = dims.slice(1, 4);
  const steps = [1, 1, 1];
  const counts = () => size.map((length, axis) => Math.ceil(length / steps[axis]));
  while (counts().reduce((product, count) => product * count) > maxVoxels) {
    steps[counts().indexOf(Math.max(...counts()))] *= 2;
  }
  if (Math.max(...steps) === 1) return { img, dims: [...dims] };
  const [nx, ny, nz] = counts();
  const few = new img.constructor(nx * ny * nz);
  let n = 0;
  for (let z = 0; z < size[2]; z += steps[2]) {
    for (let y = 0; y < size[1]; y += steps[1]) {
      for (let x = 0, at = size[0] * (y + size[1] * z); x < size[0]; x += steps[0]) few[n++] = img[at + x];
    }
  }
  return { img: few, dims: [dims[0], nx, ny, nz, ...dims.slice(4)] };
}

/**
 * Return the matrix, column by column, from parts of the scan along the patient's axes to parts of an image along the file's.
 *
 * @param {{permRAS: number[]}} image
 * @param {(place: number[]) => ArrayLike<number>} partIn makes of a place in parts of the scan one in parts of the image, both RAS.
 */
export function toTexture({ permRAS }, partIn) {
  const inFile = (place) => {
    const part = partIn(place);
    const own = [0, 0, 0];
    permRAS.slice(0, 3).forEach((axis, n) => (own[Math.abs(axis) - 1] = axis < 0 ? 1 - part[n] : part[n]));
    return own;
  };
  const origin = inFile([0, 0, 0]);
  const columns = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map((end) => inFile(end).map((each, n) => each - origin[n]));
  return [...columns.flatMap((column) => [...column, 0]), ...origin, 1];
}

const SHADER_HEAD = `out vec4 color;
uniform highp sampler3D greys;
uniform highp sampler3D otherGreys;
uniform mat4 toGreys;
uniform mat4 toOther;
uniform vec4 greyWindow;
uniform vec4 otherWindow;
// Of a window: how a texel becomes 0 at its low end and 1 at its high one; inverted or not; opacity.
vec4 scanColour(vec3 place) {
  float grey = clamp(texture(greys, (toGreys * vec4(place, 1.0)).xyz).r * greyWindow.x + greyWindow.y, 0.0, 1.0);
  return vec4(vec3(abs(grey - greyWindow.z)), 1.0);
}
vec4 otherColour(vec3 place) {
  vec3 at = (toOther * vec4(place, 1.0)).xyz;
  float heat = texture(otherGreys, at).r * otherWindow.x + otherWindow.y;
  if (heat <= 0.0 || any(lessThan(at, vec3(0.0))) || any(greaterThan(at, vec3(1.0)))) return vec4(0.0);
  return vec4(clamp(vec3(heat * 8.0 / 3.0, heat * 8.0 / 3.0 - 1.0, heat * 4.0 - 3.0), 0.0, 1.0), min(heat * 4.0, 1.0) * otherWindow.w);
}
`;

/** Return NiiVue's shader of a plane with other sources of colour. */
export function withGreys(shader) {
  const changes = [["out vec4 color;", SHADER_HEAD], ["texture(volume, texPos)", "scanColour(texPos)"],
    ["ocolor = texture(overlay, texPos)", "ocolor = otherColour(texPos)"]];
  for (const [old, own] of changes) {
    if (!shader.includes(old)) throw new Error(`this NiiVue has another shader than the viewer knows: no ${old}`);
    shader = shader.replace(old, own);
  }
  return shader;
}

/** Return what a shader takes of a window {low, high} of grey values: [factor, summand, inverted, opacity]. */
export function windowNumbers({ slope, inter }, { low, high }, isInverted = false, opacity = 1) {
  const width = Math.max(high - low, 1e-30);
  return [slope / width, (inter - low) / width, isInverted ? 1 : 0, opacity];
}
