// Browsers start no worker from a file: a page that is opened from the disk searches in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      this.early = [];
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      };
      inside.importScripts = (...addresses) =>
        addresses.reduce((before, one) => before.then(() => load(inside.document, one)), Promise.resolve());
      this.inside = inside;
      this.ready = load(inside.document, address);
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
}

function load(page, address) {
  return new Promise((done, failed) => {
    const script = page.createElement("script");
    script.src = new URL(address, location.href);
    script.onload = done;
    script.onerror = failed;
    page.body.append(script);
  });
}
