// The mouse and the fingers over the planes: what is a click, what is a drag, and how far a wheel turned.

const DRAG_PIXELS = 4; // a hand shakes this much
const NOTCH_PIXELS = 100; // of a mouse wheel; a step of the finger on a touchpad is much less
const TOUCHPAD_PIXELS = 30; // of a touchpad, for one slice
const PIXELS_PER_LINE = 33;
const ZOOM_PER_PIXEL = 0.01;
const MAX_ZOOM_PIXELS = 22; // a notch is 100 pixels, a pinch a few

/** Return a function from wheel events to whole slices; what is left over counts for the next event. */
export function makeWheel() {
  let left = 0;
  return ({ deltaY, deltaMode }) => {
    const pixels = deltaMode === 0 ? deltaY : deltaY * PIXELS_PER_LINE;
    if (Math.sign(pixels) !== Math.sign(left)) left = 0;
    const unit = Math.abs(pixels) >= NOTCH_PIXELS - 1 ? NOTCH_PIXELS : TOUCHPAD_PIXELS;
    left += pixels / unit;
    const whole = Math.trunc(left + Math.sign(left) * 0.02);
    left -= whole;
    return whole;
  };
}

/** Return the factor of a zoom by wheel or pinch. */
export function zoomFactor({ deltaY, deltaMode }) {
  const pixels = deltaMode === 0 ? deltaY : deltaY * PIXELS_PER_LINE;
  return Math.exp(-ZOOM_PER_PIXEL * Math.min(Math.max(pixels, -MAX_ZOOM_PIXELS), MAX_ZOOM_PIXELS));
}

/**
 * Listen to the canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{click: (x: number, y: number, isShift: boolean) => void, window: (dx: number, dy: number) => void,
 *   zoom: (factor: number, x: number, y: number) => void, scroll: (slices: number, x: number, y: number) => void,
 *   hover: (x: number, y: number, isShift: boolean) => void, brush: (steps: number) => void, leave: () => void,
 *   drawing: (kind: "down" | "move" | "up", x: number, y: number, isShift: boolean, isAgain?: boolean) => boolean}} acts `drawing` is
 *   true where a tool takes the drag, which then is none of the crosshair.
 */
export function listenToPointer(canvas, acts) {
  let pressed = /** @type {{x: number, y: number, moved: number} | null} */ (null); // {x, y, moved} since the button went down
  let rightAt = /** @type {number[] | null} */ (null); // where the right button was last
  let isDrawing = false;

  canvas.addEventListener(
    "mousedown",
    (event) => {
      if (event.button !== 0) return;
      // The event that NiiVue puts its crosshair by; that of a pointer has fractions of pixels.
      pressed = { x: event.clientX, y: event.clientY, moved: 0 };
      const isAgain = event.detail > 1; // the second press of a double click
      isDrawing = !event.ctrlKey && acts.drawing("down", event.clientX, event.clientY, event.shiftKey, isAgain);
      if (isDrawing) event.stopImmediatePropagation();
    },
    { capture: true },
  );

  canvas.addEventListener("pointerdown", (event) => {
    canvas.classList.add("pointed");
    canvas.focus({ preventScroll: true });
    if (event.button === 2 || event.button === 0) canvas.setPointerCapture(event.pointerId);
    if (event.button === 2) rightAt = [event.clientX, event.clientY];
  });

  canvas.addEventListener("pointermove", (event) => {
    if (pressed) {
      const distance = Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y);
      pressed.moved = Math.max(pressed.moved, distance);
    }
    if (isDrawing) {
      // All that the mouse has passed since the last event, so that a fast stroke is no polygon.
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const { clientX, clientY } of passed.length ? passed : [event]) acts.drawing("move", clientX, clientY, event.shiftKey);
    }
    if (rightAt && event.buttons & 2) {
      acts.window(event.clientX - rightAt[0], event.clientY - rightAt[1]);
      rightAt = [event.clientX, event.clientY];
    }
    acts.hover(event.clientX, event.clientY, event.shiftKey);
  });
  canvas.addEventListener("pointerleave", () => acts.leave());

  canvas.addEventListener("pointerup", (event) => {
    if (event.button === 2) rightAt = null;
    if (isDrawing && event.button === 0) acts.drawing("up", event.clientX, event.clientY, event.shiftKey);
  });

  canvas.addEventListener("click", (event) => {
    const isClick = !event.ctrlKey && !isDrawing && event.detail <= 1;
    // The second click of a double click is the same place again.
    if (isClick && pressed && pressed.moved <= DRAG_PIXELS) acts.click(pressed.x, pressed.y, event.shiftKey);
    pressed = null;
    isDrawing = false;
  });

  document.addEventListener("keydown", () => canvas.classList.remove("pointed"), { capture: true });
  canvas.addEventListener("blur", () => canvas.classList.remove("pointed"));

  // NiiVue would set the window anew.
  canvas.addEventListener("dblclick", (event) => event.stopImmediatePropagation(), { capture: true });

  const slicesOf = makeWheel();
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      event.stopImmediatePropagation();
      const { clientX, clientY } = event;
      if (event.ctrlKey || event.metaKey) return acts.zoom(zoomFactor(event), clientX, clientY);
      const slices = slicesOf(event);
      if (slices && event.altKey) return acts.brush(-slices);
      if (slices) acts.scroll(-slices, clientX, clientY);
    },
    { capture: true, passive: false },
  );
}
