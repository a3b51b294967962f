// NiiVue: three planes and a 3D view of one scan, with the masks as its drawing layer.
//
// The drawing layer rather than an overlay: it is one byte per voxel, changes without sending the scan to
// the graphics card again, has a contour of its own, and is shaded in 3D.

import { cmapper, DRAG_MODE, NVImage, Niivue, SLICE_TYPE } from "./vendor/niivue.js";
import { COLOURS } from "./state.js";

const GAP_PIXELS = 2;
const MAX_LABELS = 255; // one byte per voxel
const VIEW_DEGREES = [200, 12]; // 3D from the front, a little from the side and from above

export const PLANES = [
  { id: "axial", name: "Axial", type: SLICE_TYPE.AXIAL, axis: 2 },
  { id: "coronal", name: "Coronal", type: SLICE_TYPE.CORONAL, axis: 1 },
  { id: "sagittal", name: "Sagittal", type: SLICE_TYPE.SAGITTAL, axis: 0 },
  { id: "render", name: "3D", type: SLICE_TYPE.RENDER, axis: null },
];

// In a plane's tile, across and up are these axes of the patient; the third one looks out of the screen.
const TILE_AXES = { 0: [0, 1, 2], 1: [0, 2, 1], 2: [1, 2, 0] };

/** Return where NiiVue has drawn a slice, in pixels of the canvas; a negative width means mirrored. */
function boxOf({ leftTopWidthHeight: [left, top, width, height] }) {
  const isMirrored = width < 0;
  return { left: isMirrored ? left + width : left, top, width: Math.abs(width), height, isMirrored };
}

/** Return the mm along the third axis of a slice at a place in it; an oblique slice changes with the place. */
function outOf({ AxyzMxy: [x, y, z, dx, dy] }, across, up) {
  return z + dy * (up - y) - dx * (across - x);
}

/** NiiVue that says when it has drawn, and keeps masks solid in 3D however faint they are in the planes. */
class ScanView extends Niivue {
  afterDraw = () => {};

  drawScene() {
    const text = super.drawScene();
    this.afterDraw();
    return text;
  }

  draw3D(...words) {
    const opacity = this.drawOpacity;
    this.drawOpacity = opacity > 0 ? 1 : 0;
    try {
      return super.draw3D(...words);
    } finally {
      this.drawOpacity = opacity;
    }
  }
}

/** The colours of all labels, as NiiVue wants them: label 0 clear, then ours again and again. */
function labelColours() {
  const table = { R: [0], G: [0], B: [0], A: [0], labels: [""] };
  for (let label = 1; label <= MAX_LABELS; label++) {
    const hex = COLOURS[(label - 1) % COLOURS.length];
    ["R", "G", "B"].forEach((band, n) => table[band].push(parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16)));
    table.A.push(255);
    table.labels.push(String(label));
  }
  return table;
}

export class Scene {
  /** @param {HTMLCanvasElement} canvas which fills its parent. */
  constructor(canvas) {
    this.canvas = canvas;
    this.enlarged = null; // id of the plane that fills the stage; null for all four
    this.onMove = () => {}; // ({mm, value}) when the crosshair moves
    this.onDraw = () => {};
    this.view = new ScanView({
      dragAndDropEnabled: false,
      logLevel: "silent",
      loadingText: "",
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: false, // tiles.js and markers.js write and draw these at any zoom alike
      crosshairWidth: 0,
      backColor: [0.02, 0.024, 0.031, 1],
      smoothDrawing: 1,
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      mouseEventConfig: {
        leftButton: {
          primary: DRAG_MODE.crosshair,
          withShift: DRAG_MODE.crosshair,
          withCtrl: DRAG_MODE.pan,
        },
        rightButton: DRAG_MODE.none, // ours: NiiVue's steps are whole grey values, too coarse for SUV
        centerButton: DRAG_MODE.pan,
      },
    });
    this.view.onLocationChange = (place) => {
      this.onMove({ mm: Array.from(place.mm).slice(0, 3), value: place.values[0]?.value });
    };
    this.view.afterDraw = () => this.onDraw();
  }

  async attach() {
    await this.view.attachToCanvas(this.canvas);
    this.view.drawLut = cmapper.makeDrawLut(labelColours());
    new ResizeObserver(() => this.arrange()).observe(this.canvas.parentElement);
    this.arrange();
  }

  /** The image of NiiVue that is shown; undefined before a scan is. */
  get image() {
    return this.view.volumes[0];
  }

  /** Show a scan (bytes of a .nii.gz); `windowFor(image)` says with which {low, high}. */
  async showScan(bytes, windowFor) {
    const image = await NVImage.loadFromUrl({ url: bytes, name: "scan.nii.gz" });
    const { low, high } = windowFor(image);
    Object.assign(image, { cal_min: low, cal_max: high });
    if (this.image) {
      this.view.closeDrawing();
      this.view.volumes.slice().forEach((volume) => this.view.removeVolume(volume));
    }
    this.view.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.view.scene.pan2Dxyzmm = [0, 0, 0, 1];
    [this.view.scene.renderAzimuth, this.view.scene.renderElevation] = VIEW_DEGREES;
    this.view.addVolume(image);
  }

  /** Tell `onMove` where the crosshair is. */
  tellPlace() {
    this.view.createOnLocationChange();
  }

  /** Show a label map (bytes of a .nii.gz on the scan's grid); null shows none. */
  async showMask(bytes) {
    const mask = bytes ? await NVImage.loadFromUrl({ url: bytes, name: "mask.nii.gz" }) : null;
    if (mask?.img.some((label) => label > 0)) this.view.loadDrawing(mask);
    // NiiVue would keep the 3D surface of the mask before.
    else if (this.view.drawBitmap) this.view.closeDrawing();
  }

