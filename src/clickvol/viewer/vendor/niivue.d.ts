// What tsc knows of niivue.js: names, not shapes. Much of what the viewer changes is not in NiiVue's published types.
export class Niivue {
  constructor(options?: object);
  back: any;
  drawBitmap: any;
  screenSlices: any;
  customLayout: any;
  [member: string]: any;
}
export class NVImage {
  static loadFromUrl(options: object): Promise<NVImage>;
  [member: string]: any;
}
export const cmapper: any;
export const DRAG_MODE: Record<string, number>;
export const SLICE_TYPE: Record<string, number>;
