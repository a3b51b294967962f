// NiiVue, changed where an annotator waits for it: a plane is drawn alone, the 3D view when nothing else is to do,
// slices fill their tile, planes window grey values themselves, and of a mask the changed box alone goes to the graphics card.

import { cmapper, Niivue, NVImage, SLICE_TYPE } from "../vendor/niivue.js";
import { ownColour } from "../state.js";
import { sendGreys, thinned, toTexture, windowNumbers, withGreys } from "./grey-texture.js";

const GAP_PIXELS = 2;
const INVERTED = "inverted gray"; // of NiiVue's tables of colours, for the 3D view; it has none of its own
const MAX_LABELS = 255; // one byte per voxel
const IDLE_MS = 250; // after the last change; then the 3D view is drawn
// NiiVue's units of textures.
const SCAN_TEXTURE = 0;
const OVERLAY_TEXTURE = 2;
const DRAW_TEXTURE = 7;
// None of NiiVue's, but of its tool to grow a drawing, which the viewer does not use.
const GREY_TEXTURES = [13, 14];
const SPARE_TEXTURE = 15;
// Voxels of the scan that the 3D view samples: what a card, and what a processor, goes through in a moment.
const CARD_VOXELS = 1 << 24;
const SOFTWARE_VOXELS = 1 << 21;
const FEW_VOXELS = 1 << 9; // until the 3D view is drawn

/** Tell whether pictures are computed by the processor: then the surface in 3D is not smoothed, which takes seconds. */
function isSoftware(gl) {
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const name = known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : "";
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

/** The colours of all labels, as NiiVue wants them: label 0 clear, then ours again and again. */
function labelColours(colours = /** @type {Record<number, string>} */ ({})) {
  const table = { R: [0], G: [0], B: [0], A: [0], labels: [""] };
  for (let label = 1; label <= MAX_LABELS; label++) {
    const hex = colours[label] || ownColour(label);
    ["R", "G", "B"].forEach((band, n) => table[band].push(parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16)));
    table.A.push(255);
    table.labels.push(String(label));
  }
  return table;
}

/** Return where the three planes and the 3D view go, [left, top, width, height] as parts of a stage. */
export function placesOf(layout, { clientWidth, clientHeight }) {
  const [x, y] = [GAP_PIXELS / clientWidth, GAP_PIXELS / clientHeight];
  if (layout === "large") {
    const small = [1 / 3 - x / 2, (1 - 2 * y) / 3];
    return [[0, 0, 2 / 3 - x / 2, 1], ...[0, 1, 2].map((n) => [1 - small[0], n * (small[1] + y), ...small])];
  }
  const size = [(1 - x) / 2, (1 - y) / 2];
  return [[0, 0], [1 - size[0], 0], [0, 1 - size[1]], [1 - size[0], 1 - size[1]]].map((corner) => [...corner, ...size]);
}

// The window is the viewer's; NiiVue would look at every voxel for one.
NVImage.prototype.calMinMax = function () {
  const { cal_min: low, cal_max: high } = this.hdr;
  Object.assign(this, { cal_min: low, cal_max: high, robust_min: low, robust_max: high, global_min: low, global_max: high });
  return [low, high, low, high];
};

export class ScanView extends Niivue {
  afterDraw = () => {};
  masksOnly = false; // in 3D
  isInverted = false;
  /** @type {number[] | null} */
  only = null; // the slice types that are drawn now; null for all planes
  tile = null; // the tile of the slice that is drawn now, [left, top, width, height]
  idleTimer = 0;
  planesTimer = 0;
  renderKey = ""; // what the 3D view showed when it was drawn
  blurDims = null; // of the mask that is to be smoothed before the 3D view is drawn
  /** @type {number[] | null} */
  thinDims = null; // of what the 3D view gets of the scan
  isRenderThin = false; // whether the 3D view has few voxels still, or another window
  /** @type {any[]} */
  greys = []; // of the scan and of the one laid over it: {image, texture, slope, inter}

