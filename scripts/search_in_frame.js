// Lets the search of the site work on a page that was opened from a file. A browser starts no worker for such a page, so
// this stands in for `Worker`: it runs the script of the worker in a hidden frame, and hands messages to and fro.
"use strict";

class FrameWorker extends EventTarget {
  constructor(address) {
    super();
    this.onmessage = null;
    this.onerror = null;
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inside = this.frame.contentWindow;
    inside.postMessage = (data) => this.pass(new MessageEvent("message", { data: structuredClone(data) }));
    inside.importScripts = async (...addresses) => {
      for (const each of addresses) await this.load(each);
    };
    inside.addEventListener("error", (event) => this.pass(new ErrorEvent("error", { message: event.message })));
    this.ready = this.load(address);
    this.ready.catch(() => this.pass(new ErrorEvent("error", { message: `${address} cannot be loaded` })));
  }

  // Run a script in the frame; addresses are relative to the page.
  load(address) {
    return new Promise((done, failed) => {
      const script = this.frame.contentDocument.createElement("script");
      script.src = new URL(address, location.href).href;
      script.onload = done;
      script.onerror = failed;
      this.frame.contentDocument.body.append(script);
    });
  }

  // Give an event of the frame to those who listen to the worker.
  pass(event) {
    this.dispatchEvent(event);
    const handler = this[`on${event.type}`];
    if (handler) handler.call(this, event);
  }

  postMessage(data) {
    const copy = structuredClone(data);
    this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: copy })), () => {});
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
