// NiiVue, changed where an annotator waits for it: a plane is drawn alone, the 3D view when nothing else is to do,
// slices fill their tile, and of a mask the changed box alone goes to the graphics card.

import { Niivue, SLICE_TYPE } from "./vendor/niivue.js";

const IDLE_MS = 250; // after the last change; then the 3D view is drawn
const DRAW_TEXTURE = 7; // NiiVue's unit of the drawing layer

/** Tell whether pictures are computed by the processor: then the surface in 3D is not smoothed, which takes seconds. */
function isSoftware(gl) {
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const name = known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : "";
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

export class ScanView extends Niivue {
  afterDraw = () => {};
  /** @type {number[] | null} */
  only = null; // the slice types that are drawn now; null for all planes
  tile = null; // the tile of the slice that is drawn now, [left, top, width, height]
  idleTimer = 0;
  planesTimer = 0;
  renderKey = ""; // what the 3D view showed when it was drawn
  blurDims = null; // of the mask that is to be smoothed before the 3D view is drawn

  /** Attach to a canvas whose picture stays, so that a part of it can be drawn alone. */
  async attachTo(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser shows no 3D graphics (WebGL 2); use a present Firefox, Chrome, Edge or Safari");
    await this.attachToCanvas(canvas, false);
    this.isSoftware = isSoftware(gl);
    if (this.isSoftware) this.opts.smoothDrawing = 0;
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
}