  /** Attach to a canvas whose picture stays, so that a part of it can be drawn alone. */
  async attachTo(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser shows no 3D graphics (WebGL 2); use a present Firefox, Chrome, Edge or Safari");
    await this.attachToCanvas(canvas, false);
    this.isSoftware = isSoftware(gl);
    this.addColormap(INVERTED, { R: [255, 0], G: [255, 0], B: [255, 0], A: [64, 128], I: [0, 255] });
    if (this.isSoftware) this.opts.smoothDrawing = 0;
    const shaders = gl.getAttachedShaders(this.sliceMMShader.program) ?? [];
    const sources = shaders.map((shader) => gl.getShaderSource(shader) ?? "");
    this.setCustomSliceShader(withGreys(sources.find((source) => source.includes("out vec4 color"))));
  }

  /** Bring an image to the card: the planes get its grey values, the 3D view a part of the scan's when it is drawn. */
  refreshLayers(image, layer) {
    if (this.greys[layer]?.image !== image) this.sendGreys(image, layer);
    if (layer > 0) return;
    this.isRenderThin = true;
    this.refreshRender(FEW_VOXELS);
  }

  sendGreys(image, layer) {
    this.gl.deleteTexture(this.greys[layer]?.texture ?? null);
    const sent = sendGreys(this.gl, GREY_TEXTURES[layer], image);
    const partIn = (place) => (layer ? image.convertMM2Frac(this.frac2mm(place, 0, true), true) : place);
    this.greys[layer] = { image, ...sent, matrix: toTexture(image, partIn) };
  }

  /** Give the 3D view so many voxels of the scan, in the present window. */
  refreshRender(maxVoxels) {
    const [image] = this.volumes;
    const { img, dims } = thinned(image.img, image.hdr.dims, maxVoxels);
    const hdr = Object.assign(Object.create(image.hdr), { dims });
    const dimsRAS = [dims[0], ...image.permRAS.slice(0, 3).map((axis) => dims[Math.abs(axis)])];
    const full = image.dimsRAS;
    this.thinDims = dims;
    super.refreshLayers(Object.create(image, { img: { value: img }, hdr: { value: hdr }, dimsRAS: { value: dimsRAS } }), 0);
    this.back.dims = full;
  }

  // After every change NiiVue computes gradients, for a lighting that the viewer does not use; without slices it does none of that.
  rgbaTex(texture, unit, dims, isInit = false) {
    const isGradient = dims === this.thinDims;
    if (isGradient) dims[3] = 0;
    return super.rgbaTex(texture, unit, isGradient ? [2, 2, 2, 2] : dims, isInit);
  }

  /** Tell the shader of the planes which grey values to show, and how. */
  useWindows() {
    const { gl, customSliceShader: shader } = this;
    shader.use(gl);
    for (const [layer, [sampler, matrix, numbers]] of [["greys", "toGreys", "greyWindow"], ["otherGreys", "toOther", "otherWindow"]].entries()) {
      const { image, texture, matrix: columns, ...values } = this.greys[Math.min(layer, this.volumes.length - 1)];
      gl.uniform1i(shader.uniforms[sampler], GREY_TEXTURES[layer]);
      this.bind(GREY_TEXTURES[layer], texture);
      gl.uniformMatrix4fv(shader.uniforms[matrix], false, columns);
      const window = { low: image.cal_min, high: image.cal_max };
      gl.uniform4fv(shader.uniforms[numbers], windowNumbers(values, window, this.isInverted, image.opacity));
    }
  }

  /** Draw the planes; the 3D view follows when nothing more happens. */
  drawScene() {
    if (!this.customLayout?.length || !this.volumes.length) return super.drawScene();
    const planes = this.customLayout.map((view) => view.sliceType).filter((type) => type !== SLICE_TYPE.RENDER);
    const isDragged3D = this.uiData.mousedown && this.inRenderTile(...this.pressedPixel()) >= 0;
    const text = this.drawTypes(this.only ?? (isDragged3D ? [SLICE_TYPE.RENDER] : planes));
    if (!isDragged3D) this.drawLater();
    this.afterDraw();
    return text;
  }

  pressedPixel() {
    return [this.uiData.prevX, this.uiData.prevY].map((value) => value * this.uiData.dpr);
  }