  setWindow({ low, high }) {
    if (!this.image) return;
    Object.assign(this.image, { cal_min: low, cal_max: high });
    this.view.refreshLayers(this.image, 0);
    this.view.drawScene();
  }

  /** Set how masks look in the planes: fill from 0 to 1, and whether they have a contour. */
  setMaskStyle(opacity, outline) {
    // At 0 NiiVue leaves the contour out as well.
    this.view.drawOpacity = outline ? Math.max(opacity, 0.004) : opacity;
    this.view.drawRimOpacity = outline ? 1 : -1;
    this.view.drawScene();
  }

  /** Lay the tiles out anew: four, or one enlarged. */
  arrange() {
    const { width, height } = this.tileSize();
    if (this.enlarged) {
      const { type } = PLANES.find((plane) => plane.id === this.enlarged);
      this.view.setCustomLayout([{ sliceType: type, position: [0, 0, 1, 1] }]);
      return;
    }
    const [x, y] = [1 - width, 1 - height];
    const places = [[0, 0], [x, 0], [0, y], [x, y]];
    this.view.setCustomLayout(
      PLANES.map(({ type }, n) => ({ sliceType: type, position: [...places[n], width, height] })),
    );
  }

  /** Width and height of a tile of four, as parts of the canvas. */
  tileSize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    return { width: 0.5 - GAP_PIXELS / clientWidth / 2, height: 0.5 - GAP_PIXELS / clientHeight / 2 };
  }

  enlarge(planeId) {
    this.enlarged = this.enlarged === planeId ? null : planeId;
    this.arrange();
  }

  /** Return the place of the crosshair in RAS mm. */
  crosshairMm() {
    return Array.from(this.view.frac2mm(this.view.scene.crosshairPos, 0, true)).slice(0, 3);
  }

  /** Return the RAS mm under a pixel of a plane, also beside the scan; null in the 3D view or between tiles. */
  mmUnder(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const [fx, fy] = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    const within = ({ position: [x, y, w, h] }) => fx >= x && fx < x + w && fy >= y && fy < y + h;
    const type = this.view.getCustomLayout().find(within)?.sliceType;
    const slice = this.view.screenSlices.find((each) => each.axCorSag === type);
    if (!this.image || !slice || !TILE_AXES[type]) return null;
    const { left, top, width, height, isMirrored } = boxOf(slice);
    const part = (fx * this.canvas.width - left) / width;
    const across = slice.leftTopMM[0] + (isMirrored ? 1 - part : part) * slice.fovMM[0];
    const up = slice.leftTopMM[1] + (1 - (fy * this.canvas.height - top) / height) * slice.fovMM[1];
    const flat = [0, 0, 0];
    TILE_AXES[type].forEach((axis, n) => (flat[axis] = [across, up, outOf(slice, across, up)][n]));
    return Array.from(this.view.frac2mm(this.view.mm2frac(flat), 0, true)).slice(0, 3);
  }

  /**
   * Return where a place in RAS mm lies in every plane shown.
   *
   * @returns {{x: number, y: number, distanceMm: number, axis: number, tile: object}[]} CSS pixels of the
   *   canvas, the distance from the slice shown, the axis across it, and the tile's box; only places that
   *   fall into their tile.
   */
  placesOf(mm) {
    if (!this.image) return [];
    const { view } = this;
    const flat = view.frac2mm(view.mm2frac(mm, 0, true)); // the scan's own axes, as tiles are laid out
    const ratio = this.canvas.width / this.canvas.clientWidth;
    return view.screenSlices.flatMap((slice) => {
      const axes = TILE_AXES[slice.axCorSag];
      if (!axes) return [];
      const [across, up, out] = axes.map((axis) => flat[axis]);
      const { left, top, width, height, isMirrored } = boxOf(slice);
      const part = (across - slice.leftTopMM[0]) / slice.fovMM[0];
      const fx = isMirrored ? 1 - part : part;
      const fy = (up - slice.leftTopMM[1]) / slice.fovMM[1];
      if (fx < 0 || fx > 1 || fy < 0 || fy > 1) return [];
      const [x, y] = [left + fx * width, top + (1 - fy) * height];
      const distanceMm = Math.abs(out - outOf(slice, across, up));
      const tile = { left: left / ratio, top: top / ratio, width: width / ratio, height: height / ratio };
      return [{ x: x / ratio, y: y / ratio, distanceMm, axis: axes[2], tile }];
    });
  }

  /** Distance of neighbouring slices in mm along the patient's x, y and z. */
  get spacingMm() {
    return this.image.pixDimsRAS.slice(1, 4);
  }

  moveCrosshair(x, y, z) {
    if (this.image) this.view.moveCrosshairInVox(x, y, z);
  }

  /** Move the crosshair to a place in RAS mm. */
  goTo(mm) {
    this.view.scene.crosshairPos = this.view.mm2frac(mm, 0, true);
    this.view.drawScene();
    this.tellPlace();
  }

  /** Zoom the planes by a factor; the crosshair stays where it is on the screen. */
  zoom(factor) {
    if (!this.image) return;
    const [x, y, z, old] = this.view.scene.pan2Dxyzmm;
    const zoom = Math.min(Math.max(old * factor, 0.5), 12);
    const at = this.view.frac2mm(this.view.scene.crosshairPos);
    const pan = [x, y, z].map((offset, n) => offset + at[n] * (old - zoom));
    this.view.setPan2Dxyzmm([...pan, zoom]);
  }

  resetView() {
    this.view.setPan2Dxyzmm([0, 0, 0, 1]);
  }
}
