// NiiVue: three planes and a 3D view of one scan, with the masks as its drawing layer.
//
// The drawing layer rather than an overlay: it is one byte per voxel, changes without sending the scan to
// the graphics card again, has a contour of its own, and is shaded in 3D.

import { DRAG_MODE, NVImage, SLICE_TYPE } from "../vendor/niivue.js";
import { placesOf, ScanView } from "./scan-view.js";
import { boxAround, Grid } from "../tools/voxels.js";

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

export class Scene {
  /** @param {HTMLCanvasElement} canvas which fills its parent. */
  constructor(canvas) {
    this.canvas = canvas;
    this.layout = "four";
    this.enlarged = null; // id of the plane that fills the stage; null for all four
    /** @type {(place: {mm: number[], value?: number}) => void} */
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
    });
    // NiiVue's constructor drops these.
    this.view.setMouseEventConfig({
      leftButton: {
        primary: DRAG_MODE.crosshair,
        withShift: DRAG_MODE.crosshair,
        withCtrl: DRAG_MODE.pan,
      },
      rightButton: DRAG_MODE.none, // ours: NiiVue's steps are whole grey values, too coarse for SUV
      centerButton: DRAG_MODE.pan,
    });
    /** @type {Map<number, any>} */
    this.shown = new Map(); // id of an object: {hash, start, shape, stride}, as it lies in the drawing layer
    this.hidden = new Set(); // ids of objects that are not drawn
    this.strokes = new Set(); // of the brush, that the server has yet to answer
    this.grid = new Grid([1, 1, 1], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]); // the voxels of the file
    this.view.onLocationChange = (place) => {
      this.onMove({ mm: Array.from(place.mm).slice(0, 3), value: place.values[0]?.value });
    };
    this.view.afterDraw = () => this.onDraw();
  }

  async attach() {
    await this.view.attachTo(this.canvas);
    this.view.setColours({});
    new ResizeObserver(() => this.arrange()).observe(this.stage);
    this.arrange();
  }

  /** What the canvas fills. */
  get stage() {
    return /** @type {HTMLElement} */ (this.canvas.parentElement);
  }

  /** The image of NiiVue that is shown; undefined before a scan is. */
  get image() {
    return this.view.volumes[0];
  }

  /** Show a scan (bytes of a .nii); `windowFor(image)` says with which {low, high}. */
  async showScan(bytes, windowFor) {
    // With a window given NiiVue does not search every voxel for one.
    const image = await NVImage.loadFromUrl({ url: bytes, name: "scan.nii", cal_min: 0, cal_max: 1 });
    const { low, high } = windowFor(image);
    Object.assign(image, { cal_min: low, cal_max: high });
    this.shown.clear();
    this.hidden.clear();
    this.strokes.clear();
    this.grid = new Grid(Array.from(image.hdr.dims).slice(1, 4), image.hdr.affine);
    if (this.image) {
      this.view.closeDrawing();
      this.view.volumes.toReversed().forEach((volume) => this.view.removeVolume(volume));
      this.view.isInverted = false;
    }
    this.view.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.view.scene.pan2Dxyzmm = [0, 0, 0, 1];
    [this.view.scene.renderAzimuth, this.view.scene.renderElevation] = VIEW_DEGREES;
    this.view.addVolume(image);
    this.view.spoilRender();
  }

  /** Tell `onMove` where the crosshair is. */
  tellPlace() {
    this.view.createOnLocationChange();
  }

  /** Return "1:hash,2:hash": the masks that are shown, as the server wants to know them. */
  get knownMasks() {
    return [...this.shown].map(([id, { hash }]) => `${id}:${hash}`).join();
  }

  /**
   * Show what a worker read from the server's answer: objects with their boxes, changed ones with `voxels` too.
   *
   * @param {{id: number, hash: string, start_ijk?: number[], shape_ijk?: number[], voxels?: Uint8Array}[]} objects
   */
  showMasks(objects) {
    if (!this.view.drawBitmap) {
      if (!objects.some((object) => object.voxels?.length)) return;
      this.view.beginDrawing();
      this.shown.clear();
    }
    const boxes = [];
    const present = new Map(objects.map((object) => [object.id, object]));
    for (const [id, old] of this.shown) {
      if (present.has(id) && !present.get(id)?.voxels) continue;
      boxes.push(this.paint(old, id, 0));
      this.shown.delete(id);
    }
    for (const { id, hash, start_ijk, shape_ijk, voxels } of objects) {
      if (!voxels) continue;
      const mask = { hash, voxels, startIjk: start_ijk, ...this.placed(start_ijk, shape_ijk) };
      boxes.push(this.paint(mask, id, this.hidden.has(id) ? 0 : id));
      this.shown.set(id, mask);
    }
    this.send(boxes);
    for (const stroke of this.strokes) this.settle(stroke);
  }

  /** Begin a stroke of the brush; `label(now)` says which label a voxel gets that has one now. */
  beginStroke({ label }) {
    const stroke = { indices: new Set(), label, isAnswered: false };
    this.strokes.add(stroke);
    return stroke;
  }

  /** Show further voxels of a stroke at once, in the plane that is painted on before the others. */
  paintStroke(stroke, indices, plane) {
    this.setLabels(indices, (_, now) => stroke.label(now));
    this.view.drawPlane(plane.type);
  }

  /** Know that the server has a stroke: the next masks hold it. */
  answerStroke(stroke) {
    stroke.isAnswered = true;
  }

  /** Take a stroke away that came to nothing. */
  endStroke(stroke) {
    stroke.isAnswered = true;
    this.settle(stroke);
    this.view.drawScene();
  }

  /** Show of a stroke what masks say once it is answered, and the stroke itself until then. */
  settle(stroke) {
    this.setLabels(stroke.indices, stroke.isAnswered ? (index) => this.labelShown(index) : (_, now) => stroke.label(now));
    if (stroke.isAnswered) this.strokes.delete(stroke);
  }

  /** Return the label that the masks shown give to a voxel of the file. */
  labelShown(index) {
    const voxel = this.grid.voxelAt(index);
    for (const [id, { voxels, startIjk, shapeIjk }] of this.shown) {
      const [i, j, k] = [0, 1, 2].map((axis) => voxel[axis] - startIjk[axis]);
      const isInBox = i >= 0 && j >= 0 && k >= 0 && i < shapeIjk[0] && j < shapeIjk[1] && k < shapeIjk[2];
      if (isInBox && voxels[i + shapeIjk[0] * (j + shapeIjk[1] * k)]) return this.hidden.has(id) ? 0 : id;
    }
    return 0;
  }

  /** Return the numbers of the voxels of an object's mask in the file. */
  indicesOf(id) {
    const { voxels, startIjk, shapeIjk } = this.shown.get(id) ?? { voxels: [], startIjk: [0, 0, 0], shapeIjk: [1, 1, 1] };
    const box = new Grid(shapeIjk, this.grid.affine);
    const indices = [];
    voxels.forEach((value, n) => value && indices.push(this.grid.indexOf(box.voxelAt(n).map((at, axis) => at + startIjk[axis]))));
    return indices;
  }

  /** Write labels of voxels of the file, by number, into the drawing layer. */
  setLabels(indices, labelOf) {
    if (!this.view.drawBitmap) this.view.beginDrawing();
    const bitmap = this.view.drawBitmap;
    const { origin, stride } = this.placed([0, 0, 0], [1, 1, 1]);
    const voxels = [];
    for (const index of indices) {
      const voxel = this.grid.voxelAt(index);
      const at = origin + voxel[0] * stride[0] + voxel[1] * stride[1] + voxel[2] * stride[2];
      bitmap[at] = labelOf(index, bitmap[at]);
      voxels.push(voxel);
    }
    if (!voxels.length) return;
    const box = boxAround(voxels);
    this.sendBoxes([this.placed(box.start, box.shape)]);
    this.view.spoilRender();
  }

  /** Return the grey value of a voxel of the file, by its number. */
  valueOf(index) {
    const { img, hdr } = this.image;
    return img[index] * (hdr.scl_slope || 1) + (hdr.scl_inter || 0);
  }

  /** Return the axis of the file (0 to 2 for i, j, k) that goes across a plane, by the patient's axis. */
  fileAxis(axis) {
    return Math.abs(this.image.permRAS[axis]) - 1;
  }

  /** Draw an object or not; masks are as they were. */
  hide(id, isHidden) {
    if (isHidden) this.hidden.add(id);
    else this.hidden.delete(id);
    const mask = this.shown.get(id);
    if (mask) this.send([this.paint(mask, id, isHidden ? 0 : id)]);
  }

  send(boxes) {
    this.sendBoxes(boxes);
    if (boxes.length) this.view.spoilRender();
    this.view.drawScene();
  }

  sendBoxes(boxes) {
    for (const { start, shape } of boxes) if (shape.every((length) => length > 0)) this.view.sendBox(start, shape);
  }

  /** Return where a box of the file lies in NiiVue's voxels, and the step there for each axis of the file. */
  placed(startIjk, shapeIjk) {
    const { permRAS, dimsRAS } = this.image;
    const dims = [dimsRAS[1], dimsRAS[2], dimsRAS[3]];
    const steps = [1, dims[0], dims[0] * dims[1]];
    const [start, shape, stride] = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
    let origin = 0;
    for (let axis = 0; axis < 3; axis++) {
      const own = Math.abs(permRAS[axis]) - 1;
      const isTurned = permRAS[axis] < 0;
      const first = isTurned ? dims[axis] - 1 - startIjk[own] : startIjk[own];
      start[axis] = isTurned ? first - shapeIjk[own] + 1 : first;
      shape[axis] = shapeIjk[own];
      stride[own] = isTurned ? -steps[axis] : steps[axis];
      origin += first * steps[axis];
    }
    return { start, shape, stride, origin, shapeIjk };
  }

  paint(mask, id, value) {
    const { voxels, stride, origin, shapeIjk: [width, height, depth] } = mask;
    const bitmap = this.view.drawBitmap;
    let n = 0;
    for (let k = 0; k < depth; k++) {
      for (let j = 0; j < height; j++) {
        let at = origin + k * stride[2] + j * stride[1];
        for (let i = 0; i < width; i++, n++, at += stride[0]) if (voxels[n]) bitmap[at] = value;
      }
    }
    return mask;
  }

  /** Show grey values from low to high, and dark as bright, as PET is read, or not. */
  setWindow(range, isInverted) {
    if (this.image) this.view.setWindow(range, isInverted);
  }

  /** Set how masks look in the planes: fill from 0 to 1, and whether they have a contour. */
  setMaskStyle(opacity, outline) {
    // At 0 NiiVue leaves the contour out as well.
    this.view.drawOpacity = outline ? Math.max(opacity, 0.004) : opacity;
    this.view.drawRimOpacity = outline ? 1 : -1;
    this.view.spoilRender();
    this.view.drawScene();
  }

  /** Lay the tiles out anew: four, or one large and three small, or one alone. */
  arrange() {
    const plane = PLANES.find(({ id }) => id === this.enlarged);
    const places = plane ? [[0, 0, 1, 1]] : placesOf(this.layout, this.stage);
    this.view.setCustomLayout((plane ? [plane] : PLANES).map(({ type }, n) => ({ sliceType: type, position: places[n] })));
  }

  enlarge(planeId) {
    this.enlarged = this.enlarged === planeId ? null : planeId;
    this.arrange();
  }

  /** Return the place of the crosshair in RAS mm. */
  crosshairMm() {
    return Array.from(this.view.frac2mm(this.view.scene.crosshairPos, 0, true)).slice(0, 3);
  }

  /** Return the plane under a pixel of the page, one of PLANES; undefined between tiles. */
  planeUnder(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const [fx, fy] = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    const within = ({ position: [x, y, w, h] }) => fx >= x && fx < x + w && fy >= y && fy < y + h;
    const type = this.view.getCustomLayout()?.find(within)?.sliceType;
    return PLANES.find((plane) => plane.type === type);
  }

  /** Return the place at a pixel of the page in the scan's own axes, in a plane that is shown; null where it is not. */
  flatIn(plane, clientX, clientY) {
    const slice = this.image && plane && this.view.screenSlices.find((each) => each.axCorSag === plane.type);
    if (!slice || !TILE_AXES[plane.type]) return null;
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const { left, top, width, height, isMirrored } = boxOf(slice);
    const part = ((clientX - box.left) * ratio - left) / width;
    const across = slice.leftTopMM[0] + (isMirrored ? 1 - part : part) * slice.fovMM[0];
    const up = slice.leftTopMM[1] + (1 - ((clientY - box.top) * ratio - top) / height) * slice.fovMM[1];
    const flat = [0, 0, 0];
    TILE_AXES[plane.type].forEach((axis, n) => (flat[axis] = [across, up, outOf(slice, across, up)][n]));
    return flat;
  }

  /** Return the place under a pixel in the scan's own axes, also beside the scan; null where there is no plane. */
  flatUnder(clientX, clientY) {
    return this.flatIn(this.planeUnder(clientX, clientY), clientX, clientY);
  }

  /** Return the RAS mm at a pixel of the page in a plane, also beyond its tile; null in the 3D view or in none. */
  mmIn(plane, clientX, clientY) {
    const flat = this.flatIn(plane, clientX, clientY);
    return flat && Array.from(this.view.frac2mm(this.view.mm2frac(flat), 0, true)).slice(0, 3);
  }

  /** Return the RAS mm under a pixel of a plane, also beside the scan; null in the 3D view or between tiles. */
  mmUnder(clientX, clientY) {
    return this.mmIn(this.planeUnder(clientX, clientY), clientX, clientY);
  }

  /** Return how many CSS pixels a millimetre has in a plane that is shown. */
  pixelsPerMm(plane) {
    const slice = this.view.screenSlices.find((each) => each.axCorSag === plane.type);
    return slice ? boxOf(slice).width / slice.fovMM[0] / (this.canvas.width / this.canvas.clientWidth) : 0;
  }

  /** Return the grey value at a place in RAS mm; undefined beside the scan. */
  valueAt(mm) {
    const fraction = Array.from(this.view.mm2frac(mm, 0, true)).slice(0, 3);
    if (fraction.some((each) => each < 0 || each > 1)) return undefined;
    return this.image.getValue(...this.view.frac2vox(fraction));
  }

  /** Return {number, count} of the slice of a plane that is shown, from 1. */
  sliceOf(axis) {
    const count = this.image.dimsRAS[axis + 1];
    return { number: this.view.frac2vox(this.view.scene.crosshairPos)[axis] + 1, count };
  }

  /**
   * Return the planes shown, and in each where a place in RAS mm lies.
   *
   * @returns {{axis: number, tile: {left: number, top: number, width: number, height: number},
   *   placeOf: (mm: number[]) => {x: number, y: number, slices: number}, holds: (place: object) => boolean}[]}
   *   `axis` goes across; places are CSS pixels of the canvas, and how many slices before the one shown (below 0:
   *   behind); `holds` says whether a place falls into the tile.
   */
  tilesShown() {
    if (!this.image) return [];
    const { view } = this;
    const ratio = this.canvas.width / this.canvas.clientWidth;
    return view.screenSlices.flatMap((slice) => {
      const axes = TILE_AXES[slice.axCorSag];
      if (!axes) return [];
      const { left, top, width, height, isMirrored } = boxOf(slice);
      const tile = { left: left / ratio, top: top / ratio, width: width / ratio, height: height / ratio };
      const placeOf = (mm) => {
        const flat = view.frac2mm(view.mm2frac(mm, 0, true)); // the scan's own axes, as tiles are laid out
        const [across, up, out] = axes.map((axis) => flat[axis]);
        const part = (across - slice.leftTopMM[0]) / slice.fovMM[0];
        const fy = (up - slice.leftTopMM[1]) / slice.fovMM[1];
        return {
          x: (left + (isMirrored ? 1 - part : part) * width) / ratio,
          y: (top + (1 - fy) * height) / ratio,
          slices: (out - outOf(slice, across, up)) / this.spacingMm[axes[2]],
        };
      };
      const holds = ({ x, y }) => x >= tile.left && x <= tile.left + tile.width && y >= tile.top && y <= tile.top + tile.height;
      return [{ axis: axes[2], tile, placeOf, holds }];
    });
  }

  /** Distance of neighbouring slices in mm along the patient's x, y and z. */
  get spacingMm() {
    return this.image.pixDimsRAS.slice(1, 4);
  }

  moveCrosshair(x, y, z) {
    if (this.image) this.view.moveCrosshairInVox(x, y, z);
  }

  /** Go through the slices of a plane; the plane itself is drawn at once, the others when the wheel rests. */
  scroll(plane, numSlices) {
    if (!this.image || plane.axis === null) return;
    const { crosshairPos } = this.view.scene;
    const count = this.image.dimsRAS[plane.axis + 1];
    const at = Math.round(crosshairPos[plane.axis] * count - 0.5) + numSlices;
    crosshairPos[plane.axis] = (Math.min(Math.max(at, 0), count - 1) + 0.5) / count;
    this.view.drawPlane(plane.type);
    this.tellPlace();
  }

  /** Move the crosshair to a place in RAS mm. */
  goTo(mm) {
    this.view.scene.crosshairPos = this.view.mm2frac(mm, 0, true);
    this.view.drawScene();
    this.tellPlace();
  }

  /**
   * Zoom the planes by a factor; a place (in the scan's own axes), else the crosshair, stays where it is.
   *
   * @param {number} factor
   * @param {number[] | null} flat
   */
  zoom(factor, flat = null) {
    if (!this.image) return;
    const [x, y, z, old] = this.view.scene.pan2Dxyzmm;
    const zoom = Math.min(Math.max(old * factor, 0.5), 24);
    const at = flat ?? this.view.frac2mm(this.view.scene.crosshairPos);
    const pan = [x, y, z].map((offset, n) => offset + at[n] * (old - zoom));
    this.view.setPan2Dxyzmm([...pan, zoom]);
  }

  resetView() {
    this.view.setPan2Dxyzmm([0, 0, 0, 1]);
  }
}