  /** Draw one plane now and the others soon. */
  drawPlane(type) {
    this.only = [type];
    try {
      this.drawScene();
    } finally {
      this.only = null;
    }
    clearTimeout(this.planesTimer);
    this.planesTimer = setTimeout(() => {
      this.planesTimer = 0;
      this.drawScene();
    }, IDLE_MS / 2);
  }

  /** Say that the 3D view shows something old. */
  spoilRender() {
    this.renderKey = "";
  }

  drawLater() {
    clearTimeout(this.idleTimer);
    this.idleTimer = 0;
    const key = this.keyOfRender();
    if (key === null || key === this.renderKey) return;
    this.idleTimer = setTimeout(() => {
      if (this.isRenderThin) this.refreshRender(this.isSoftware ? SOFTWARE_VOXELS : CARD_VOXELS);
      this.isRenderThin = false;
      if (this.blurDims && this.opts.smoothDrawing > 0) super.blurDrawingGL(this.blurDims);
      this.blurDims = null;
      this.idleTimer = 0;
      this.drawTypes([SLICE_TYPE.RENDER]);
      this.renderKey = key;
    }, IDLE_MS);
  }

  keyOfRender() {
    const view = this.customLayout.find((each) => each.sliceType === SLICE_TYPE.RENDER);
    if (!view) return null;
    const { renderAzimuth, renderElevation, volScaleMultiplier } = this.scene;
    const { width, height } = this.gl.canvas;
    return [renderAzimuth, renderElevation, volScaleMultiplier, width, height, ...view.position].join();
  }

  /** Draw some of the views of the layout; the rest of the picture stays. */
  drawTypes(types) {
    const [layout, slices] = [this.customLayout, this.screenSlices];
    this.customLayout = layout.filter((view) => types.includes(view.sliceType));
    if (!this.customLayout.length) {
      this.customLayout = layout;
      return "";
    }
    this.isPartial = true;
    try {
      return super.drawScene();
    } finally {
      this.isPartial = false;
      const drawn = this.screenSlices;
      this.customLayout = layout;
      this.screenSlices = [...slices.filter((slice) => !types.includes(slice.axCorSag) && this.isInLayout(slice)), ...drawn];
    }
  }

  isInLayout(slice) {
    return this.customLayout.some((view) => view.sliceType === slice.axCorSag);
  }

  clearBounds(mask, region) {
    if (!this.isPartial || region) return super.clearBounds(mask, region);
    for (const { position: [x, y, w, h] } of this.customLayout) {
      const { width, height } = this.gl.canvas;
      super.clearBounds(mask, [x * width, y * height, w * width, h * height].map(Math.round));
    }
  }

  // A slice fills its tile, so that zooming in shows more than the box of the whole slice.
  calculateWidthHeight(type, scale, width, height) {
    return [width, height];
  }

  draw2DMain(tile, ...words) {
    this.tile = tile;
    this.useWindows();
    try {
      return super.draw2DMain(tile, ...words);
    } finally {
      this.tile = null;
    }
  }

  screenFieldOfViewExtendedVox(type) {
    return this.filled(super.screenFieldOfViewExtendedVox(type));
  }

  screenFieldOfViewExtendedMM(type) {
    return this.filled(super.screenFieldOfViewExtendedMM(type));
  }

  filled(field) {
    if (!this.tile) return field;
    const perPixel = Math.max(field.fovMM[0] / this.tile[2], field.fovMM[1] / this.tile[3]);
    for (const n of [0, 1]) {
      const centre = (field.mnMM[n] + field.mxMM[n]) / 2;
      field.fovMM[n] = perPixel * this.tile[2 + n];
      field.mnMM[n] = centre - field.fovMM[n] / 2;
      field.mxMM[n] = centre + field.fovMM[n] / 2;
    }
    return field;
  }

  // In 3D masks are solid however faint they are in the planes.
  draw3D(...words) {
    const opacity = this.drawOpacity;
    this.drawOpacity = opacity > 0 ? 1 : 0;
    try {
      return super.draw3D(...words);
    } finally {
      this.drawOpacity = opacity;
    }
  }

  // In 3D a scan that is laid over would hide the masks, and masks may be wanted alone.
  drawImage3D(...words) {
    this.empty ??= this.rgbaTex(null, this.gl.TEXTURE0 + SPARE_TEXTURE, [2, 2, 2, 2], true);
    this.bind(OVERLAY_TEXTURE, this.empty);
    if (this.masksOnly) this.bind(SCAN_TEXTURE, this.empty);
    try {
      return super.drawImage3D(...words);
    } finally {
      this.bind(OVERLAY_TEXTURE, this.overlayTexture);
      this.bind(SCAN_TEXTURE, this.volumeTexture);
    }
  }

  bind(unit, texture) {
    this.gl.activeTexture(this.gl.TEXTURE0 + unit);
    this.gl.bindTexture(this.gl.TEXTURE_3D, texture);
  }

  // Wanted by the 3D view alone, which is drawn last.
  blurDrawingGL(dims) {
    this.blurDims = dims;
  }

  /** Make an empty drawing layer; undo is the server's, so NiiVue keeps no copies. */
  beginDrawing() {
    const [, nx, ny, nz] = this.back.dims;
    this.drawClearAllUndoBitmaps();
    this.drawBitmap = new Uint8Array(nx * ny * nz);
    this.drawTexture = this.r8Tex(this.drawTexture, this.gl.TEXTURE0 + DRAW_TEXTURE, this.back.dims, true);
  }

  /** Send a box of the drawing layer, in voxels of NiiVue, to the graphics card. */
  sendBox([x, y, z], [width, height, depth]) {
    const [, nx, ny] = this.back.dims;
    const box = new Uint8Array(width * height * depth);
    for (let k = 0; k < depth; k++) {
      for (let j = 0; j < height; j++) {
        const start = x + nx * (y + j + ny * (z + k));
        box.set(this.drawBitmap.subarray(start, start + width), width * (j + height * k));
      }
    }
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + DRAW_TEXTURE);
    gl.bindTexture(gl.TEXTURE_3D, this.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, x, y, z, width, height, depth, gl.RED, gl.UNSIGNED_BYTE, box);
    this.blurDims = this.back.dims;
  }

  /** Lay another scan over this one, in the planes, by where both say they are; `rangeFor(image)` says with which {low, high}. */
  async layOver(bytes, rangeFor) {
    this.takeOff();
    const image = await NVImage.loadFromUrl({ url: bytes, name: "overlay.nii", colormap: "hot", opacity: 0.5, cal_min: 0, cal_max: 1 });
    const { low, high } = rangeFor(image);
    Object.assign(image, { cal_min: low, cal_max: high });
    this.addVolume(image);
  }

  /** Take the scan off that was laid over. */
  takeOff() {
    const laidOver = this.volumes.slice(1);
    if (!laidOver.length) return;
    for (const volume of laidOver) this.removeVolume(volume);
  }

  /** Set how the scan that is laid over looks. */
  setOverlay(opacity, { low, high }) {
    const image = this.volumes[1];
    if (!image) return;
    Object.assign(image, { cal_min: low, cal_max: high, _opacity: opacity });
    this.drawScene();
  }

  /** Set the window of the scan, and whether dark is bright. */
  setWindow({ low, high }, isInverted) {
    const [image] = this.volumes;
    Object.assign(image, { cal_min: low, cal_max: high, _colormap: isInverted ? INVERTED : "gray" }); // its setter sets the window anew
    this.isInverted = isInverted;
    this.isRenderThin = true;
    this.spoilRender();
    this.drawScene();
  }

  /** Show in 3D the masks alone, or the scan as well. */
  setMasksOnly(isOnly) {
    this.masksOnly = isOnly;
    this.spoilRender();
    this.drawScene();
  }

  /** Set the colours of the labels: "#rrggbb" by their numbers, from 1; "" for the own one. */
  setColours(colours) {
    this.drawLut = cmapper.makeDrawLut(labelColours(colours));
    this.refreshColormaps();
    this.spoilRender();
    this.drawScene();
  }
}
